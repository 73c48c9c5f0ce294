"""Blobs on a connection: taken in order, given in parts, small ones in the database."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from multihost.core.digest import DIGEST_BYTES, digest_of
from multihost.errors import StoreFull
from multihost.runtime.link import Link
from multihost.server.blobfiles import BlobError, BlobFiles
from multihost.server.committer import Committer, Operation
from multihost.store.base import Store, StoredBlob
from multihost.wire import message as m

ROW_BYTES = 128 << 10
"""Blobs up to this size are kept in the database itself."""
WRITERS = 4
"""Blobs of one connection that are written side by side."""
UNWRITTEN_BYTES = 16 << 20
"""Bytes of parts that may wait for the disk before the connection is not read any more."""


class BlobStore:
    """All blobs, wherever they are kept."""

    def __init__(self, committer: Committer, directory: Path, *, is_durable: bool) -> None:
        """Keep rows through ``committer`` and files below ``directory``."""
        self.committer = committer
        self.files = BlobFiles(directory, is_durable=is_durable)

    async def find(self, digest: bytes) -> StoredBlob | None:
        """The blob's row, or None."""
        found: StoredBlob | None = await self.committer.ask(
            lambda store, _: store.blob(digest), only_reads=True
        )
        return found


class BlobTraffic:
    """Blobs coming and going on one connection.

    The parts of one blob are written one after the other, several blobs side
    by side; while too many bytes wait, the connection is not read, so that a
    fast sender meets the speed of the disk.
    """

    def __init__(self, blobs: BlobStore, link: Link) -> None:
        """Serve the peer on ``link``."""
        self._blobs = blobs
        self._link = link
        self._parts: dict[bytes, deque[m.PutBlob]] = {}
        """By blob: what waits behind the part that is being written."""
        self._writers = asyncio.Semaphore(WRITERS)
        self._unwritten_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._can_write = asyncio.Event()
        self._can_write.set()

    def received(self, message: m.PutBlob | m.GetBlob | m.FindBlob) -> None:
        """Serve one message."""
        if len(message.digest) != DIGEST_BYTES:
            self._link.abort(f"a digest of {len(message.digest)} bytes; they have {DIGEST_BYTES}")
        elif isinstance(message, m.PutBlob):
            self._put(message)
        elif isinstance(message, m.GetBlob):
            self._start(self._send(message))
        else:
            self._start(self._tell(message))

    def writable(self) -> None:
        """Back-pressure is over."""
        self._can_write.set()

    def close(self) -> None:
        """The connection is gone."""
        for task in self._tasks:
            task.cancel()
        self._blobs.files.forget(self)

    def _put(self, part: m.PutBlob) -> None:
        if part.offset == 0 and len(part.data) == part.size_bytes <= ROW_BYTES:
            self._put_row(part)
            return
        parts = self._parts.get(part.digest)
        if parts is None:
            parts = self._parts[part.digest] = deque()
            self._start(self._write(part.digest, parts))
        parts.append(part)
        self._unwritten_bytes += len(part.data)
        if self._unwritten_bytes > UNWRITTEN_BYTES:
            self._link.pause_reading("disk")

    def _put_row(self, part: m.PutBlob) -> None:
        """Keep a small blob in the database, in order with the messages around it."""
        blob = m.Blob(part.digest, part.size_bytes)
        if digest_of(part.data) != part.digest:
            text = "its bytes don't have the digest it was announced with; send it again"
            self._link.send(m.BlobRefused(part.digest, text))
            return

        def run(store: Store, now: float) -> None:
            store.put_blob(blob, part.data, now)

        self._blobs.committer.submit(
            Operation(
                run,
                lambda _: self._link.send(m.BlobStored(part.digest)),
                refused=lambda text: self._link.send(m.BlobRefused(part.digest, text)),
            )
        )

    async def _write(self, digest: bytes, parts: deque[m.PutBlob]) -> None:
        async with self._writers:
            try:
                while parts:
                    await self._write_part(parts.popleft())
            finally:
                del self._parts[digest]

    async def _write_part(self, part: m.PutBlob) -> None:
        blob = m.Blob(part.digest, part.size_bytes)
        try:
            is_whole = await self._blobs.files.put_part(self, blob, part.offset, part.data)
            if is_whole:
                await self._blobs.committer.ask(
                    lambda store, now: store.put_blob(blob, None, now), is_durable=True
                )
        except (BlobError, StoreFull) as error:
            self._link.send(m.BlobRefused(part.digest, str(error)))
        else:
            if is_whole:
                self._link.send(m.BlobStored(part.digest))
        finally:
            self._unwritten_bytes -= len(part.data)
            if self._unwritten_bytes <= UNWRITTEN_BYTES:
                self._link.resume_reading("disk")

    async def _tell(self, message: m.FindBlob) -> None:
        found = await self._blobs.find(message.digest)
        have_bytes = found.size_bytes if found is not None else 0
        self._link.send(m.BlobFound(message.digest, have_bytes))

    async def _send(self, message: m.GetBlob) -> None:
        digest, offset = message.digest, message.offset
        found = await self._blobs.find(digest)
        if found is None:
            self._link.send(m.BlobPart(digest, -1, 0, b""))
            return
        size_bytes = found.size_bytes
        while True:
            if found.data is not None:
                data = found.data[offset : offset + m.BLOB_PART_BYTES]
            else:
                data = await self._blobs.files.read(digest, offset, m.BLOB_PART_BYTES)
            self._link.send(m.BlobPart(digest, size_bytes, offset, data))
            offset += len(data)
            if offset >= size_bytes or not data:
                return
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        # What was sent this turn leaves at its end; only then is back-pressure known.
        await asyncio.sleep(0)
        while not self._link.is_writable:
            self._can_write.clear()
            await self._can_write.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
