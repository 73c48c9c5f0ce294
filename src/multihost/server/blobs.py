"""Blobs on a connection: taken in order, given in parts, small ones in the database."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from multihost.core.digest import DIGEST_BYTES, digest_of
from multihost.errors import StoreFull
from multihost.runtime.link import Link
from multihost.server.blobfiles import BlobFiles
from multihost.server.committer import Committer
from multihost.server.operation import Operation
from multihost.server.partial import BlobError
from multihost.store.base import Store, StoredBlob
from multihost.wire import message as m

ROW_BYTES = 128 << 10
"""Blobs up to this size are kept in the database itself."""
WRITERS = 4
"""Blobs of one connection that are written side by side."""
READERS = 4
"""Blobs sent over one connection side by side."""
MAX_REQUESTS = 4096
"""Of one connection that are not answered; then it is not read any more."""
READ_AGAIN = 20
"""Times that a blob which can't be read is tried again,"""
READ_PAUSE_S = 1.0
"""after such a pause."""
UNWRITTEN_BYTES = 16 << 20
"""Bytes of parts that may wait for the disk before the connection is not read any more."""


class BlobStore:
    """All blobs, wherever they are kept."""

    def __init__(
        self,
        committer: Committer,
        directory: Path,
        *,
        is_durable: bool,
        max_bytes: int = m.MAX_BLOB_BYTES,
    ) -> None:
        """Keep rows through ``committer`` and files below ``directory``, of limited size."""
        self.committer = committer
        self.files = BlobFiles(directory, is_durable=is_durable)
        self.max_bytes = max_bytes
        self._coming: Counter[bytes] = Counter()
        """Parts on their way into files, and from there to a row, by blob."""

    def check(self, message: m.FindBlob | m.PutBlob) -> None:
        """Raise BlobError for a blob that is not taken."""
        size_bytes = message.size_bytes
        if size_bytes > self.max_bytes:
            raise BlobError(
                f"a payload of {size_bytes:,} bytes is larger than the {self.max_bytes:,} that "
                "this server takes (MAX_BLOB_BYTES): send it in pieces or as the name of a file "
                "that both sides see, or start the server with a larger --max-blob",
                m.RefusalCode.TOO_LARGE,
            )
        if isinstance(message, m.PutBlob) and not 0 <= message.offset <= size_bytes:
            text = f"a part at {message.offset} of a blob of {size_bytes} bytes"
            raise BlobError(text, m.RefusalCode.DAMAGED)

    async def find(self, digest: bytes) -> StoredBlob | None:
        """The blob's row, or None."""
        found: StoredBlob | None = await self.committer.ask(
            lambda store, _: store.blob(digest), only_reads=True
        )
        return found

    async def put_part(self, sender: object, part: m.PutBlob) -> bool:
        """Take a part of a large blob; whether it is stored now. Raises BlobError, StoreFull."""
        blob, coming = m.Blob(part.digest, part.size_bytes), self._coming
        coming[part.digest] += 1
        try:
            is_whole = await self.files.put_part(sender, blob, part.offset, part.data)
            if is_whole:
                await self._note(blob)
        finally:
            coming[part.digest] -= 1
            if not coming[part.digest]:
                del coming[part.digest]
        return is_whole

    async def _note(self, blob: m.Blob) -> None:
        """Give a blob whose file is there its row, or take the file away."""
        try:
            await self.committer.ask(
                lambda store, now: store.put_blob(blob, None, now), is_durable=True
            )
        except StoreFull:
            row = await self.find(blob.digest)
            # Who brings it at the same time may still get a row for it.
            if row is None and self._coming[blob.digest] == 1:
                await self.files.withdraw(blob.digest)
            raise


class BlobTraffic:
    """Blobs coming and going on one connection.

    The parts of one blob are written one after the other, several blobs side
    by side; while too many bytes wait, the connection is not read, so that a
    fast sender meets the speed of the disk.
    """

    def __init__(
        self, blobs: BlobStore, link: Link, why_not: Callable[[int], str | None] = lambda _: None
    ) -> None:
        """Serve the peer on ``link``; ``why_not``: why it may not bring so many bytes more."""
        self._blobs = blobs
        self._link = link
        self._why_not = why_not
        self._coming: dict[bytes, deque[m.PutBlob | m.FindBlob]] = {}
        """By blob: what waits behind the part that is being written."""
        self._refused: set[bytes] = set()
        """Blobs that were refused; what was already on its way of them is passed over."""
        self._writers = asyncio.Semaphore(WRITERS)
        self._readers = asyncio.Semaphore(READERS)
        self._unwritten_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._can_write = asyncio.Event()
        self._can_write.set()

    def received(self, message: m.PutBlob | m.GetBlob | m.FindBlob) -> None:
        """Serve one message."""
        if len(message.digest) != DIGEST_BYTES:
            self._link.abort(f"a digest of {len(message.digest)} bytes; they have {DIGEST_BYTES}")
        elif isinstance(message, m.GetBlob):
            self._start(self._send(message))
        elif isinstance(message, m.PutBlob) and _is_row(message):
            self._put_row(message)
        else:
            self._take(message)

    def writable(self) -> None:
        """Back-pressure is over."""
        self._can_write.set()

    def close(self) -> None:
        """The connection is gone."""
        for task in self._tasks:
            task.cancel()
        self._blobs.files.forget(self)

    def _take(self, message: m.PutBlob | m.FindBlob) -> None:
        coming = self._coming.get(message.digest)
        if coming is None:
            coming = self._coming[message.digest] = deque()
            self._start(self._write(message.digest, coming))
        coming.append(message)
        if isinstance(message, m.PutBlob):
            self._unwritten_bytes += len(message.data)
            if self._unwritten_bytes > UNWRITTEN_BYTES:
                self._link.pause_reading("disk")

    def _put_row(self, part: m.PutBlob) -> None:
        """Keep a small blob in the database, in order with the messages around it."""
        blob = m.Blob(part.digest, part.size_bytes)
        if digest_of(part.data) != part.digest:
            text = "its bytes don't have the digest it was announced with; send it again"
            self._link.send(m.BlobRefused(part.digest, text, m.RefusalCode.DAMAGED))
            return
        trouble = self._why_not(part.size_bytes)
        if trouble is not None:
            self._refuse(part.digest, StoreFull(trouble))
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

    async def _write(self, digest: bytes, coming: deque[m.PutBlob | m.FindBlob]) -> None:
        async with self._writers:
            try:
                while coming:
                    message = coming.popleft()
                    try:
                        await self._serve(message)
                    except (BlobError, StoreFull) as error:
                        self._refuse(digest, error)
            finally:
                del self._coming[digest]

    async def _serve(self, message: m.PutBlob | m.FindBlob) -> None:
        if isinstance(message, m.FindBlob):
            self._refused.discard(message.digest)
            self._blobs.check(message)
            await self._tell(message)
            return
        try:
            if message.offset == 0:
                self._refused.discard(message.digest)
                self._check_room(message.size_bytes)
            if message.digest not in self._refused:
                self._blobs.check(message)
                await self._write_part(message)
        finally:
            self._unwritten_bytes -= len(message.data)
            if self._unwritten_bytes <= UNWRITTEN_BYTES:
                self._link.resume_reading("disk")

    def _check_room(self, size_bytes: int) -> None:
        trouble = self._why_not(size_bytes)
        if trouble is not None:
            raise StoreFull(trouble)

    async def _write_part(self, part: m.PutBlob) -> None:
        if await self._blobs.put_part(self, part):
            self._link.send(m.BlobStored(part.digest))

    def _refuse(self, digest: bytes, error: BlobError | StoreFull) -> None:
        self._refused.add(digest)
        trouble = error.code if isinstance(error, BlobError) else m.RefusalCode.STORE_FULL
        self._link.send(m.BlobRefused(digest, str(error), trouble))

    async def _tell(self, message: m.FindBlob) -> None:
        found = await self._blobs.find(message.digest)
        if found is not None:
            have_bytes = found.size_bytes
        else:
            self._check_room(message.size_bytes)
            blob = m.Blob(message.digest, message.size_bytes)
            have_bytes = await self._blobs.files.have_bytes(self, blob)
            # Even if all of it is here: it takes a part to have it digested and noted.
            have_bytes = max(0, min(have_bytes, blob.size_bytes - 1))
        self._link.send(m.BlobFound(message.digest, have_bytes))

    async def _send(self, message: m.GetBlob) -> None:
        digest, offset = message.digest, message.offset
        found = await self._blobs.find(digest)
        if found is None or not 0 <= offset <= found.size_bytes:
            self._link.send(m.BlobPart(digest, -1, 0, b""))
            return
        end = found.size_bytes
        if message.length_bytes > 0:
            end = min(end, offset + message.length_bytes)
        async with self._readers:
            while True:
                try:
                    data = await self._read_patiently(found, digest, offset, end)
                except FileNotFoundError:  # deleted since
                    self._link.send(m.BlobPart(digest, -1, 0, b""))
                    return
                except OSError as error:
                    self._link.send(_unread(digest, error.strerror or str(error)))
                    return
                if not data and offset < end:
                    self._link.send(_unread(digest, f"its file ends after {offset} bytes"))
                    return
                self._link.send(m.BlobPart(digest, found.size_bytes, offset, data))
                offset += len(data)
                if offset >= end or not data:
                    return
                await self._wait_writable()

    async def _read_patiently(
        self, found: StoredBlob, digest: bytes, offset: int, end: int
    ) -> bytes:
        """A part; what is there and can't be read now may be read soon. Raises OSError."""
        for _ in range(READ_AGAIN):
            try:
                return await self._read(found, digest, offset, end)
            except FileNotFoundError:
                raise
            except OSError:  # no descriptors, a disk that stumbles
                await asyncio.sleep(READ_PAUSE_S)
        return await self._read(found, digest, offset, end)

    async def _read(self, found: StoredBlob, digest: bytes, offset: int, end: int) -> bytes:
        size_bytes = min(m.BLOB_PART_BYTES, end - offset)
        if found.data is not None:
            return found.data[offset : offset + size_bytes]
        return await self._blobs.files.read(digest, offset, size_bytes)

    async def _wait_writable(self) -> None:
        # What was sent this turn leaves at its end; only then is back-pressure known.
        await asyncio.sleep(0)
        while not self._link.is_writable:
            self._can_write.clear()
            await self._can_write.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if len(self._tasks) > MAX_REQUESTS:
            self._link.pause_reading("blobs")

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) == MAX_REQUESTS:
            self._link.resume_reading("blobs")


def _is_row(part: m.PutBlob) -> bool:
    return part.offset == 0 and len(part.data) == part.size_bytes <= ROW_BYTES


def _unread(digest: bytes, why: str) -> m.BlobRefused:
    text = (
        f"blob {digest.hex()[:12]} is stored and can't be read: {why}; "
        "'multihost check' on the server's machine says what else is damaged"
    )
    return m.BlobRefused(digest, text, m.RefusalCode.DAMAGED)
