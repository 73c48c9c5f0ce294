"""The agent: one connection to the server, one child process a slot.

It decides nothing about outcomes. It keeps what the server has not settled,
comes back after a broken connection with what it still holds, stops its tasks
before their leases end when it can't renew them, and leaves no process behind.
"""

import asyncio
import contextlib
import os
import platform
import secrets
import signal
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from multihost.core import lease
from multihost.core.ids import job_of, task_name
from multihost.core.outcome import Certificate, Ending, Failure, encode_failure
from multihost.core.resources import Offer
from multihost.runtime import clock
from multihost.runtime.config import KEY_VARIABLE, URL_VARIABLE
from multihost.runtime.peer import Peer
from multihost.wire import message as m
from multihost.worker import feed
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.oom import OutOfMemoryWatch
from multihost.worker.slot import ChildSetup, Death, Slot, Work

DRAIN_S = 30.0
"""How long running tasks may go on after the first SIGTERM."""
INTERRUPT_S = 1.0
"""Time between raising in a task's code and SIGTERM to its process."""
TERMINATE_S = 2.0
"""Time between SIGTERM and SIGKILL."""
TASK_OUTPUT_BYTES = 1 << 20
"""What is sent of one task's output; the rest is dropped, with a notice."""
UNSETTLED_BYTES = 64 << 20
"""Outcomes not settled yet, above which no more tasks are asked for."""
QUICK_RESPAWNS = 2
"""Children that may die in a row, before they have done anything, and are replaced at once."""
RESPAWN_S = 0.5
"""Pause before a child that died before it had done anything is started again."""


@dataclass(slots=True)
class WorkerOptions:
    """What a worker is started with."""

    urls: tuple[str, ...]
    key: bytes
    slots: int = 1
    name: str = ""
    queues: tuple[str, ...] = ()
    """Empty: every queue."""
    tags: tuple[str, ...] = ()
    is_elastic: bool = False
    sys_path: tuple[str, ...] = ()
    cwd: str | None = None
    argv: tuple[str, ...] = ()
    grace_s: float = DRAIN_S


class Worker:
    """A worker in this process, on the running event loop.

    Invariant: every lease granted is in ``_works`` (waiting or running), in
    ``_unsettled`` (ended, not acknowledged), or was given back.
    """

    def __init__(self, options: WorkerOptions) -> None:
        """Describe the worker; ``run`` connects it."""
        self.options = options
        self.uid = secrets.token_bytes(16)
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self.slots = options.slots
        self.peer = Peer(self, m.Role.WORKER, options.urls, options.key)
        self.blobs = WorkerBlobs(self.peer)
        self.pace = feed.Pace()
        self._works: dict[int, Work] = {}
        self._backlog: deque[Work] = deque()
        self._children: list[Slot] = []
        self._unsettled: dict[tuple[int, int], m.Attempt] = {}
        self._unsettled_bytes = 0
        self._finished: list[m.Attempt] = []
        self._told = 0
        self._is_due = False
        self._is_draining = False
        self._is_leaving = False
        self._watch: asyncio.TimerHandle | None = None
        self._fence: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[None]
        self._oom = OutOfMemoryWatch()
        self._deaths_in_a_row = 0
        self._setup = ChildSetup(cwd=options.cwd, setup=_setup_text(options))

    # life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until drained or told to leave; raises what ``Peer.connect`` raises."""
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        url, key = self.options.urls[0], self.options.key.decode(errors="surrogateescape")
        self._setup.environment = {URL_VARIABLE: url, KEY_VARIABLE: key}
        for _ in range(self.slots):
            self._children.append(Slot(self, self._setup))
        keeping = None
        try:
            await self.peer.connect()
            keeping = asyncio.ensure_future(self.peer.run())
            await asyncio.wait([keeping, self._stopped], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                await keeping
        finally:
            self._end_children()
            self.peer.close("the worker leaves")
            if keeping is not None:
                with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                    await asyncio.wait_for(asyncio.shield(keeping), 1.0)
                keeping.cancel()

    def drain(self) -> None:
        """Take nothing new, finish what runs within the grace, then go."""
        if self._is_draining:
            return
        self._is_draining = True
        self.peer.send(m.Drain("the worker was asked to stop"))
        self._give_back(list(self._backlog))
        for slot in self._children:
            if len(slot.fed) > 1:
                slot.ask_back()
        self._loop.call_later(self.options.grace_s, self.leave)
        self._schedule()

    def leave(self) -> None:
        """Give back everything and go now."""
        if self._is_leaving:
            return
        self._is_leaving = self._is_draining = True
        self._flush()
        self._give_back([work for work in self._works.values() if not work.is_revoked])
        if not self._stopped.done():
            self._stopped.set_result(None)

    # PeerOwner -------------------------------------------------------------------------

    def opening(self) -> m.Enlist:
        """Open the session, or come back with what is held."""
        held = [work.held for work in self._works.values() if not work.is_revoked]
        held += [m.Held(task, token) for task, token in self._unsettled]
        return m.Enlist(
            self.uid,
            self.name,
            socket.gethostname(),
            os.getpid(),
            self.slots,
            self.options.queues,
            Offer(
                ".".join(platform.python_version_tuple()[:2]),
                socket.gethostname(),
                self.options.tags,
                float(os.cpu_count() or 1),
            ),
            tuple(held),
            self.options.is_elastic,
        )

    def connected(self, welcome: m.Welcome) -> None:
        """Send again what was not settled, and ask for work."""
        self._told = 0
        self.blobs.connected()
        if self._unsettled:
            self.peer.send(m.Finished(list(self._unsettled.values())))
        if self._is_draining:
            self.peer.send(m.Drain("the worker was asked to stop"))
        if self._fence is not None:
            self._fence.cancel()
            self._fence = None
        self._schedule()

    def received(self, messages: Sequence[Any]) -> None:
        """Serve the server's messages."""
        for message in messages:
            kind = type(message)
            if kind is m.Grants:
                self._granted(message)
            elif kind is m.Settled:
                self._settled(message)
            elif kind is m.Revoked:
                for held in message.tasks:
                    self._revoke(held)
            elif kind is m.SetSlots:
                self._set_slots(message.slots)
            elif kind is not m.Goodbye:
                self.blobs.received(message)

    def writable(self) -> None:
        """Back-pressure is over."""
        self._schedule()

    def disconnected(self, reason: str) -> None:
        """Go on with what runs, but not beyond its lease."""
        self._told = 0
        welcome = self.peer.welcome
        lease_s = welcome.lease_s if welcome is not None else lease.LEASE_S
        wait_s = lease.must_stop_at(self.peer.renewed_at, lease_s) - clock.mono()
        self._fence = self._loop.call_later(max(0.0, wait_s), self._lose_leases)

    def _lose_leases(self) -> None:
        """The server may soon hand our tasks to others: stop them, forget them."""
        if self.peer.is_connected:
            return
        for work in list(self._works.values()):
            self._revoke(work.held)

    # leases ----------------------------------------------------------------------------

    def _granted(self, message: m.Grants) -> None:
        jobs = {job.number: job for job in message.jobs}
        self._told = max(0, self._told - len(message.tasks))
        for grant in message.tasks:
            payload = grant.payload
            inline = payload if isinstance(payload, bytes) else None
            work = Work(grant, jobs[job_of(grant.task)], inline)
            self._works[grant.task] = work
            if self._is_draining:
                self._give_back([work])
                continue
            self._backlog.append(work)
            if isinstance(payload, m.Blob):
                self.blobs.get(payload.digest, partial(self._fetched, work))
        self._schedule()

    def _fetched(self, work: Work, data: bytes | None) -> None:
        if data is None:
            text = "an argument's blob is not on the server any more; submit the task again"
            self._fail(work, Failure(Ending.UNRUNNABLE, "PayloadError", text, worker=self.name))
        work.payload = data
        self._schedule()

    def _settled(self, message: m.Settled) -> None:
        for held in message.tasks:
            attempt = self._unsettled.pop((held.task, held.token), None)
            if attempt is not None:
                self._unsettled_bytes -= _size(attempt)

    def _revoke(self, held: m.Held) -> None:
        attempt = self._unsettled.pop((held.task, held.token), None)
        if attempt is not None:
            self._unsettled_bytes -= _size(attempt)
        work = self._works.get(held.task)
        if work is None or work.grant.token != held.token:
            return
        work.is_revoked = True
        if work.slot is None:
            self._forget(work)
            self._schedule()
        else:
            self._end(work)

    def _give_back(self, works: list[Work]) -> None:
        if works:
            self.peer.send(m.GiveBack([work.held for work in works]))
            for work in works:
                self._forget(work)

    def _forget(self, work: Work) -> None:
        if self._works.get(work.grant.task) is work:
            del self._works[work.grant.task]
        if work.timer is not None:
            work.timer.cancel()
        with contextlib.suppress(ValueError):
            self._backlog.remove(work)

    # feeding ---------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Look at slots, backlog and messages once in this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        self._flush()
        if self._is_leaving:
            return
        if self._backlog:
            self._feed()
        if self._is_draining:
            if not self._works and not self._unsettled:
                self.leave()
            return
        self._want()
        if self._watch is None and (self._backlog or any(len(s.fed) > 1 for s in self._children)):
            self._watch = self._loop.call_later(feed.STUCK_S, self._look)

    def _flush(self) -> None:
        if self._finished:
            attempts, self._finished = self._finished, []
            self.peer.send(m.Finished(attempts))

    def _want(self) -> None:
        if self._unsettled_bytes > UNSETTLED_BYTES or not self.peer.is_connected:
            return
        ahead = self.pace.ahead
        room = feed.room(self.slots, ahead, len(self._works))
        if feed.is_worth_saying(room, self._told, self.slots, ahead):
            self._told = room
            self.peer.send(m.Want(room))

    def _feed(self) -> None:
        """Give the backlog to idle slots, then feed tiny tasks ahead."""
        skipped: list[Work] = []
        backlog = self._backlog
        ahead = self.pace.ahead
        while backlog:
            work = backlog.popleft()
            slot = None
            if work.payload is not None and not work.is_revoked:
                slot = self._slot_for(work, ahead)
            if slot is None:
                skipped.append(work)
                if work.payload is not None and not work.context:
                    break  # nor is there a slot for others like it
                continue
            self._start(slot, work)
        backlog.extendleft(reversed(skipped))

    def _slot_for(self, work: Work, ahead: int) -> Slot | None:
        context = work.context
        shared = [slot for slot in self._children if not slot.is_retiring]
        own = [slot for slot in shared if slot.context == context]
        width = work.job.width
        if width is not None and context is None:
            # A pool of limited width without children of its own: count its running tasks.
            running = sum(bool(s.fed) and s.fed[0].job.number == work.job.number for s in shared)
            is_full = running >= width
        else:
            is_full = width is not None and sum(bool(slot.fed) for slot in own) >= width
        if not is_full:
            idle = next((slot for slot in own if slot.is_idle), None)
            if idle is None:
                idle = self._adopt(work, shared)
            if idle is not None:
                return idle
        if not ahead or work.job.timeout_s is not None or work.job.context is not None:
            return None
        if width is not None:
            own = [s for s in own if s.fed and s.fed[0].job.number == work.job.number]
        best = min(own, key=lambda slot: len(slot.fed), default=None)
        return (
            best if best is not None and len(best.fed) <= ahead and not best.is_asked_back else None
        )

    def _adopt(self, work: Work, slots: list[Slot]) -> Slot | None:
        """A fresh idle child for a pool; an idle one of another pool makes way for one."""
        context = work.job.context
        if context is not None:
            for slot in slots:
                if slot.is_idle and slot.context is None and slot.served == 0:
                    return slot
        for slot in slots:
            if slot.is_idle:
                self._replace(slot)
                return self._children[-1]
        return None

    def _start(self, slot: Slot, work: Work) -> None:
        function = work.job.function
        if function is not None and not slot.knows(function):
            data = self._function(work, function)
            if data is None:
                return
        else:
            data = None
        context = work.job.context
        if context is not None and slot.context is None:
            initializer = b""
            if context.initializer is not None:
                found = self._function(work, context.initializer)
                if found is None:
                    return
                initializer = found
            slot.serve_context(work.job, initializer)
        slot.feed(work, data)
        if work.job.timeout_s is not None:
            work.timer = self._loop.call_later(work.job.timeout_s, self._timed_out, work)
        if context is not None and context.max_tasks and slot.served >= context.max_tasks:
            self._replace(slot)

    def _function(self, work: Work, digest: bytes) -> bytes | None:
        """The blob if it is here; else the work waits at the end of the backlog."""
        found: list[bytes | None] = []
        self.blobs.get(digest, found.append)
        if found:
            return found[0]
        payload, work.payload = work.payload, None

        def arrived(data: bytes | None) -> None:
            work.payload = payload
            if data is None:
                text = "the function's blob is not on the server any more; submit the job again"
                self._fail(work, Failure(Ending.UNRUNNABLE, "PayloadError", text, worker=self.name))
            self._schedule()

        self.blobs.get(digest, arrived)
        self._backlog.append(work)
        return None

    def _look(self) -> None:
        """Take back what sits behind long tasks; give back what nobody here gets to soon."""
        self._watch = None
        now = clock.mono()
        for slot in self._children:
            if len(slot.fed) > 1 and slot.runs_s(now) > feed.STUCK_S:
                self.pace.slow_down(slot.runs_s(now))
                slot.ask_back()
        waiting = [work for work in self._backlog if work.slot is None]
        busy = [slot for slot in self._children if slot.fed]
        if waiting and len(busy) >= self.slots:
            shortest_s = min(slot.runs_s(now) for slot in busy)
            if shortest_s > feed.HOARD_S:
                self.pace.slow_down(shortest_s)
                self._give_back(waiting)
        self._schedule()

    # SlotOwner -------------------------------------------------------------------------

    def slot_done(self, slot: Slot, work: Work, ending: int, run_s: float, data: bytes) -> None:
        """Report how an attempt ended."""
        self._deaths_in_a_row = 0
        self.pace.note(run_s)
        self._forget(work)
        if ending == Ending.UNRUNNABLE and work.job.context is not None:
            # Its initializer failed: the next task gets a child that tries again.
            self._replace(slot)
        if work.is_revoked:
            self._schedule()
            return
        if work.is_timed_out:
            self._report_timeout(work)
        elif ending == Ending.CANCELLED:
            self._give_back([work])
        else:
            self._report(work, Ending(ending), data, run_s)
        self._schedule()

    def slot_returned(self, slot: Slot, works: list[Work]) -> None:
        """Give what came back to others."""
        if self._is_draining:
            self._give_back(works)
        else:
            self._backlog.extendleft(reversed(works))
        self._schedule()

    def slot_output(self, slot: Slot, work: Work, stream: int, data: bytes) -> None:
        """Pass on what a task printed, up to a limit."""
        left = TASK_OUTPUT_BYTES - work.output_bytes
        if work.is_revoked or left <= 0:
            return
        work.output_bytes += len(data)
        if len(data) > left:
            data = data[:left] + b"\n[multihost: output beyond 1 MiB is not kept]\n"
        self.peer.send(m.Output(work.grant.task, work.grant.token, stream, data))

    def slot_died(self, slot: Slot, death: Death) -> None:
        """A child is gone: report the task it died under, and start another child."""
        was_fresh = slot.served == 0
        fed = list(slot.fed)
        slot.fed.clear()
        if fed:
            self._report_death(slot, fed[0], death)
            for work in fed[1:]:
                work.slot = None
            rest = [work for work in fed[1:] if not work.is_revoked]
            self._backlog.extendleft(reversed(rest))
        if slot in self._children:
            self._children.remove(slot)
            if not self._is_leaving:
                self._respawn(was_fresh=was_fresh)
        self._schedule()

    # ending tasks ------------------------------------------------------------------------

    def _report(self, work: Work, ending: Ending, data: bytes, run_s: float) -> None:
        grant = work.grant
        if len(data) > m.INLINE_BYTES and ending is Ending.OK:
            # Held like an unfinished task until its result is stored.
            self._works[grant.task] = work

            def stored(blob: m.Blob, error: str | None) -> None:
                self._forget(work)
                if work.is_revoked:
                    return
                if error is None:
                    self._outcome(m.Attempt(grant.task, grant.token, ending, blob, run_s))
                else:
                    failure = Failure(Ending.UNRUNNABLE, "PayloadError", f"the result: {error}")
                    self._fail(work, failure)
                self._schedule()

            self.blobs.put(data, stored)
        else:
            self._outcome(m.Attempt(grant.task, grant.token, ending, data, run_s))

    def _outcome(self, attempt: m.Attempt) -> None:
        self._unsettled[attempt.task, attempt.token] = attempt
        self._unsettled_bytes += _size(attempt)
        self._finished.append(attempt)

    def _fail(self, work: Work, failure: Failure, run_s: float = 0.0) -> None:
        self._forget(work)
        failure = msgspec.structs.replace(failure, worker=self.name)
        self._report(work, failure.ending, encode_failure(failure), run_s)

    def _report_death(self, slot: Slot, work: Work, death: Death) -> None:
        self._forget(work)
        if work.is_revoked or self._is_leaving:
            return
        if work.is_timed_out:
            self._report_timeout(work)
            return
        is_out_of_memory = death.exit_code == -signal.SIGKILL and self._oom.has_struck()
        certificate = Certificate(
            self.name,
            socket.gethostname(),
            slot.pid,
            death.exit_code,
            is_out_of_memory,
            death.run_s,
            death.peak_memory_bytes,
            "\n".join(slot.tail.decode(errors="replace").splitlines()[-20:]),
        )
        text = f"task {task_name(work.grant.task)}: {describe(certificate)}"
        failure = Failure(
            Ending.CRASHED, "TaskCrashed", text, worker=self.name, certificates=(certificate,)
        )
        self._fail(work, failure, death.run_s)

    def _report_timeout(self, work: Work) -> None:
        text = (
            f"task {task_name(work.grant.task)} ran longer than its timeout of "
            f"{work.job.timeout_s:g} s and was ended"
        )
        self._fail(work, Failure(Ending.TIMED_OUT, "TaskTimeout", text, worker=self.name))

    def _timed_out(self, work: Work) -> None:
        if work.slot is not None and self._works.get(work.grant.task) is work:
            work.is_timed_out = True
            self._end(work)

    def _end(self, work: Work) -> None:
        """End a task that was fed: raise in it, then SIGTERM, then SIGKILL."""
        slot = work.slot
        if slot is None or work not in slot.fed:
            return
        if slot.fed[0] is not work:
            slot.ask_back()
            return
        slot.interrupt(work)
        self._loop.call_later(INTERRUPT_S, self._insist, slot, work, signal.SIGTERM)
        self._loop.call_later(INTERRUPT_S + TERMINATE_S, self._insist, slot, work, signal.SIGKILL)

    def _insist(self, slot: Slot, work: Work, number: int) -> None:
        if slot.fed and slot.fed[0] is work:
            slot.signal(number)

    # children --------------------------------------------------------------------------

    def _replace(self, slot: Slot) -> None:
        """Retire a child and start a fresh one in its place."""
        if slot in self._children:
            slot.retire()
            self._children.remove(slot)
            if not self._is_leaving:
                self._children.append(Slot(self, self._setup))

    def _respawn(self, *, was_fresh: bool) -> None:
        self._deaths_in_a_row = self._deaths_in_a_row + 1 if was_fresh else 0
        if self._deaths_in_a_row > QUICK_RESPAWNS:
            self._loop.call_later(RESPAWN_S * min(20, self._deaths_in_a_row), self._fill)
        else:
            self._fill()

    def _fill(self) -> None:
        while not self._is_leaving and len(self._children) < self.slots:
            self._children.append(Slot(self, self._setup))
        self._schedule()

    def _set_slots(self, slots: int) -> None:
        self.slots = slots
        for slot in self._children[slots:]:
            if slot.is_idle:
                slot.retire()
                self._children.remove(slot)
        self._fill()

    def _end_children(self) -> None:
        self._is_leaving = True
        for slot in list(self._children):
            slot.signal(signal.SIGKILL)


def describe(certificate: Certificate) -> str:
    """A death certificate as a sentence."""
    code = certificate.exit_code
    if certificate.is_out_of_memory:
        cause = "was killed because memory ran out"
    elif code is not None and code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
    else:
        cause = f"ended by itself with exit code {code}"
    megabytes = certificate.peak_memory_bytes / 1e6
    return (
        f"its process {certificate.pid} on {certificate.host} {cause} after "
        f"{certificate.run_s:.1f} s, with {megabytes:.0f} MB of memory at most"
    )


def _size(attempt: m.Attempt) -> int:
    return len(attempt.payload) if isinstance(attempt.payload, bytes) else 100


def _setup_text(options: WorkerOptions) -> bytes:
    if not options.sys_path and not options.argv:
        return b""
    return msgspec.json.encode({"sys_path": options.sys_path, "argv": options.argv})


async def run_worker(options: WorkerOptions) -> None:
    """Run a worker that drains on the first SIGTERM or SIGINT and leaves on the second."""
    worker = Worker(options)
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if worker._is_draining:
            worker.leave()
        else:
            worker.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    await worker.run()
