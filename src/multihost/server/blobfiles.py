"""Blobs too large for the database: one file each, named by its SHA-256.

A file appears under its name only whole, verified and synced; until then its
parts are in a temporary file. All disk work is in a thread of its own, so that
a slow disk does not hold up the event loop.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from multihost.runtime.config import sync_directory
from multihost.wire.message import Blob

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
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="multihost-blobs")
        self._uploads: dict[tuple[object, bytes], _Upload] = {}

    async def put_part(self, owner: object, blob: Blob, offset: int, data: bytes) -> bool:
        """Take a part; whether the blob is now whole and stored. Raises BlobError.

        ``owner`` tells uploads of the same blob over different connections apart.
        """
        name = (owner, blob.digest)
        upload = self._uploads.get(name)
        if upload is None:
            path = self.directory / f"{blob.digest.hex()}.{id(owner):x}.part"
            upload = self._uploads[name] = _Upload(path, blob)
        is_last = offset + len(data) >= blob.size_bytes
        try:
            await self._run(upload.append, offset, data)
            if is_last:
                await self._run(self._complete, upload)
        except (BlobError, OSError) as error:
            self._uploads.pop(name, None)
            upload.discard()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise BlobError(f"blob {blob.digest.hex()[:12]} not stored: {reason}") from None
        if is_last:
            del self._uploads[name]
        return is_last

    def forget(self, owner: object) -> None:
        """A connection is gone: drop what it had begun to send."""
        for name in [name for name in self._uploads if name[0] is owner]:
            self._uploads.pop(name).discard()

    async def read(self, digest: bytes, offset: int, size_bytes: int) -> bytes:
        """Part of a stored blob; raises OSError when there is none."""
        return await self._run(_read, self._path(digest), offset, size_bytes)

    async def delete(self, digests: list[bytes]) -> None:
        """Remove files that nothing refers to."""
        await self._run(self._unlink, digests)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for upload in self._uploads.values():
            upload.discard()

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def _path(self, digest: bytes) -> Path:
        text = digest.hex()
        return self.directory / text[:2] / text

    def _complete(self, upload: "_Upload") -> None:
        upload.close(is_durable=self.is_durable)
        path = self._path(upload.blob.digest)
        path.parent.mkdir(exist_ok=True)
        upload.path.replace(path)
        if self.is_durable:
            sync_directory(path.parent)

    def _unlink(self, digests: list[bytes]) -> None:
        for digest in digests:
            self._path(digest).unlink(missing_ok=True)


class _Upload:
    """A blob of which parts have come."""

    def __init__(self, path: Path, blob: Blob) -> None:
        self.path = path
        self.blob = blob
        self._file = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def append(self, offset: int, data: bytes) -> None:
        if offset != self._size_bytes or offset + len(data) > self.blob.size_bytes:
            message = f"part at {offset} does not continue the {self._size_bytes} bytes that came"
            raise BlobError(message)
        self._file.write(data)
        self._hash.update(data)
        self._size_bytes += len(data)

    def close(self, *, is_durable: bool) -> None:
        if self._hash.digest() != self.blob.digest:
            message = "its bytes don't have the digest it was announced with; send it again"
            raise BlobError(message)
        if is_durable:
            os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def _read(path: Path, offset: int, size_bytes: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size_bytes)
