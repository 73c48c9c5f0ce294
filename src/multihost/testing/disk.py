"""A disk in memory under SQLite, on which the process or the power dies at any write.

It remembers what was written and what was synced. After a *crash* of the
process every write that was issued is there, except that the last one may be
torn. After a *power loss* only what was synced is surely there; of the rest
any part may be. It can also be full, or answer writes and syncs with errors.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

import apsw

SECTOR_BYTES = 512


class DiedError(Exception):
    """The process is dead; nothing it does from now on reaches the disk."""


class _Change(NamedTuple):
    """Something that was done to a file and is not synced yet."""

    path: str
    offset: int
    data: bytes | None
    """None: the file was cut to ``offset`` bytes."""


@dataclass
class Faults:
    """What is wrong with the disk."""

    writes_left: int | None = None
    """The process dies at the write after so many; None: it lives."""
    torn_bytes: int = 0
    """Of the write at which it dies, so many bytes still arrive."""
    room_bytes: int | None = None
    """Bytes by which files may still grow before the disk is full."""
    is_quota: bool = False
    """Whether it is the user's quota that leaves no room: that is another error."""
    fails_sync: bool = False
    fails_write: bool = False


class MemoryDisk:
    """Files by path; what of them is durable; and what is wrong at present.

    ``vfs``, ``sync`` and ``file`` are what ``open_store`` takes as ``vfs``, ``sync_log`` and
    ``journal``.
    """

    def __init__(self, name: str) -> None:
        """An empty disk, registered with SQLite under ``name`` until ``close``."""
        self.vfs = name
        self.files: dict[str, bytearray] = {}
        self.faults = Faults()
        self.writes = 0
        """Writes, cuts and deletions so far."""
        self.syncs = 0
        self.files_that_are_full: set[str] = set()
        """Ends of names of files that can't be written to for want of room."""
        self.journal: list[Callable[[MemoryDisk], None]] = []
        """What was done, in order; applied to another disk, it does the same there."""
        self._durable: dict[str, bytearray] = {}
        self._unsynced: list[_Change] = []
        self._writes: dict[str, int] = {}
        self._is_dead = False
        self._registered = _MemoryVFS(self)

    def close(self) -> None:
        """Take it away from SQLite."""
        self._registered.unregister()

    @property
    def is_dead(self) -> bool:
        """Whether the process is dead."""
        return self._is_dead

    def writes_to(self, end: str) -> int:
        """How often files were written whose names end so."""
        return sum(count for path, count in self._writes.items() if path.endswith(end))

    # what tests do ---------------------------------------------------------------------

    def kill(self) -> None:
        """The process is dead from now on."""
        self._is_dead = True

    def revive(self) -> None:
        """A new process opens the files as the dead one left them; all faults are mended."""
        self._is_dead = False
        self.faults = Faults()

    def lose_power(self, keep: Callable[[int], bool]) -> None:
        """Forget what was not synced, except the changes that ``keep`` (by number) spares.

        A write is kept or lost by sectors: ``keep`` is asked for each.
        """
        self.revive()
        files = {path: bytearray(data) for path, data in self._durable.items()}
        number = 0
        for path, offset, data in self._unsynced:
            for change in _sectors(path, offset, data):
                if keep(number):
                    _apply(files, change)
                number += 1
        self.files = files
        self._durable = {path: bytearray(data) for path, data in files.items()}
        self._unsynced.clear()

    def copy_to(self, other: "MemoryDisk") -> None:
        """Make ``other`` the same disk, as it is now."""
        other.revive()
        other.files = {path: bytearray(data) for path, data in self.files.items()}
        other._durable = {path: bytearray(data) for path, data in self._durable.items()}
        other._unsynced = list(self._unsynced)

    @contextmanager
    def full(self, room_bytes: int = 0) -> Iterator[None]:
        """There is no more room than ``room_bytes``, for a while."""
        self.faults.room_bytes = room_bytes
        yield
        self.faults.room_bytes = None

    def rename(self, before: str, after: str) -> None:
        """Let the names of files begin with ``after`` that began with ``before``."""
        for files in (self.files, self._durable):
            for path in [path for path in files if path.startswith(before)]:
                files[after + path.removeprefix(before)] = files.pop(path)

    def file(self, path: str) -> "PlainFile":
        """A file that is written without SQLite."""
        return PlainFile(self, path)

    # what SQLite does ------------------------------------------------------------------

    @property
    def last_errno(self) -> int:
        """What the system says of a write that failed."""
        return errno.EDQUOT if self.faults.is_quota else errno.EIO

    def check_alive(self) -> None:
        """Raise if the process is dead."""
        if self._is_dead:
            raise DiedError

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write, or die instead."""
        self._spend(path, offset, data)
        self._writes[path] = self._writes.get(path, 0) + 1
        if any(path.endswith(end) for end in self.files_that_are_full):
            raise self._no_room()
        if self.faults.fails_write:
            raise apsw.IOError("the disk fails")
        growth = offset + len(data) - len(self.files[path])
        if self.faults.room_bytes is not None and growth > 0:
            if growth > self.faults.room_bytes:
                raise self._no_room()
            self.faults.room_bytes -= growth
        self._change(_Change(path, offset, data))

    def _no_room(self) -> Exception:
        if self.faults.is_quota:
            return apsw.exception_for(apsw.SQLITE_IOERR_WRITE)
        return apsw.FullError("the disk is full")

    def truncate(self, path: str, size: int) -> None:
        """Cut a file, or die instead."""
        self._spend(path, size, b"")
        self._change(_Change(path, size, None))

    def create(self, path: str) -> None:
        """Make a file; its name is durable at once, its bytes are not."""
        self.check_alive()
        self.journal.append(lambda disk: disk.create(path))
        self.files.setdefault(path, bytearray())
        self._durable.setdefault(path, bytearray())

    def delete(self, path: str) -> None:
        """Delete a file, durably."""
        self._spend(path, 0, b"")
        self.journal.append(lambda disk: disk.delete(path))
        self.files.pop(path, None)
        self._durable.pop(path, None)
        self._unsynced = [change for change in self._unsynced if change.path != path]

    def sync(self, path: str) -> None:
        """Make durable what was written to a file."""
        self.check_alive()
        if self.faults.fails_sync:
            raise OSError(5, "the disk fails")
        self.syncs += 1
        self.journal.append(lambda disk: disk.sync(path))
        for change in self._unsynced:
            if change.path == path:
                _apply(self._durable, change)
        self._unsynced = [change for change in self._unsynced if change.path != path]

    def _spend(self, path: str, offset: int, data: bytes) -> None:
        self.check_alive()
        self.writes += 1
        if self.faults.writes_left is None:
            return
        if self.faults.writes_left == 0:
            self._is_dead = True
            if data[: self.faults.torn_bytes]:
                self._change(_Change(path, offset, data[: self.faults.torn_bytes]))
            raise DiedError
        self.faults.writes_left -= 1

    def _change(self, change: _Change) -> None:
        self.journal.append(lambda disk: disk._change(change))
        _apply(self.files, change)
        self._unsynced.append(change)


def _apply(files: dict[str, bytearray], change: _Change) -> None:
    file = files.setdefault(change.path, bytearray())
    if change.data is None:
        del file[change.offset :]
        return
    if len(file) < change.offset:
        file.extend(bytes(change.offset - len(file)))
    file[change.offset : change.offset + len(change.data)] = change.data


def _sectors(path: str, offset: int, data: bytes | None) -> Iterator[_Change]:
    """A change in parts that a disk writes whole or not at all."""
    if data is None:
        yield _Change(path, offset, None)
        return
    end = offset + len(data)
    while offset < end:
        stop = min(end, (offset // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield _Change(path, offset, data[len(data) - (end - offset) : len(data) - (end - stop)])
        offset = stop


class PlainFile:
    """A file on the disk; its errors are the system's."""

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        """The file ``path``, made when it is first written to."""
        self._disk = disk
        self._path = path

    def open(self) -> None:
        """Make it, if there is none."""
        self._disk.create(self._path)

    def read(self) -> bytes:
        """All that is there."""
        return bytes(self._disk.files[self._path])

    def write(self, offset: int, data: bytes) -> None:
        """Write, or die instead."""
        try:
            self._disk.write(self._path, offset, data)
        except apsw.FullError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
        except apsw.IOError as error:
            raise OSError(self._disk.last_errno, str(error)) from error

    def sync(self) -> None:
        """Make it durable."""
        self._disk.sync(self._path)

    def close(self) -> None:
        """Let go of it."""


class _MemoryVFS(apsw.VFS):
    """SQLite's view of the disk."""

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__(disk.vfs, base="")
        self._disk = disk

    def xOpen(  # noqa: N802 - SQLite's names
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._disk.create(path)
        flags[1] = flags[0]
        # Any object with its methods does; only one on top of another VFS has to derive from it.
        return cast("apsw.VFSFile", _MemoryFile(self._disk, path))

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802
        self._disk.delete(filename)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802
        return pathname in self._disk.files

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xGetLastError(self) -> tuple[int, str]:  # noqa: N802
        return self._disk.last_errno, ""


class _MemoryFile:
    """An open file. Locks are not needed: a store's lock file keeps others away."""

    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.check_alive()
        return bytes(self._disk.files[self._path][offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.write(self._path, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.truncate(self._path, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        try:
            self._disk.sync(self._path)
        except OSError as error:
            raise apsw.IOError(str(error)) from error

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._disk.files[self._path])

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR_BYTES

    def xClose(self) -> None:  # noqa: N802
        pass
