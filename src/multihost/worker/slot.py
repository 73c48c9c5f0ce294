"""One child process and the agent's side of its pipes."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from multihost.core.outcome import Ending
from multihost.runtime import clock
from multihost.runtime.spinning import spin_of
from multihost.wire import message as m
from multihost.worker import frames
from multihost.worker.childprocess import ChildProcess
from multihost.worker.fetch import Where
from multihost.worker.launch import ChildSetup
from multihost.worker.taskpipe import TaskPipe
from multihost.worker.work import Work

_ENDINGS = frozenset(ending.value for ending in Ending)
READ_BYTES = 1 << 20
TAIL_BYTES = 4096
"""Of what a child printed last, kept for its death certificate."""


class SlotOwner(Protocol):
    """Who is told what a slot does. Calls come from the event loop."""

    def slot_began(self, slot: "Slot", work: Work) -> None:
        """A work is now the first of the slot's: it is being run."""
        ...

    def slot_done(
        self, slot: "Slot", work: Work, ending: int, run_s: float, data: bytes | frames.InFile
    ) -> None:
        """The first of the slot's works has ended."""
        ...

    def slot_returned(self, slot: "Slot", works: list[Work]) -> None:
        """Works that were fed and not begun came back."""
        ...

    def slot_output(self, slot: "Slot", work: Work, stream: int, data: bytes) -> None:
        """A work printed something."""
        ...

    def slot_waits(self, slot: "Slot", work: Work, *, is_waiting: bool) -> None:
        """The first of the slot's works waits for results of others, or goes on."""
        ...

    def slot_died(self, slot: "Slot", fed: list[Work], death: "Death") -> None:
        """The process is gone; ``fed`` is what it had, the first of it running."""
        ...


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of a process that has ended."""

    exit_code: int
    """Or minus the number of the signal."""
    peak_memory_bytes: int
    run_s: float
    """How long the work ran that it died under."""


class Slot:
    """A child process with what was fed to it; the first of ``fed`` is running.

    Invariant: every work that was fed comes back exactly once: done, returned,
    or with ``slot_died``.
    """

    def __init__(self, owner: SlotOwner, setup: ChildSetup) -> None:
        """Start the process."""
        self.owner = owner
        self.fed: deque[Work] = deque()
        self.context: str | None = None
        self.shipped: tuple[bytes, ...] = ()
        """Archives that it imports from."""
        self.served = 0
        """Tasks fed so far."""
        self.began_at = 0.0
        """When the first of ``fed`` began, on the clock of leases."""
        self.is_retiring = False
        self.is_asked_back = False
        self.waits_since: float | None = None
        """When its work began to wait for the results of others, if it does."""
        self.tail = bytearray()
        self._unready = 1
        """What has to end before tasks begin: the start of the process, an initializer."""
        self._loop = asyncio.get_running_loop()
        self._spin = spin_of(self._loop)
        self._is_paused = False
        self._is_ending = False
        self._buffer = frames.FrameBuffer()
        process = self._process = ChildProcess(setup)
        self.pid = process.pid
        self.tasks = TaskPipe(process.tasks)
        self._outcomes, self._prints = process.outcomes, process.prints
        self._read_pipes()
        process.watch(self._exited)

    @property
    def is_ready(self) -> bool:
        """Whether the first of ``fed`` runs; else its process or initializer still does."""
        return not self._unready

    def runs_s(self, now: float) -> float:
        """For how long the current work has been running."""
        return now - self.began_at if self.fed else 0.0

    @property
    def work(self) -> Work | None:
        """What runs, if anything does."""
        return self.fed[0] if self.fed else None

    # feeding ---------------------------------------------------------------------------

    def feed(self, work: Work, function: Where | None) -> None:
        """Give it a work, once it is flushed; ``function``: its pickle, if it was not given."""
        work.slot = self
        self.fed.append(work)
        self.served += 1
        self.tasks.add(work, function)
        if len(self.fed) == 1:
            self._began()

    def serve(self, work: Work, paths: Sequence[str], initializer: Where) -> None:
        """Make it a child for works like this one alone, before its first task.

        ``paths`` are directories to import from, ``initializer`` is the call that its pool begins
        with.
        """
        self.context = work.context
        if paths:
            self.shipped = work.job.ship
            self.tasks.add_paths(paths)
        pool = work.job.context
        if pool is not None:
            self._unready += bool(initializer)
            name = f"{pool.name}-{self.pid}".encode() if pool.name else b""
            self.tasks.add_pool(name, initializer)

    def ask_back(self) -> None:
        """Ask for what has not begun."""
        if not self.is_asked_back:
            self.is_asked_back = True
            self._process.command(frames.pack(frames.GIVE_BACK))

    # output ----------------------------------------------------------------------------

    def pause_output(self) -> None:
        """Read nothing more for now: the child waits when its pipes are full."""
        if not self._is_paused and not self._is_ending:
            self._is_paused = True
            for descriptor in (self._outcomes, *self._prints):
                self._loop.remove_reader(descriptor)

    def resume_output(self) -> None:
        """Read again."""
        if self._is_paused and not self._is_ending:
            self._is_paused = False
            self._read_pipes()

    def _read_pipes(self) -> None:
        self._loop.add_reader(self._outcomes, self._readable)
        for descriptor in self._prints:
            self._loop.add_reader(descriptor, self._printed, descriptor)

    def catch_up(self) -> None:
        """Hear what the child has said by now, also if its output is paused."""
        self._readable()

    # ending ----------------------------------------------------------------------------

    def interrupt(self, work: Work) -> None:
        """Raise in the work's code, if it is running."""
        self._process.command(frames.pack(frames.CANCEL, work.grant.task, work.grant.token))

    def tell_parent_gone(self) -> None:
        """Let a process know that whoever started it is gone."""
        self._process.command(frames.pack(frames.PARENT_GONE))

    def signal(self, number: int) -> None:
        """Send a signal to the child and all that it started."""
        self._process.signal(number)

    def signal_alone(self, number: int) -> None:
        """Send a signal to the child, not to what it started; nothing happens if it has ended."""
        self._process.signal_alone(number)

    def retire(self) -> None:
        """Let it finish what it has and go."""
        self.is_retiring = True
        self.tasks.end()

    # within ----------------------------------------------------------------------------

    def _exited(self) -> None:
        """The process has ended; others that a task left behind may still have its pipes."""
        while self._readable():
            continue
        self._end()

    def _end(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._loop.remove_reader(self._outcomes)
            self._process.reap(self._died)

    def _readable(self) -> bool:
        """Read what the child says; whether there was anything."""
        if self._is_ending:
            return False
        try:
            data = os.read(self._outcomes, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        if self._spin is not None:
            self._spin.noticed()
        printed = _Printed()
        for kind, detail, first, second, seconds, payload in self._buffer.feed(data):
            if kind == frames.OUTPUT and printed.adds(first, detail, payload):
                continue
            if printed.parts:
                self._output(*printed.take())
            if kind == frames.OUTPUT:
                printed.adds(first, detail, payload)
            else:
                self._heard(kind, detail, (first, second), seconds, payload)
        if printed.parts:
            self._output(*printed.take())
        return True

    def _heard(
        self, kind: int, detail: int, numbers: tuple[int, int], seconds: float, payload: bytes
    ) -> None:
        task, _ = numbers
        if kind == frames.DONE:
            self._done(task, detail, seconds, payload)
        elif kind == frames.DONE_IN_FILE and len(payload) > frames.IN_FILE.size:
            self._done(task, detail, seconds, frames.InFile.unpack(payload))
        elif kind == frames.DONE_IN_FILE:
            self._done(0, detail, seconds, b"")
        elif kind == frames.RETURNED:
            self._returned(payload)
        elif kind == frames.PRINTED:
            self._read_rest(*numbers)
        elif kind == frames.WAITS:
            self._waits(task, is_waiting=bool(detail))
        elif kind == frames.READY:
            self._unready -= 1
            if self.fed:
                self._began()

    def _done(self, task: int, ending: int, run_s: float, data: bytes | frames.InFile) -> None:
        if not self.fed or self.fed[0].grant.task != task or ending not in _ENDINGS:
            # It says what can't be: better one death that is reported than a task nobody ends.
            self.signal(signal.SIGKILL)
            return
        if self.waits_since is not None:
            self._waits(task, is_waiting=False)
        work = self.fed.popleft()
        if self.fed:
            self._began()
        self.owner.slot_done(self, work, ending, run_s, data)

    def _waits(self, task: int, *, is_waiting: bool) -> None:
        if not self.fed or self.fed[0].grant.task != task:
            return  # of a task that has ended
        if is_waiting == (self.waits_since is not None):
            return
        self.waits_since = clock.mono() if is_waiting else None
        self.owner.slot_waits(self, self.fed[0], is_waiting=is_waiting)

    def _began(self) -> None:
        self.began_at = clock.mono()
        self.tail.clear()
        if not self._unready:
            self.owner.slot_began(self, self.fed[0])

    def _returned(self, payload: bytes) -> None:
        self.is_asked_back = False
        self.tasks.forget_functions()
        numbers = {
            int.from_bytes(payload[at : at + 8], "little") for at in range(0, len(payload), 16)
        }
        works = [work for work in self.fed if work.grant.task in numbers]
        for work in works:
            self.fed.remove(work)
            work.slot = None
        self.owner.slot_returned(self, works)

    def _output(self, task: int, stream: int, data: bytes) -> None:
        self.tail += data
        if len(self.tail) > TAIL_BYTES:
            del self.tail[:-TAIL_BYTES]
        # An initializer runs for the first task that comes after it.
        is_initializing = not task and not self.is_ready
        if self.fed and (self.fed[0].grant.task == task or is_initializing):
            self.owner.slot_output(self, self.fed[0], stream, data)

    def _printed(self, descriptor: int) -> None:
        """Something went to the descriptors themselves: from C code, or programs of the task.

        What has ended did not print it: a child waits until that is read (``_read_rest``).
        """
        while self._readable():
            continue
        if self._process.is_gone:
            return
        for each, stream in self._prints.items():
            # Of both, stdout first: what comes before a traceback is mostly there.
            if each == descriptor or stream == m.Stream.STDOUT:
                self._read_prints(each)

    def _read_prints(self, descriptor: int, size: int = READ_BYTES) -> int:
        """Read at most so much; how much it was."""
        try:
            data = os.read(descriptor, min(size, READ_BYTES))
        except OSError:
            return 0
        if not data:
            self._loop.remove_reader(descriptor)
        elif self.fed:
            self._output(self.fed[0].grant.task, self._prints[descriptor], data)
        return len(data)

    def _read_rest(self, out: int, err: int) -> None:
        """A task is about to end, and so much of what it printed has not been read, or just has."""
        sizes = {m.Stream.STDOUT: out, m.Stream.STDERR: err}
        for descriptor, stream in self._prints.items():
            left = sizes[m.Stream(stream)]
            while left > 0 and (size := self._read_prints(descriptor, left)):
                left -= size
        self._process.command(frames.pack(frames.READ))

    def _died(self, exit_code: int, peak_memory_bytes: int) -> None:
        """The process is gone."""
        self.tasks.close()
        for descriptor in self._prints:
            self._read_prints(descriptor)
            self._loop.remove_reader(descriptor)
        for descriptor in (self._outcomes, *self._prints):
            os.close(descriptor)
        death = Death(exit_code, peak_memory_bytes, self.runs_s(clock.mono()))
        fed = list(self.fed)
        self.fed.clear()
        self.owner.slot_died(self, fed, death)


class _Printed:
    """What a task wrote to one stream in a row: many lines, one message."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._whose = (0, 0)

    def adds(self, task: int, stream: int, data: bytes) -> bool:
        """Add what was written, unless it is of another task or stream."""
        if self.parts and self._whose != (task, stream):
            return False
        self._whose = (task, stream)
        self.parts.append(data)
        return True

    def take(self) -> tuple[int, int, bytes]:
        """Task, stream and all that was written; nothing is left."""
        parts, self.parts = self.parts, []
        return *self._whose, b"".join(parts)
