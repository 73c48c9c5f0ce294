"""Blobs too large for the database: one file each, named by its digest.

A file appears under its name only whole, verified and synced; until then its
beginning is in a file of parts, from where an interrupted upload goes on. All
disk work is in threads of its own, so that a slow disk does not hold up the
event loop. Blobs that have just come are kept in memory for a moment, since
somebody is about to ask for them.
"""

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from multihost.core.digest import DIGEST_BYTES
from multihost.runtime import clock
from multihost.server.partial import SUFFIX, BlobError, PartialBlob, Place
from multihost.store.places import NO_ROOM
from multihost.wire.message import ASK_FIRST_BYTES, Blob, RefusalCode

RECENT_BYTES = 64 << 20
"""Blobs kept in memory after they came, until they are asked for."""
RECENT_S = 5.0
"""One that nobody has asked for in this time makes room for those that come."""
THREADS = 4
"""They wait for the disk most of the time."""
RESUME_S = 3600.0
"""How long the beginning of a blob is kept, for its sender to come back."""
OPEN_FILES = 32
"""Files of parts that are open; one that has to make room is opened again by its next part."""
LANDED_S = 60.0
"""A file that came so lately is not deleted by a decision that may be older."""

T = TypeVar("T")


class BlobFiles:
    """The directory of blob files.

    Invariant: a file under its final name holds exactly the bytes of its digest.
    """

    def __init__(self, directory: Path, *, is_durable: bool) -> None:
        """Keep files below ``directory``; ``is_durable``: sync each before it counts."""
        self.directory = directory
        self.is_durable = is_durable
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="multihost-blobs")
        self._partial: dict[bytes, PartialBlob] = {}
        self._open: OrderedDict[PartialBlob, None] = OrderedDict()
        """Whose files may be open, the longest unused first."""
        self._recent: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        """Since when, and what, the oldest first."""
        self._recent_bytes = 0
        self._landing = threading.Lock()
        self._landed: dict[bytes, float] = {}

    # coming ----------------------------------------------------------------------------

    async def have_bytes(self, sender: object, blob: Blob) -> int:
        """How much is here of a blob that ``sender`` is about to send. Raises BlobError."""
        partial = self._sent_by(sender, blob)
        try:
            return await self._run(partial.find)
        except OSError as error:
            await self._run(partial.discard)
            raise self._refusal(blob, error) from None

    async def put_part(self, sender: object, blob: Blob, offset: int, data: bytes) -> bool:
        """Take a part; whether the blob is now whole and stored. Raises BlobError."""
        partial = self._sent_by(sender, blob)
        try:
            is_whole = await self._run(self._take, partial, offset, data, self._open_for(partial))
        except BlobError as error:  # a gap leaves what is there to others who send it
            raise self._refusal(blob, error) from None
        except OSError as error:
            await self._run(partial.discard)
            raise self._refusal(blob, error) from None
        if is_whole:
            self._open.pop(partial, None)
            if self._partial.get(blob.digest) is partial:
                del self._partial[blob.digest]
            # Not what was passed over since the file had it: that may be other bytes.
            if partial.came_at_once(data):
                self._remember(blob.digest, data)
        return is_whole

    def forget(self, sender: object) -> None:
        """A connection is gone; what it had begun to send may go on over another one."""
        for partial in [each for each in self._partial.values() if sender in each.senders]:
            partial.senders.discard(sender)
            if partial.senders:
                continue
            is_kept = partial.blob.size_bytes >= ASK_FIRST_BYTES
            # Not here: a thread may be in the middle of a part.
            with contextlib.suppress(RuntimeError):  # the server stops
                self._threads.submit(partial.rest if is_kept else partial.discard)

    def _open_for(self, partial: PartialBlob) -> PartialBlob | None:
        """Which file is to be closed before this one is written to, if any."""
        self._open[partial] = None
        self._open.move_to_end(partial)
        return self._open.popitem(last=False)[0] if len(self._open) > OPEN_FILES else None

    def _refusal(self, blob: Blob, error: BlobError | OSError) -> BlobError:
        name = f"blob {blob.digest.hex()[:12]} not stored"
        if isinstance(error, BlobError):
            return BlobError(f"{name}: {error}", error.code)
        text = f"{name}: {error.strerror} on the disk of {self.directory}"
        if error.errno in NO_ROOM:
            text += "; make room and submit again"
        return BlobError(text, RefusalCode.STORE_FULL)

    def _sent_by(self, sender: object, blob: Blob) -> PartialBlob:
        partial = self._partial.get(blob.digest)
        if partial is None:
            place = Place(self.directory / (blob.digest.hex() + SUFFIX), self._path(blob.digest))
            partial = PartialBlob(blob, place, is_durable=self.is_durable)
            self._partial[blob.digest] = partial
        elif not partial.senders:
            partial.blob = blob
        elif partial.blob != blob:
            text = f"its size is announced as {blob.size_bytes} and as {partial.blob.size_bytes}"
            raise BlobError(text, RefusalCode.DAMAGED)
        partial.senders.add(sender)
        return partial

    # going -----------------------------------------------------------------------------

    async def read(self, digest: bytes, offset: int, size_bytes: int) -> bytes:
        """Part of a stored blob; raises OSError when there is none."""
        recent = self._recent.get(digest)
        if recent is not None:
            data = recent[1]
            if offset + size_bytes >= len(data):  # few are asked for twice
                self._forget_recent(digest)
            return data[offset : offset + size_bytes]
        return await self._run(_read, self._path(digest), offset, size_bytes)

    async def delete(self, digests: list[bytes]) -> None:
        """Remove files that nothing refers to."""
        for digest in digests:
            self._forget_recent(digest)
        await self._run(self._unlink, digests)

    async def withdraw(self, digest: bytes) -> None:
        """Remove a file that came and got no row, unless somebody brings it again."""
        self._forget_recent(digest)
        await self._run(self._unlink_landed, digest, clock.mono())

    async def prune(self) -> None:
        """Drop the beginnings of blobs whose senders did not come back."""
        before = clock.wall() - RESUME_S
        for path in await self._run(_untouched, self.directory, before):
            digest = bytes.fromhex(path.name[: -len(SUFFIX)])
            partial = self._partial.get(digest)
            if partial is None:
                path.unlink(missing_ok=True)
            elif not partial.senders:
                await self._run(partial.discard)
        for digest, partial in list(self._partial.items()):
            if not partial.senders and partial.is_over:
                del self._partial[digest]

    def close(self) -> None:
        """Let the threads end; beginnings stay for the next server."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for partial in self._partial.values():
            partial.rest()
            if partial.blob.size_bytes < ASK_FIRST_BYTES:
                partial.discard()

    def _remember(self, digest: bytes, data: bytes) -> None:
        """Keep it, unless older ones need the room: they are sooner asked for."""
        self._forget_recent(digest)
        now = clock.mono()
        while self._recent and self._recent_bytes + len(data) > RECENT_BYTES:
            oldest = next(iter(self._recent))
            if now - self._recent[oldest][0] < RECENT_S:
                return
            self._forget_recent(oldest)
        self._recent[digest] = (now, data)
        self._recent_bytes += len(data)

    def _forget_recent(self, digest: bytes) -> None:
        _, data = self._recent.pop(digest, (0.0, b""))
        self._recent_bytes -= len(data)

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def _path(self, digest: bytes) -> Path:
        text = digest.hex()
        return self.directory / text[:2] / text

    # in a thread ---------------------------------------------------------------------

    def _take(
        self, partial: PartialBlob, offset: int, data: bytes, idle: PartialBlob | None
    ) -> bool:
        if idle is not None:
            idle.rest()
        if offset + len(data) < partial.blob.size_bytes:
            return partial.take(offset, data)
        with self._landing:
            # From here on nobody deletes it who decided that before it came.
            self._landed[partial.blob.digest] = clock.mono()
        return partial.take(offset, data)

    def _unlink_landed(self, digest: bytes, before: float) -> None:
        with self._landing:
            if self._landed.get(digest, 0.0) < before:
                self._landed.pop(digest, None)
                with contextlib.suppress(OSError):  # then the next start removes it
                    self._path(digest).unlink(missing_ok=True)

    def _unlink(self, digests: list[bytes]) -> None:
        with self._landing:
            since = clock.mono() - LANDED_S
            self._landed = {each: at for each, at in self._landed.items() if at > since}
            for digest in digests:
                if digest not in self._landed:
                    self._path(digest).unlink(missing_ok=True)


def _read(path: Path, offset: int, size_bytes: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size_bytes)


def _untouched(directory: Path, before: float) -> list[Path]:
    """Files of parts that nobody has written to since ``before``."""
    found = []
    for path in directory.glob(f"{'[0-9a-f]' * 2 * DIGEST_BYTES}{SUFFIX}"):
        with contextlib.suppress(OSError):  # it has just become whole
            if path.stat().st_mtime < before:
                found.append(path)
    return found
