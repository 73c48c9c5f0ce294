"""A blob of which the beginning has come, in a file of its own until it is whole.

Several connections may send the same blob: whatever continues the file is
appended, what it has already is passed over. So an upload that broke off goes
on where it stopped, over whichever connection, even after a restart: then what
the file has is digested again. Nothing here trusts it; a blob counts only when
the digest of all of it is right.
"""

import contextlib
import threading
from pathlib import Path
from typing import NamedTuple

from multihost.core.digest import Digester
from multihost.server.directfile import BLOCK_BYTES, DirectFile
from multihost.store.places import sync_directory
from multihost.wire.message import Blob, RefusalCode

SUFFIX = ".part"
READ_BYTES = 1 << 20
DIRECTORIES = 256
"""One for each beginning of a digest, of two hexadecimal digits."""
_MAKING = threading.Lock()


class BlobError(Exception):
    """A blob was not stored; the message says why and what to do."""

    def __init__(self, message: str, code: RefusalCode) -> None:
        """Say ``message``, and of which kind it is."""
        super().__init__(message)
        self.code = code


class Place(NamedTuple):
    """Where the bytes of a blob are: while they come, and for good."""

    part: Path
    whole: Path


class PartialBlob:
    """The beginning of a blob. Methods may be called in any thread, and take turns.

    Invariant: ``have_bytes`` bytes are in the file, and the digester has seen just these.
    One that is whole may be deleted at any time, until the row that keeps it is there.
    """

    def __init__(self, blob: Blob, place: Place, *, is_durable: bool) -> None:
        """Expect ``blob`` at ``place``, and sync it in the end if ``is_durable``."""
        self.blob = blob
        self.place = place
        self.senders: set[object] = set()
        """Connections over which it comes; changed by the event loop only."""
        self.have_bytes = 0
        self._is_durable = is_durable
        self._file: DirectFile | None = None
        self._lock = threading.Lock()
        self._digester = Digester()
        self._is_found = False
        """Whether it is known what an earlier upload has left."""
        self._is_whole = False
        self._at_once: bytes | None = None
        """What came as one part, all of which was digested."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it has to be remembered once nobody sends it."""
        return self._is_whole or not self.have_bytes

    def find(self) -> int:
        """Bytes that are here; raises OSError."""
        with self._lock:
            self._find()
            return self.have_bytes

    def take(self, offset: int, data: bytes) -> bool:
        """Take a part; whether the blob is whole now. Raises BlobError, OSError."""
        with self._lock:
            end = offset + len(data)
            if not self.senders:
                raise BlobError("the connection it came over is gone", RefusalCode.DAMAGED)
            self._find()
            if not self._is_whole:
                self._append(offset, data)
                if self.have_bytes == self.blob.size_bytes:
                    self._complete()
            return self._is_whole and end == self.blob.size_bytes

    def came_at_once(self, data: bytes) -> bool:
        """Whether ``data`` is the whole blob for sure, and not just as long; once for each blob.

        Whoever brought the same at the same time may ask before.
        """
        with self._lock:
            if self._at_once is not data:
                return False
            self._at_once = None
            return self._is_whole

    def rest(self) -> None:
        """Nobody sends it for now: keep what has come, without holding the file open."""
        with self._lock:
            self._at_once = None
            self._close()

    def discard(self) -> None:
        """Drop what has come."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._close()
        self._begin_anew()
        self._is_found = True
        with contextlib.suppress(OSError):  # then it is cut off when it is written to
            self.place.part.unlink(missing_ok=True)

    def _begin_anew(self) -> None:
        self.have_bytes = 0
        self._digester = Digester()
        self._is_whole = False
        self._at_once = None

    def _find(self) -> None:
        if self._is_whole and not self.place.whole.exists():
            self._begin_anew()
        if self._is_found:
            return
        self._is_found = True
        if not self.place.part.exists():
            # Sent over another connection as well, perhaps, and whole since then.
            self._is_whole = self.place.whole.exists()
            self.have_bytes = self.blob.size_bytes if self._is_whole else 0
            return
        with self.place.part.open("rb", buffering=0) as file:
            # Of a last block that was not filled nobody knows how much was written.
            left = min(file.seek(0, 2), self.blob.size_bytes) // BLOCK_BYTES * BLOCK_BYTES
            file.seek(0)
            while left and (data := file.read(min(left, READ_BYTES))):
                self._digester.update(data)
                self.have_bytes += len(data)
                left -= len(data)

    def _append(self, offset: int, data: bytes) -> None:
        if offset > self.have_bytes or offset + len(data) > self.blob.size_bytes:
            message = f"a part at {offset} does not continue the {self.have_bytes} bytes that came"
            raise BlobError(message, RefusalCode.DAMAGED)
        fresh = memoryview(data)[self.have_bytes - offset :]
        if self._file is None:
            self._file = DirectFile(
                self.place.part, is_direct=self._is_durable, size_bytes=self.have_bytes
            )
        self._file.write(fresh)
        self._digester.update(fresh)
        if len(fresh) == self.blob.size_bytes:
            self._at_once = data
        self.have_bytes += len(fresh)

    def _complete(self) -> None:
        if self._digester.digest() != self.blob.digest:
            self._drop()
            message = "its bytes don't have the digest it was announced with; send it again"
            raise BlobError(message, RefusalCode.DAMAGED)
        if self._file is None:  # all of it had come, just before a restart
            self._file = DirectFile(self.place.part, is_direct=False, size_bytes=self.have_bytes)
        if self._is_durable:
            self._file.sync()
        self._close()
        whole = self.place.whole
        self._make_directory(whole.parent)
        self.place.part.replace(whole)
        if self._is_durable:
            sync_directory(whole.parent)
        self._is_whole = True

    def _make_directory(self, directory: Path) -> None:
        """With all its kind, if it is not there: so they are synced once, not each by itself.

        Nobody else takes one for made before that: a power cut would take it with its blobs.
        """
        with _MAKING:
            if directory.is_dir():
                return
            directory.mkdir(mode=0o700)
            for number in range(DIRECTORIES):
                with contextlib.suppress(OSError):  # there may be no room for one that may wait
                    (directory.parent / f"{number:02x}").mkdir(mode=0o700)
            if self._is_durable:
                sync_directory(directory.parent)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
