"""The pipe through which a child gets its tasks, and what the child has by what went in.

Written without waiting: what a busy child does not take yet is written when it reads.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from multihost.worker import frames
from multihost.worker.fetch import Where
from multihost.worker.work import Work

PARTS = 2
"""Of one task."""
MAX_PARTS = 256
"""Buffers in one write; systems allow 1,024 and more."""
JOIN_BYTES = 1 << 17
"""Of so little a copy costs less than many buffers."""


class TaskPipe:
    """The agent's end.

    Invariant: the child gets every frame whole and in order. A function that is known goes
    with no other task: the child has it, and both forget the least recently used one.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to a pipe that does not block, and is closed here."""
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._job = 0
        """The signed job of which the child was told last."""
        self._known: OrderedDict[bytes, None] = OrderedDict()
        """Functions that the child surely has, least recently used first."""
        self._latest = b""
        """The most recently used one."""
        self._fresh: list[frames.Bytes] = []
        """Put in and not yet offered to the pipe; ``flush`` does."""
        self._unwritten: list[frames.Bytes] = []
        self._is_ending = False

    # what goes in ------------------------------------------------------------------------

    def add(self, work: Work, function: Where | None) -> None:
        """Put in a task; ``function``: its pickle, if it is not known."""
        job, payload, function = work.job, work.payload, function or b""
        digest = job.function or frames.NO_FUNCTION
        if digest != self._latest:
            self._use(digest)
        assert payload is not None
        if job.mark is not None and job.number != self._job:
            self._job = job.number
            self._fresh.append(frames.pack(frames.SEALED, payload=work.signed_text))
        if isinstance(payload, Path) or isinstance(function, Path):
            parts = frames.parts_in_files(
                work.lease, job.style, digest, function, payload, priority=job.priority
            )
        else:
            parts = frames.task_parts(
                work.lease, job.style, digest, function, payload, priority=job.priority
            )
        self._fresh += parts

    def _use(self, digest: bytes) -> None:
        """Note which function is used now, as the child does."""
        self._latest = digest
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > frames.FUNCTIONS:
            self._known.popitem(last=False)

    def knows(self, digest: bytes) -> bool:
        """Whether the child has this function."""
        return digest in self._known

    def forget_functions(self) -> None:
        """One may have come with a task that the child has returned unseen."""
        self._known.clear()
        self._latest = b""

    def add_paths(self, paths: Sequence[str]) -> None:
        """Have the child import from these directories first."""
        payload = b"\0".join(map(os.fsencode, paths))
        self._fresh.append(frames.pack(frames.PATHS, payload=payload))

    def add_pool(self, name: bytes, initializer: Where) -> None:
        """Have it begin with the call of a pool, if there is one, and be called by its name."""
        payload = name + b"\0" + os.fsencode(initializer)
        is_file = isinstance(initializer, Path)
        self._fresh.append(frames.pack(frames.CONTEXT, payload=payload, detail=is_file))

    # what goes out -----------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was put in since the last time, all in one go."""
        parts, self._fresh = self._fresh, []
        if not parts:
            return
        if self._unwritten:
            self._unwritten += parts
            return
        if len(parts) > PARTS and sum(map(len, parts)) < JOIN_BYTES:
            parts = [b"".join(parts)]
        left = self._write_some(parts)
        if left:
            self._unwritten = left
            self._loop.add_writer(self._descriptor, self._writable)

    def end(self) -> None:
        """Close it as soon as all is written: the child ends when it has done that."""
        self.flush()
        self._is_ending = True
        if not self._unwritten:
            self.close()

    def close(self) -> None:
        """Close it now, whatever is not written."""
        if self._unwritten:
            self._unwritten = []
            self._loop.remove_writer(self._descriptor)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _writable(self) -> None:
        self._unwritten = self._write_some(self._unwritten)
        if not self._unwritten:
            self._loop.remove_writer(self._descriptor)
            if self._is_ending:
                self.close()

    def _write_some(self, parts: list[frames.Bytes]) -> list[frames.Bytes]:
        """What the pipe did not take."""
        try:
            written = os.writev(self._descriptor, parts[:MAX_PARTS])
        except BlockingIOError:
            return parts
        except OSError:
            return []  # the child has died; that is noticed on its other pipe
        return frames.unwritten(parts, written)
