"""Blobs at a worker: functions and big arguments fetched once, big results sent once.

Small ones are kept in memory, up to a limit; a large one goes through a file
that the child reads or writes, so that the agent never holds it.
"""

import asyncio
import contextlib
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from multihost.core.digest import digest_of
from multihost.errors import MultihostError, Refused
from multihost.runtime.upload import Line, Read, Uploads, of_bytes
from multihost.wire import message as m
from multihost.worker.fetch import WINDOW_BYTES, Copy, Fetch
from multihost.worker.frames import SPOOL_BYTES, InFile
from multihost.worker.spool import Spool, reader_of

MEMORY_BYTES = 64 << 20
"""Blobs in memory, those that works wait with among them; more go into files."""
SPOOLED_BYTES = 4 << 30
"""Files of blobs kept although no work needs them now."""
COMING_BYTES = 64 << 20
"""Asked for and not here; more are asked for later."""
UNSENT_BYTES = 64 << 20
"""Results in memory on their way to the server; more wait in files."""

Waiter = Callable[[Copy | str], None]
Stored = Callable[[m.Blob, str | None], None]


class WorkerBlobs:
    """Fetches blobs by digest and sends blobs; goes on after a reconnect, until it is done."""

    def __init__(self, line: Line, spool: Spool) -> None:
        """Exchange blobs over ``line``; large ones pass through ``spool``."""
        self._line = line
        self._spool = spool
        self._uploads = Uploads(line, asyncio.get_running_loop(), _refusal, waits_for_room=True)
        self._unsent_bytes = 0
        self._copies: OrderedDict[bytes, Copy] = OrderedDict()
        self._memory_bytes = 0
        self._spooled_bytes = 0
        self._waiting: dict[bytes, list[Waiter]] = {}
        self._fetches: dict[bytes, Fetch] = {}
        self._coming: dict[bytes, int] = {}
        """What each fetch counts for."""
        self._coming_bytes = 0
        self._later: deque[tuple[Fetch, int]] = deque()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="multihost-spool")

    # coming ------------------------------------------------------------------------------

    def cached(self, digest: bytes) -> Copy | None:
        """The blob, if it is here."""
        copy = self._copies.get(digest)
        if copy is not None:
            self._copies.move_to_end(digest)
        return copy

    def get(self, digest: bytes, then: Waiter, size_bytes: int = WINDOW_BYTES) -> None:
        """Call ``then`` with the blob, at once if it is here, or with why there is none."""
        copy = self.cached(digest)
        if copy is not None:
            then(copy)
            return
        waiters = self._waiting.setdefault(digest, [])
        waiters.append(then)
        if len(waiters) == 1:
            fetch = Fetch(digest, self._line.send, self._fetched, partial(self._choose, digest))
            self._later.append((fetch, min(size_bytes, WINDOW_BYTES)))
            self._begin_more()

    def use(self, copy: Copy) -> None:
        """Keep it until it is released as often as it is used."""
        copy.users += 1

    def release(self, copies: Iterable[Copy]) -> None:
        """They are not needed any more, by one who used them."""
        for copy in copies:
            copy.users -= 1
        self._make_room()

    def _begin_more(self) -> None:
        while self._later:
            fetch, size_bytes = self._later[0]
            if self._coming and self._coming_bytes + size_bytes > COMING_BYTES:
                return
            self._later.popleft()
            self._coming[fetch.digest] = size_bytes
            self._coming_bytes += size_bytes
            self._fetches[fetch.digest] = fetch
            fetch.begin()

    def _choose(self, digest: bytes, size_bytes: int) -> Path | None:
        """The file for a blob of this size; None: it goes into memory."""
        if size_bytes <= SPOOL_BYTES:
            self._make_room(memory_bytes=size_bytes)
            if self._memory_bytes + size_bytes <= MEMORY_BYTES:
                self._memory_bytes += size_bytes
                return None
        elif not self._spool.has_room(size_bytes):
            self._make_room(spooled_bytes=SPOOLED_BYTES)
        return self._spool.path / digest.hex()

    def _fetched(self, fetch: Fetch, result: Copy | OSError | str) -> None:
        del self._fetches[fetch.digest]
        self._coming_bytes -= self._coming.pop(fetch.digest)
        if isinstance(result, Copy):
            self._copies[fetch.digest] = result
            if not result.is_in_memory:
                self._spooled_bytes += result.size_bytes
        elif isinstance(result, OSError):
            result = f"can't be kept on the worker: {self._spool.why_not(result)}"
        elif fetch.size_bytes >= 0 and fetch.is_in_memory:
            self._memory_bytes -= fetch.size_bytes
        for then in self._waiting.pop(fetch.digest, ()):
            then(result)
        self._make_room()
        self._begin_more()

    def _make_room(self, *, memory_bytes: int = 0, spooled_bytes: int = 0) -> None:
        """Forget copies that nobody uses, least recently used first, until there is so much."""
        memory, spooled = MEMORY_BYTES - memory_bytes, SPOOLED_BYTES - spooled_bytes
        if self._memory_bytes <= memory and self._spooled_bytes <= spooled:
            return
        for copy in [copy for copy in self._copies.values() if not copy.users]:
            if copy.is_in_memory and self._memory_bytes > memory:
                self._memory_bytes -= copy.size_bytes
            elif isinstance(copy.where, Path) and self._spooled_bytes > spooled:
                self._spooled_bytes -= copy.size_bytes
                copy.where.unlink(missing_ok=True)
            else:
                continue
            del self._copies[copy.digest]

    # going -------------------------------------------------------------------------------

    def put(self, data: bytes, then: Stored) -> None:
        """Send a blob; ``then`` is told when it is stored, or why it is not."""
        blob = m.Blob(digest_of(data), len(data))
        if self._unsent_bytes + len(data) > UNSENT_BYTES:
            with contextlib.suppress(OSError):  # then it stays in memory
                self._put_descriptor(blob, self._spool.keep(data), then)
                return
        self._unsent_bytes += len(data)

        def done() -> None:
            self._unsent_bytes -= len(data)

        self._put(blob, of_bytes(data), then, done)

    def put_file(self, result: InFile, then: Stored) -> None:
        """Send what a child has written into a file, which goes as soon as it is stored."""
        blob = m.Blob(result.digest, result.size_bytes)
        try:
            descriptor = self._spool.take_out(result.name)
        except OSError as error:
            then(blob, f"can't be read: {error.strerror}")
            return
        self._put_descriptor(blob, descriptor, then)

    def _put_descriptor(self, blob: m.Blob, descriptor: int, then: Stored) -> None:
        self._put(blob, reader_of(descriptor), then, partial(os.close, descriptor))

    def _put(self, blob: m.Blob, read: Read, then: Stored, done: Callable[[], None]) -> None:
        def stored(error: MultihostError | None) -> None:
            done()
            then(blob, None if error is None else str(error))

        self._uploads.put(blob, read, stored)

    # the session -------------------------------------------------------------------------

    def received(self, message: object) -> None:
        """Take a message about blobs."""
        if isinstance(message, m.BlobPart):
            fetch = self._fetches.get(message.digest)
            if fetch is not None:
                fetch.part(message, self._threads)
        elif isinstance(message, m.BlobStored | m.BlobRefused | m.BlobFound):
            self._uploads.received(message)
            if isinstance(message, m.BlobRefused) and message.digest in self._fetches:
                self._fetches[message.digest].refuse(message.message)

    def connected(self, *, is_same_store: bool = True) -> None:
        """Go on with what was under way."""
        for fetch in list(self._fetches.values()):
            fetch.begin()
        self._uploads.connected(is_same_store=is_same_store)

    def writable(self) -> None:
        """Back-pressure is over."""
        self._uploads.writable()

    def close(self) -> None:
        """Let the thread end."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for fetch in self._fetches.values():
            fetch.close()


def _refusal(message: m.BlobRefused, _: m.Blob) -> MultihostError:
    return Refused(message.message)
