"""Blobs too large for the database: one file each, named by its digest.

A file appears under its name only whole, verified and synced; until then its
parts are in a temporary file. All disk work is in threads of its own, so that
a slow disk does not hold up the event loop. Blobs that have just come are
kept in memory for a moment, since somebody is about to ask for them.
"""

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from multihost.core.digest import Digester
from multihost.runtime.config import sync_directory
from multihost.server.directfile import DirectFile
from multihost.wire.message import Blob

RECENT_BYTES = 32 << 20
"""Blobs kept in memory after they came."""
THREADS = 4
"""They wait for the disk most of the time."""

T = TypeVar("T")


class BlobError(Exception):
    """A blob was not stored; the message says why and what to do."""


class BlobFiles:
    """The directory of blob files.

    Invariant: a file under its final name holds exactly the bytes of its digest.
    """

    def __init__(self, directory: Path, *, is_durable: bool) -> None:
        """Keep files below ``directory``; ``is_durable``: sync each before it counts."""
        self.directory = directory
        self.is_durable = is_durable
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob("*.part"):
            leftover.unlink()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="multihost-blobs")
        self._uploads: dict[tuple[object, bytes], _Upload] = {}
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()
        self._recent_bytes = 0

    async def put_part(self, owner: object, blob: Blob, offset: int, data: bytes) -> bool:
        """Take a part; whether the blob is now whole and stored. Raises BlobError.

        ``owner`` tells uploads of the same blob over different connections apart.
        """
        name = (owner, blob.digest)
        upload = self._uploads.get(name)
        if upload is None:
            path = self.directory / f"{blob.digest.hex()}.{id(owner):x}.part"
            upload = self._uploads[name] = _Upload(path, blob, is_durable=self.is_durable)
        try:
            is_whole = await self._run(self._take, upload, offset, data)
        except (BlobError, OSError) as error:
            self._uploads.pop(name, None)
            upload.discard()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BlobError(f"blob {blob.digest.hex()[:12]} not stored: {reason}") from None
        if is_whole:
            self._uploads.pop(name, None)
            if len(data) == blob.size_bytes:
                self._remember(blob.digest, data)
        return is_whole

    def forget(self, owner: object) -> None:
        """Drop what a connection had begun to send; it is gone."""
        for name in [name for name in self._uploads if name[0] is owner]:
            # Not here: a thread may be in the middle of a part.
            with contextlib.suppress(RuntimeError):  # the server stops; the next one cleans up
                self._threads.submit(self._uploads.pop(name).discard)

    async def read(self, digest: bytes, offset: int, size_bytes: int) -> bytes:
        """Part of a stored blob; raises OSError when there is none."""
        recent = self._recent.get(digest)
        if recent is not None:
            is_all = offset == 0 and len(recent) <= size_bytes
            return recent if is_all else recent[offset : offset + size_bytes]
        return await self._run(_read, self._path(digest), offset, size_bytes)

    async def delete(self, digests: list[bytes]) -> None:
        """Remove files that nothing refers to."""
        for digest in digests:
            self._recent_bytes -= len(self._recent.pop(digest, b""))
        await self._run(self._unlink, digests)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for upload in self._uploads.values():
            upload.discard()

    def _remember(self, digest: bytes, data: bytes) -> None:
        if digest not in self._recent:
            self._recent[digest] = data
            self._recent_bytes += len(data)
        while self._recent_bytes > RECENT_BYTES:
            _, oldest = self._recent.popitem(last=False)
            self._recent_bytes -= len(oldest)

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    # in a thread ---------------------------------------------------------------------

    def _take(self, upload: "_Upload", offset: int, data: bytes) -> bool:
        upload.append(offset, data)
        if not upload.is_whole:
            return False
        upload.close()
        path = self._path(upload.blob.digest)
        path.parent.mkdir(exist_ok=True)
        upload.path.replace(path)
        if self.is_durable:
            sync_directory(path.parent)
        return True

    def _path(self, digest: bytes) -> Path:
        text = digest.hex()
        return self.directory / text[:2] / text

    def _unlink(self, digests: list[bytes]) -> None:
        for digest in digests:
            self._path(digest).unlink(missing_ok=True)


class _Upload:
    """A blob of which parts have come."""

    def __init__(self, path: Path, blob: Blob, *, is_durable: bool) -> None:
        self.path = path
        self.blob = blob
        self._is_durable = is_durable
        self._file: DirectFile | None = None
        self._is_discarded = False
        self._lock = threading.Lock()
        self._digester = Digester()
        self._size_bytes = 0

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self._size_bytes == self.blob.size_bytes

    def append(self, offset: int, data: bytes) -> None:
        with self._lock:
            self._append(offset, data)

    def _append(self, offset: int, data: bytes) -> None:
        if self._is_discarded:
            raise BlobError("the connection it came over is gone")
        if offset != self._size_bytes or offset + len(data) > self.blob.size_bytes:
            message = f"part at {offset} does not continue the {self._size_bytes} bytes that came"
            raise BlobError(message)
        if self._file is None:
            self._file = DirectFile(self.path, is_direct=self._is_durable)
        self._file.write(data)
        self._digester.update(data)
        self._size_bytes += len(data)

    def close(self) -> None:
        if self._digester.digest() != self.blob.digest:
            message = "its bytes don't have the digest it was announced with; send it again"
            raise BlobError(message)
        assert self._file is not None
        if self._is_durable:
            self._file.sync()
        self._file.close()

    def discard(self) -> None:
        with self._lock:
            self._is_discarded = True
            if self._file is not None:
                self._file.close()
            self.path.unlink(missing_ok=True)


def _read(path: Path, offset: int, size_bytes: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size_bytes)
