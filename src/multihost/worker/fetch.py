"""A blob on its way from the server to a worker: into memory, or into a file.

Of a large one only so much is asked for as may wait for the disk; then the
next piece. The writing and digesting is done by a thread.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from multihost.core.digest import Digester, digest_of
from multihost.wire import message as m

WINDOW_BYTES = 8 * m.BLOB_PART_BYTES
"""Asked for at a time."""

Where = bytes | Path
"""Bytes, or the file that has them."""


@dataclass(slots=True, eq=False)
class Copy:
    """A blob that is here: in memory, or in a file of the spool."""

    digest: bytes
    size_bytes: int
    where: Where
    users: int = 0
    """Works that need it."""

    @property
    def is_in_memory(self) -> bool:
        """Whether it takes memory."""
        return isinstance(self.where, bytes)

    def read(self) -> bytes:
        """All of it."""
        return self.where if isinstance(self.where, bytes) else self.where.read_bytes()


class Fetch:
    """One blob that comes.

    Invariant: ``then`` is called exactly once, on the event-loop thread, with
    the copy or with an OSError or a text that says why there is none.
    """

    def __init__(
        self,
        digest: bytes,
        ask: Callable[[m.Message], None],
        then: Callable[["Fetch", Copy | OSError | str], None],
        choose: Callable[[int], Path | None],
    ) -> None:
        """Ask with ``ask``; ``choose``, told the size, says which file it goes into, if any."""
        self.digest = digest
        self.size_bytes = -1
        self._ask = ask
        self._then = then
        self._choose = choose
        self._have_bytes = 0
        self._asked_upto = 0
        self._data = bytearray()
        self._file: _File | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_in_memory(self) -> bool:
        """Whether what has come is there."""
        return self._file is None

    def begin(self) -> None:
        """Ask, for the first time or over a new connection, for what is missing."""
        if 0 <= self.size_bytes <= self._have_bytes:
            return  # nothing is: the thread that writes it says when it has
        self._asked_upto = self._have_bytes
        if self._file is None or self._file.has_room:
            self._ask_more()

    def part(self, part: m.BlobPart, threads: ThreadPoolExecutor) -> None:
        """Take a part; ``threads``: one that writes files."""
        if part.size_bytes < 0:
            self._fail("is not on the server any more; submit it again")
            return
        if part.offset != self._have_bytes:
            return
        if self.size_bytes < 0:
            self.size_bytes = part.size_bytes
            path = self._choose(part.size_bytes)
            if path is not None:
                self._file = _File(path, self._loop, threads, self._wrote)
            elif len(part.data) == part.size_bytes:
                self._came(part.data)
                return
        self._have_bytes += len(part.data)
        if self._file is not None:
            self._file.write(part.data)
        else:
            self._data += part.data
        if self._have_bytes >= self.size_bytes:
            self._ended()
        elif self._file is None or self._file.has_room:
            self._ask_more()

    def refuse(self, why: str) -> None:
        """The server does not give it."""
        self._fail(f"is refused: {why}")

    def close(self) -> None:
        """Let go of the file; no thread writes any more."""
        if self._file is not None:
            self._file.close()

    def _ask_more(self) -> None:
        if self._have_bytes >= self._asked_upto:
            self._asked_upto += WINDOW_BYTES
            self._ask(m.GetBlob(self.digest, self._have_bytes, WINDOW_BYTES))

    def _ended(self) -> None:
        if self._file is None:
            self._came(bytes(self._data))
        else:
            self._file.finish(self.digest)

    def _came(self, data: bytes) -> None:
        if digest_of(data) != self.digest:
            self._fail("came damaged from the server")
        else:
            self._then(self, Copy(self.digest, len(data), data))

    def _wrote(self, outcome: "OSError | str | Path | None") -> None:
        """Part of the file was written (None), all of it (its path), or it can't be."""
        if isinstance(outcome, Path):
            self._then(self, Copy(self.digest, self.size_bytes, outcome))
        elif outcome is not None:
            self._fail(outcome)
        elif self._have_bytes < self.size_bytes:
            self._ask_more()

    def _fail(self, why: OSError | str) -> None:
        if self._file is not None:
            self._file.discard()
        self._then(self, why)


class _File:
    """A file that a thread writes; ``told`` is called on the loop's thread."""

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadPoolExecutor,
        told: Callable[[OSError | str | Path | None], None],
    ) -> None:
        self._path = path
        self._loop = loop
        self._threads = threads
        self._told = told
        self._unwritten_bytes = 0
        self._is_over = False
        self._file: IO[bytes] | None = None
        self._digester = Digester()

    @property
    def has_room(self) -> bool:
        """Whether little enough waits to be written."""
        return self._unwritten_bytes <= WINDOW_BYTES // 2

    def write(self, data: bytes) -> None:
        self._unwritten_bytes += len(data)
        self._threads.submit(self._write, data)

    def finish(self, digest: bytes) -> None:
        self._threads.submit(self._finish, digest)

    def discard(self) -> None:
        self._is_over = True
        self._threads.submit(self._discard)

    def _tell(self, written: int, outcome: OSError | str | Path | None) -> None:
        if self._is_over:
            return
        self._unwritten_bytes -= written
        if outcome is not None:
            self._told(outcome)
        elif self.has_room:
            self._told(None)

    # in the thread -------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._loop.call_soon_threadsafe(self._tell, len(data), error)
            return
        self._digester.update(data)
        self._loop.call_soon_threadsafe(self._tell, len(data), None)

    def _finish(self, digest: bytes) -> None:
        if self._is_over:
            return
        self.close()
        is_right = self._digester.digest() == digest
        outcome = self._path if is_right else "came damaged from the server"
        self._loop.call_soon_threadsafe(self._tell, 0, outcome)

    def _discard(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
