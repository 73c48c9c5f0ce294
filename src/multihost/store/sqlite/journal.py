"""The journal: a file beside the database that takes what would not stay in it anyway.

Most items are put, taken and confirmed within a moment. In the database each
would be written into several trees only to be deleted from them again. So a
transaction that did nothing but exchange items, hold synchronizers and note
answers is one *record*, appended here, while what it changed is kept in memory
(``Memtable``). Any other transaction first writes all that into the database,
where everything then is as if there were no journal.

Records belong to a *generation*, whose number the database knows. Its
transactions raise it, so that after whatever interruption a record is either
not yet in the database, and is replayed on what it was made on, or its
generation is over. A lap of records begins at the file's start only when
the database is safely on the disk, with all that the last lap held.
"""

import contextlib
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, Protocol
from zlib import crc32

from multihost.store.places import NO_ROOM

JOURNAL_BYTES: Final = 4 << 20
"""Size of the file; taken at once, so that a full disk can't be in the way of a record."""
LAP_BYTES: Final = JOURNAL_BYTES // 2
"""A lap longer than this ends with the next transaction of the database."""
RECORD_BYTES: Final = 256 << 10
"""Longer records go into the database at once: copying them twice costs more than it saves."""

_HEAD = Struct("<IIQQ")
"""Checksum of all that follows, bytes of the record, its generation, its number in the file."""
_CHECKED: Final = 4
_LAP_BITS: Final = 20
"""A lap has fewer than ``1 << _LAP_BITS`` records, since a head has 24 bytes."""


class JournalFile(Protocol):
    """Where the bytes are; errors are OSErrors."""

    def open(self) -> None:
        """Make the file, if there is none, and be ready to write to it."""
        ...

    def read(self) -> bytes:
        """All that is there."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write; it survives the death of the process."""
        ...

    def sync(self) -> None:
        """Return when everything written would survive a power cut."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


_BLOCK_BYTES: Final = 512
"""What ``st_blocks`` counts."""
_IN_PLACE: Final = {"ext2", "ext3", "ext4", "tmpfs"}
"""File systems that write over blocks where they are, whatever has become of the free ones."""


class DiskFile:
    """A file of the system's. It takes its room when it is first written to.

    Where no later write can want for room it is mapped: a record is copied into the kernel's
    pages, which outlive the process, without a call of the system. Elsewhere a full disk would
    answer with SIGBUS (one that copies on write, as Btrfs, ZFS and a cloned file of XFS do), and it
    is written to.
    """

    def __init__(self, path: Path) -> None:
        """The journal at ``path``."""
        self._path = path
        self._descriptor = -1
        self._is_long = False
        self._pages: mmap.mmap | None = None

    def open(self) -> None:
        """Open it now: later there may be no descriptor left."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> bytes:
        """All that is there."""
        return self._path.read_bytes()

    def write(self, offset: int, data: bytes) -> None:
        """Write into the blocks that the file has already."""
        if self._pages is not None:
            self._pages[offset : offset + len(data)] = data
            return
        if not self._is_long:
            self._lengthen()
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written

    def sync(self) -> None:
        """Flush it."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        if self._pages is not None:
            self._pages.close()
            self._pages = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lengthen(self) -> None:
        """Give the file its length with zeros: blocks merely promised cost each sync a write."""
        begin = length = os.fstat(self._descriptor).st_size
        try:
            while length < JOURNAL_BYTES:
                length += os.pwrite(self._descriptor, bytes(JOURNAL_BYTES - length), length)
        except OSError:
            # The database can make use of what room there is.
            os.ftruncate(self._descriptor, begin)
            raise
        os.fsync(self._descriptor)
        self._is_long = True
        # A copy of the file may have holes where it has zeros.
        has_room = os.fstat(self._descriptor).st_blocks * _BLOCK_BYTES >= JOURNAL_BYTES
        if has_room and _file_system(self._descriptor) in _IN_PLACE:
            with contextlib.suppress(OSError):  # a limit of address space: it is written to
                self._pages = mmap.mmap(self._descriptor, JOURNAL_BYTES)


def _file_system(descriptor: int) -> str:
    """Type of the file system that an open file is on; empty when it can't be told.

    Only Linux is asked, whose ``fdatasync`` flushes what was written through a mapping.
    """
    if sys.platform != "linux":
        return ""
    device = os.fstat(descriptor).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        place, _, rest = line.partition(" - ")
        if place.split()[2] == number:
            return rest.split()[0]
    return ""


class Journal:
    """The records of the present generation, in memory as in the file.

    Invariant: what ``read`` would find in the file is ``records``, if the process died now.
    """

    def __init__(self, file: JournalFile, uid: bytes, generation: int) -> None:
        """The journal of the store ``uid``, whose database is at ``generation``."""
        self.generation = generation
        self.records: list[bytes]
        """Bodies of this generation's records, in order."""
        self._file = file
        self._seed = crc32(uid)
        self._position = 0
        self._number = generation << _LAP_BITS
        self._is_synced = True
        self._is_off = False
        file.open()
        found = list(_records(file.read(), uid))
        self.records = _of_generation(found, generation)
        self._latest = max([generation, *(its_generation for its_generation, _ in found)])
        """No generation up to this one is begun any more."""

    @property
    def next_generation(self) -> int:
        """The one that the database's next transaction begins.

        After a power cut the file may have records of generations that the database lost. They
        are in the way until they are written over, so none of these generations comes again.
        """
        return max(self.generation, self._latest) + 1

    @property
    def is_long(self) -> bool:
        """Whether the lap should end."""
        return self._position > LAP_BYTES

    def takes(self, body: bytes) -> bool:
        """Whether a record can be appended."""
        end = self._position + _HEAD.size + len(body)
        return len(body) <= RECORD_BYTES and end <= JOURNAL_BYTES and not self._is_off

    def append(self, body: bytes) -> bool:
        """Write a record; False when the disk has no room, and never will be asked again.

        Raises OSError.
        """
        head = _HEAD.pack(0, len(body), self.generation, self._number)[_CHECKED:]
        checksum = crc32(body, crc32(head, self._seed)).to_bytes(_CHECKED, "little")
        data = b"".join((checksum, head, body))
        try:
            self._file.write(self._position, data)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._is_off = True
            return False
        self._position += len(data)
        self._number += 1
        self._is_synced = False
        self.records.append(body)
        return True

    def sync(self) -> None:
        """Return when every record would survive a power cut."""
        if not self._is_synced:
            self._file.sync()
            self._is_synced = True

    def turn(self) -> None:
        """The database has it all, and knows of the next generation."""
        self.generation = self.next_generation
        self.records.clear()

    def rewind(self) -> None:
        """Begin a lap: no record is needed any more, not even after a power cut."""
        assert not self.records
        self._position = 0
        # No number of an earlier lap follows on one of this lap.
        self._number = self.generation << _LAP_BITS

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def records_in(data: bytes, uid: bytes, generation: int) -> list[bytes]:
    """Bodies of a generation's records in the journal of the store ``uid``.

    Those before it are over, and those behind it rest on what a power cut has undone.
    """
    return _of_generation(list(_records(data, uid)), generation)


def _of_generation(found: list[tuple[int, bytes]], generation: int) -> list[bytes]:
    return [body for its_generation, body in found if its_generation == generation]


def _records(data: bytes, uid: bytes) -> Iterator[tuple[int, bytes]]:
    """Generation and body of each record from the file's start on; generations never fall."""
    seed, position, expected = crc32(uid), 0, None
    while position + _HEAD.size <= len(data):
        checksum, length, generation, number = _HEAD.unpack_from(data, position)
        begin = position + _HEAD.size
        body = data[begin : begin + length]
        if len(body) < length or expected not in (None, number):
            break
        if checksum != crc32(body, crc32(data[position + _CHECKED : begin], seed)):
            break
        yield generation, body
        position, expected = begin + length, number + 1
