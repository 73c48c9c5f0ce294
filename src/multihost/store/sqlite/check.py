"""Checking a store that no server has open, or a backup file: every row and every blob.

Nothing is changed. What is wrong is a *problem*; what is only left over, and
the next server will remove by itself, is a *note*.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from multihost.core.digest import Digester, digest_of
from multihost.errors import StoreCorrupt, StoreError
from multihost.store.lockfile import LockFile
from multihost.store.places import (
    BLOB_DIRECTORY,
    STORE_FILE,
    blob_files,
    blob_place,
    journal_of,
)
from multihost.store.sqlite.backup import reading
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.file import (
    APPLICATION_ID,
    BACKUP_ID,
    SCHEMA_VERSION,
    store_errors,
    translated,
)
from multihost.store.sqlite.journal import records_in
from multihost.store.sqlite.replacing import finish_replacing, ready_place
from multihost.store.sqlite.verify import verify

READ_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Report:
    """What a check found."""

    path: Path
    is_backup: bool = False
    jobs: int = 0
    tasks: int = 0
    items: int = 0
    blobs: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(path: Path) -> Report:
    """Check the store in the directory ``path``, or the backup file ``path``.

    Raises StoreLocked while a server has the store open, StoreError for what
    is neither.
    """
    if path.is_dir():
        return _check_store(path)
    with reading(path) as db:
        report = Report(path, is_backup=True)
        _check_rows(db, report, BACKUP_ID)
        for digest, size_bytes in db.execute("SELECT digest, size FROM blobs WHERE is_inline = 0"):
            parts = db.execute(
                "SELECT data FROM backup_blobs WHERE digest = ? ORDER BY part", (digest,)
            )
            _check_parts(report, digest, size_bytes, (data for (data,) in parts))
    return report


def _check_store(state: Path) -> Report:
    path = state / STORE_FILE
    if not path.exists() and not ready_place(path).exists():
        raise StoreError(f"there is no store in {state}; correct --state")
    report = Report(path)
    lock = LockFile(path)
    try:
        finish_replacing(path)
        with _opened(path) as db:
            _check_rows(db, report, APPLICATION_ID)
            _look_at_journal(db, report)
            _check_files(db, report, state / BLOB_DIRECTORY)
    finally:
        lock.close()
    return report


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    with store_errors(str(path)):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.pragma("locking_mode", "EXCLUSIVE")
            # The log of a server that was killed is read, and left to the next one.
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            yield db
        finally:
            db.close()


def _check_rows(db: apsw.Connection, report: Report, application: int) -> None:
    _check_whose(db, report.path, application)
    db.pragma("temp_store", "MEMORY")
    try:
        report.problems += verify(Book(db, 0, 0))
        report.jobs, report.tasks, report.items, report.blobs = (
            db.execute(f"SELECT count(*) FROM {table}").get  # noqa: S608 - names of our tables
            for table in ("jobs", "tasks", "items", "blobs")
        )
        inline = "SELECT blobs.digest, size, data FROM blobs JOIN blob_data USING (digest)"
        for digest, size_bytes, data in db.execute(inline):
            if len(data) != size_bytes or digest_of(data) != digest:
                report.problems.append(f"blob {digest.hex()}: its bytes are not those it names")
    except (apsw.CorruptError, apsw.NotADBError) as error:
        report.problems.append(str(translated(error, str(report.path))))


def _look_at_journal(db: apsw.Connection, report: Report) -> None:
    uid, generation = (
        db.execute("SELECT value FROM meta WHERE name = ?", (name,)).get
        for name in ("uid", "journal")
    )
    path = journal_of(report.path)
    if not path.exists() or generation is None:
        return
    records = records_in(path.read_bytes(), uid, generation)
    if records:
        report.notes.append(
            f"{len(records)} changes of queues and locks are in the journal {path} and not counted "
            "here; the next server writes them into the store"
        )


def _check_whose(db: apsw.Connection, path: Path, application: int) -> None:
    found, version = db.pragma("application_id"), db.pragma("user_version")
    if found != application:
        kind = "store" if application == APPLICATION_ID else "finished backup"
        raise StoreCorrupt(f"{path} is no {kind} of multihost's", str(path))
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}, this multihost checks schema {SCHEMA_VERSION}; "
            "start a server on it (or restore the backup) once with this version, then check it"
        )


def _check_files(db: apsw.Connection, report: Report, directory: Path) -> None:
    known = set()
    for digest, size_bytes in db.execute("SELECT digest, size FROM blobs WHERE is_inline = 0"):
        place = blob_place(directory, digest)
        known.add(place)
        _check_parts(report, digest, size_bytes, _parts_of(place))
    for path in blob_files(directory):
        if path not in known:
            report.notes.append(f"{path} belongs to no blob; the server removes it")


def _parts_of(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while part := file.read(READ_BYTES):
            yield part


def _check_parts(report: Report, digest: bytes, size_bytes: int, parts: Iterator[bytes]) -> None:
    digester, found_bytes = Digester(), 0
    for part in parts:
        digester.update(part)
        found_bytes += len(part)
    if found_bytes != size_bytes:
        report.problems.append(
            f"blob {digest.hex()} has {size_bytes} bytes, {found_bytes} of them are there"
        )
    elif digester.digest() != digest:
        report.problems.append(f"blob {digest.hex()}: its bytes are not those it names")
