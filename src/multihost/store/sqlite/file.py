"""The database file: opened alone, brought to this version's schema, synced, checkpointed.

SQLite runs with ``synchronous=NORMAL``: a commit is then one write to the
write-ahead log and survives the death of the process. A durable commit adds
an ``fdatasync`` of the log through a descriptor of our own. That is the very
call that ``synchronous=FULL`` would make after the last frame of a commit, but
the level can't be changed within a transaction, and whether one has to be
durable is only known at its end. The log carries no locks in exclusive mode,
so a second descriptor on it can't drop any when it is closed.

Checkpoints are made here and not by SQLite's own hook, which swallows their
errors: when an ``fsync`` fails the kernel may forget what it could not write,
and a store that goes on after that loses data.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import get_data
from typing import Final

import apsw

from multihost.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreTooNew
from multihost.store.lockfile import LockFile
from multihost.store.places import NO_ROOM, sync_directory
from multihost.store.sqlite.replacing import finish_replacing

SCHEMA_VERSION: Final = 3
"""Version of the newest migration."""
APPLICATION_ID: Final = 0x6D68_7374
"""``mhst`` in the file's header: tells a store from other databases."""
BACKUP_ID: Final = 0x6D68_626B
"""``mhbk``: a backup, which has to be restored before a server may open it."""
CHECKPOINT_PAGES: Final = 4000
"""Pages in the log (16 MiB) at which they are copied into the database."""
FRAME_BYTES: Final = 4096 + 24
"""A page in the log."""
LOG_LIMIT_BYTES: Final = 64 << 20
"""A log that grew beyond this is cut back after a checkpoint."""
STATEMENTS: Final = 256
"""Prepared statements that are kept."""

_CORRUPT = (apsw.CorruptError, apsw.NotADBError)


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Say SQLite's errors in the words of ``multihost.errors``."""
    try:
        yield
    except apsw.Error as error:
        raise translated(error, path) from error


def is_full(error: apsw.Error, db: apsw.Connection) -> bool:
    """Whether the disk has no room, or its quota leaves none: SQLite takes that for damage."""
    if isinstance(error, apsw.IOError):
        is_write = getattr(error, "extendedresult", None) == apsw.SQLITE_IOERR_WRITE
        return is_write and db.system_errno in NO_ROOM
    return isinstance(error, apsw.FullError)


def translated(
    error: apsw.Error, path: str, db: apsw.Connection | None = None
) -> StoreError | StoreFull | apsw.Error:
    """The error to raise in place of SQLite's; the same one if it is a bug of ours.

    ``db``: where it happened, if that is known to be still open.
    """
    if isinstance(error, apsw.FullError) or (db is not None and is_full(error, db)):
        return StoreFull(f"the disk that holds {path} is full; make room and submit again")
    if isinstance(error, _CORRUPT):
        return StoreCorrupt(
            f"{path} is damaged or is no multihost store ({error}); "
            "restore it from a backup, or move it away to begin with an empty one",
            path,
        )
    if isinstance(error, apsw.BusyError):
        return StoreLocked(
            f"{path} is open in another program; close that, or choose another state directory",
            path,
        )
    if isinstance(error, (apsw.SQLError, apsw.ConstraintError, apsw.MisuseError, apsw.RangeError)):
        return error
    return StoreError(f"{path} can't be read or written ({error}); see to its disk and restart")


class DatabaseFile:
    """An open database with exclusive use of its file.

    Invariant: from construction to ``close`` this process alone holds the
    lock, and ``db`` is its only connection.
    """

    def __init__(
        self, path: Path, *, cache_bytes: int, vfs: str | None, sync_log: Callable[[], None] | None
    ) -> None:
        """Open or create ``path``; see ``open_store`` for the rest."""
        self.path = path
        self.log_pages = 0
        self._log_fd = -1
        self._sync_log = sync_log or self._sync_descriptor
        self._synced_changes = 0
        self._lock = LockFile(path)
        try:
            with store_errors(str(path)):
                if vfs is None:
                    finish_replacing(path)
                    # SQLite would make it readable to all; the log takes the mode after it.
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self.db = apsw.Connection(str(path), vfs=vfs, statementcachesize=STATEMENTS)
        except BaseException:
            self._lock.close()
            raise
        try:
            with store_errors(str(path)):
                self._set_up(cache_bytes)
        except BaseException:
            self.close()
            raise

    # opening -------------------------------------------------------------------------

    def _set_up(self, cache_bytes: int) -> None:
        """Look whose file it is, and only then change it: to this version's schema."""
        db = self.db
        db.setbusytimeout(0)
        # Before anything reads the file, lest an index of the log is made for sharing it.
        db.pragma("locking_mode", "EXCLUSIVE")
        version = self._known_version()
        if version == 0:
            # These two only take effect before the first page is written.
            db.pragma("page_size", 4096)
            db.pragma("auto_vacuum", 2)
        db.pragma("journal_mode", "WAL")
        db.pragma("synchronous", "NORMAL")
        db.pragma("cache_size", -(cache_bytes >> 10))
        db.pragma("temp_store", "MEMORY")
        db.pragma("journal_size_limit", LOG_LIMIT_BYTES)
        db.pragma("cell_size_check", 1)
        db.pragma("trusted_schema", 0)
        # Else a statement is prepared anew whenever another value is bound to it.
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        db.set_wal_hook(self._note_log)
        for number in range(version + 1, SCHEMA_VERSION + 1):
            self._migrate(number)

    def _known_version(self) -> int:
        """Version of the schema in the file, 0 if it is empty; raises for what is not ours."""
        version: int = self.db.pragma("user_version")
        self._check_whose(version)
        if version > SCHEMA_VERSION:
            raise StoreTooNew(
                f"{self.path} has schema {version}; this multihost knows schemas up to "
                f"{SCHEMA_VERSION}. Install the newer version that wrote it",
                str(self.path),
                version,
            )
        return version

    def _check_whose(self, version: int) -> None:
        has_tables = self.db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").get is not None
        if has_tables and self.db.pragma("application_id") == BACKUP_ID:
            raise StoreError(
                f"{self.path} is a backup, and workers may still hold leases of the store it was "
                "made of; 'multihost restore FILE' makes a store of it"
            )
        if has_tables and (self.db.pragma("application_id") != APPLICATION_ID or version < 1):
            raise StoreCorrupt(
                f"{self.path} is a database of another program; choose another state directory",
                str(self.path),
            )

    def _migrate(self, number: int) -> None:
        text = get_data(__package__, f"migrations/{number:04d}.sql")
        assert text is not None
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(text.decode())
        self.db.pragma("application_id", APPLICATION_ID)
        self.db.pragma("user_version", number)
        self.db.execute("COMMIT")

    # durability -----------------------------------------------------------------------

    def sync(self) -> None:
        """Return when everything committed so far would survive a power cut."""
        changes = self.db.total_changes()
        if changes == self._synced_changes:
            return
        try:
            self._sync_log()
        except OSError as error:
            raise StoreError(
                f"the log of {self.path} can't be flushed to its disk ({error}); "
                "what was acknowledged is kept, what came after is unknown. "
                "See to the disk and restart"
            ) from error
        self._synced_changes = changes

    def sync_all(self) -> None:
        """Sync the log whatever happened, and the directory that names the files."""
        self._synced_changes = -1
        self.sync()
        sync_directory(self.path.parent)

    def lengthen_log(self) -> None:
        """Give the log the size it will reach anyway.

        Writing where the file has blocks already, a sync has no change of size to note
        and takes a third less. Zeros are no frames: SQLite reads up to them and stops.
        """
        log, size_bytes = Path(f"{self.path}-wal"), (CHECKPOINT_PAGES + 100) * FRAME_BYTES
        zeros = bytes(1 << 20)
        with contextlib.suppress(OSError):  # a full disk: then it grows by and by
            fd = os.open(log, os.O_WRONLY | os.O_CLOEXEC)
            begin = at = os.fstat(fd).st_size
            try:
                while at < size_bytes:
                    at += os.pwrite(fd, zeros, at)
                os.fsync(fd)
            except OSError:
                # What room there is may be all that the server needs to start.
                os.ftruncate(fd, begin)
            finally:
                os.close(fd)

    def _sync_descriptor(self) -> None:
        if self._log_fd < 0:
            self._log_fd = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        _flush(self._log_fd)

    def checkpoint(self) -> None:
        """Copy the log into the database once it is long enough."""
        if self.log_pages < CHECKPOINT_PAGES:
            return
        try:
            self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            if not is_full(error, self.db):
                raise
            # The log holds everything and the commit stands; the next one tries again.
            return
        self.log_pages = 0

    def _note_log(self, db: apsw.Connection, name: str, pages: int) -> int:
        self.log_pages = pages
        return apsw.SQLITE_OK

    def close(self) -> None:
        """Copy the log into the database, close it, and let go of the lock."""
        try:
            with store_errors(str(self.path)):
                self.db.close()
        finally:
            if self._log_fd >= 0:
                os.close(self._log_fd)
                self._log_fd = -1
            self._lock.close()


def _flush(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # Apple's fsync leaves the data in the drive's own cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)
