"""Backup files: one file with all that a store holds, blobs included; and their restoring.

A backup file is a database like the store's, marked by another application
id so that no server opens it as its store: a store that was set back must
first forget whoever worked for it. ``restore`` does that. It gives the store
another uid (so that workers drop the leases and clients the streams they had
with the old one), other uids to all sessions, queues again what ran, and
raises the epoch so far that no token of the old store is ever granted again.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from multihost.core.digest import Digester
from multihost.core.ids import TOKEN_COUNT_BITS, UID_BYTES
from multihost.errors import StoreCorrupt, StoreError, StoreTooNew
from multihost.store.lockfile import LockFile
from multihost.store.places import (
    BLOB_DIRECTORY,
    STORE_FILE,
    blob_place,
    journal_of,
    sync_directory,
)
from multihost.store.sqlite.file import (
    APPLICATION_ID,
    BACKUP_ID,
    SCHEMA_VERSION,
    store_errors,
    translated,
)
from multihost.store.sqlite.replacing import finish_replacing, ready_place, replace
from multihost.store.sqlite.store import open_store
from multihost.wire.message import Role

PART_BYTES: Final = 1 << 20
"""Of a big blob in one row of a backup file."""
EPOCHS_SKIPPED: Final = 4096
"""More than the restarts of the old server, since the backup was made, that anybody could see."""
LAST_EPOCH: Final = (1 << 63 - TOKEN_COUNT_BITS) - 1

_PARTS = (
    "CREATE TABLE backup_blobs (digest BLOB NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY (digest, part)) STRICT"
)
_FILED = "SELECT digest, size FROM blobs WHERE is_inline = 0"
_PART_DATA = "SELECT data FROM backup_blobs WHERE digest = ? ORDER BY part"


class Sealed(NamedTuple):
    """A finished backup file."""

    size_bytes: int
    blobs: int
    """Blobs that were files and are in it."""
    damaged: tuple[str, ...]
    """Digests of blobs whose files were missing or damaged: the backup lacks them too."""


class Restored(NamedTuple):
    """What a restore did."""

    jobs: int
    blobs: int
    requeued: int
    """Tasks that ran when the backup was made."""
    made_at: float
    moved: Path | None
    """Where the store that was there before is now."""


# --- making -----------------------------------------------------------------------------


def seal(copy: apsw.Connection, path: Path, blobs: Path, now: float) -> Sealed:
    """Add the files of ``blobs`` to a finished ``copy`` at ``path``, mark it, close and sync it.

    Reads and writes much: for a thread. Raises StoreError, StoreFull or OSError.
    """
    with store_errors(str(path)):
        copy.pragma("journal_mode", "DELETE")
        copy.execute(_PARTS)
        rows: list[Any] = copy.execute(_FILED).fetchall()
        damaged = [d.hex() for d, size in rows if not _add_blob(copy, d, size, blobs)]
        added = copy.execute("SELECT count(DISTINCT digest) FROM backup_blobs").get
        copy.execute("INSERT INTO meta VALUES ('backup_at', ?)", (now,))
        copy.pragma("application_id", BACKUP_ID)
        copy.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return Sealed(path.stat().st_size, added, tuple(damaged))


def _add_blob(copy: apsw.Connection, digest: bytes, size_bytes: int, blobs: Path) -> bool:
    """Add the blob's file; False if something refers to it and it is not there as it was."""
    digester, found_bytes = Digester(), 0
    copy.execute("BEGIN")
    with contextlib.suppress(FileNotFoundError), blob_place(blobs, digest).open("rb") as file:
        number = 0
        while part := file.read(PART_BYTES):
            digester.update(part)
            found_bytes += len(part)
            copy.execute("INSERT INTO backup_blobs VALUES (?, ?, ?)", (digest, number, part))
            number += 1
    copy.execute("COMMIT")
    if found_bytes == size_bytes and digester.digest() == digest:
        return True
    copy.execute("DELETE FROM backup_blobs WHERE digest = ?", (digest,))
    # Nothing refers to it: then it is on its way out, and its file went first.
    copy.execute("DELETE FROM blobs WHERE digest = ? AND refs = 0", (digest,))
    return bool(copy.changes())


# --- restoring --------------------------------------------------------------------------


def restore(backup: Path, state: Path, now: float, *, replaces: bool) -> Restored:
    """Make the store in the directory ``state`` from the file ``backup``.

    ``replaces``: a store that is there is moved aside; else it is a StoreError.
    Raises StoreLocked while a server has it open.
    """
    made_at = backup_time(backup)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / STORE_FILE
    lock = LockFile(path)
    try:
        finish_replacing(path)
        if path.exists() and not replaces:
            raise StoreError(
                f"{path} is there already; move it away, choose another directory with --state, "
                "or say --replace to have it renamed"
            )
        work = state / f"{STORE_FILE}.restoring"
        try:
            shutil.copyfile(backup, work)
            work.chmod(0o600)
            blobs = _take_over(work, state / BLOB_DIRECTORY, _epoch_of(path))
            jobs, requeued = _forget_peers(work, now)
            work.rename(ready_place(path))
            moved = replace(path)
        finally:
            for leftover in ("", "-wal", "-journal", ".lock"):
                Path(f"{work}{leftover}").unlink(missing_ok=True)
            journal_of(work).unlink(missing_ok=True)
    finally:
        lock.close()
    return Restored(jobs, blobs, requeued, made_at, moved)


def backup_time(path: Path) -> float:
    """When the backup file at ``path`` was made; raises StoreError for any other file."""
    with reading(path) as db:
        if db.pragma("application_id") != BACKUP_ID:
            raise StoreCorrupt(
                f"{path} is no finished backup of a store; 'multihost backup FILE' makes them",
                str(path),
            )
        version = db.pragma("user_version")
        if version > SCHEMA_VERSION:
            raise StoreTooNew(
                f"{path} has schema {version}; this multihost knows schemas up to "
                f"{SCHEMA_VERSION}. Install the newer version that wrote it",
                str(path),
                version,
            )
        made_at: float = db.execute("SELECT value FROM meta WHERE name = 'backup_at'").get
    return made_at


@contextlib.contextmanager
def reading(path: Path) -> Iterator[apsw.Connection]:
    """A connection that can only read ``path``, which nobody is changing."""
    if not path.is_file():
        raise StoreError(f"there is no file {path}")
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        db = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags=flags)
        try:
            yield db
        finally:
            db.close()
    except apsw.Error as error:
        raise translated(error, str(path)) from error


def _epoch_of(path: Path) -> int:
    """Epoch of the store that is being replaced, as far as it can be read."""
    if not path.exists():
        return 0
    with contextlib.suppress(apsw.Error):
        db = apsw.Connection(str(path))
        try:
            epoch: int = db.execute("SELECT value FROM meta WHERE name = 'epoch'").get or 0
        finally:
            db.close()
        return epoch
    return 0


def _take_over(path: Path, blobs: Path, floor: int) -> int:
    """Turn the backup at ``path`` into a store of its own; how many blobs became files."""
    with store_errors(str(path)):
        db = apsw.Connection(str(path))
        try:
            files = _write_blobs(db, blobs)
            epoch = max(floor, db.execute("SELECT value FROM meta WHERE name = 'epoch'").get)
            epoch += EPOCHS_SKIPPED
            assert epoch < LAST_EPOCH, epoch
            db.execute("BEGIN IMMEDIATE")
            db.execute("DROP TABLE backup_blobs")
            db.execute("DELETE FROM meta WHERE name = 'backup_at'")
            db.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (epoch,))
            uid = secrets.token_bytes(UID_BYTES)
            db.execute("UPDATE meta SET value = ? WHERE name = 'uid'", (uid,))
            db.execute("UPDATE sessions SET uid = randomblob(16)")
            db.pragma("application_id", APPLICATION_ID)
            db.execute("COMMIT")
            db.execute("PRAGMA incremental_vacuum").fetchall()
        finally:
            db.close()
    return files


def _write_blobs(db: apsw.Connection, directory: Path) -> int:
    digests: list[Any] = db.execute("SELECT DISTINCT digest FROM backup_blobs").fetchall()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    for (digest,) in digests:
        place = blob_place(directory, digest)
        if place.exists():
            continue  # named by its content: the same
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        part = directory / f"{digest.hex()}.part"
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            for (data,) in db.execute(_PART_DATA, (digest,)):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
        sync_directory(place.parent)
    if digests:
        sync_directory(directory)
    return len(digests)


def _forget_peers(path: Path, now: float) -> tuple[int, int]:
    """Queue again what ran when the backup was made; how many jobs there are, and how many ran."""
    store = open_store(path)
    try:
        store.begin()
        requeued = 0
        for row in store.sessions(Role.WORKER):
            requeued += len(store.reinstate(row.number, (), now).released)
            store.close_session(row.number, now)
        store.prepare(now)
        store.commit(is_durable=True)
        jobs = store.count_jobs()
    finally:
        store.close()
    return jobs, requeued
