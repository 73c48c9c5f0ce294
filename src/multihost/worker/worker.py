"""The agent: one connection to the server, and the slots.

It decides nothing about outcomes. It keeps what the server has not settled,
comes back after a broken connection with what it still holds, stops its tasks
before their leases end when it can't renew them, and leaves no process behind.
"""

import asyncio
import contextlib
import os
import platform
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from multihost.core.ids import job_of
from multihost.core.job import Style
from multihost.core.outcome import Ending, Failure
from multihost.runtime.config import cache_dir
from multihost.runtime.descriptors import allow_descriptors
from multihost.runtime.packages import installed_packages
from multihost.runtime.peer import Peer
from multihost.runtime.spinning import only_spin_while
from multihost.wire import message as m
from multihost.wire.seal import Seal
from multihost.worker import feed, reports
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.demand import Demand
from multihost.worker.forks import Forks
from multihost.worker.frames import InFile
from multihost.worker.launch import CHILD_DESCRIPTORS, setup_of
from multihost.worker.leases import Leases
from multihost.worker.lending import Lending
from multihost.worker.options import WorkerOptions
from multihost.worker.outbox import Outbox
from multihost.worker.outcomes import Outcomes
from multihost.worker.outputbox import OutputBox
from multihost.worker.processes import Processes
from multihost.worker.roster import Roster
from multihost.worker.shelf import Shelf
from multihost.worker.slot import Death, Slot
from multihost.worker.spool import Spool
from multihost.worker.supplies import Supplies
from multihost.worker.work import Work

DRAINING = "the worker was asked to stop"
_ENDINGS = {ending.value: ending for ending in Ending}


class Worker:
    """A worker in this process, on the running event loop.

    Invariant: every lease granted is in ``Leases`` (waiting, running, or its
    result on the way), in the outbox (ended, not settled), or was given back.
    """

    def __init__(self, options: WorkerOptions) -> None:
        """Describe the worker; ``run`` connects it."""
        self.options = options
        self.uid = secrets.token_bytes(16)
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self.peer = Peer(
            self,
            m.Role.WORKER,
            options.urls,
            options.key,
            trust=options.trust,
            nearby=options.socket,
        )
        self.spool: Spool
        self.shelf: Shelf
        self.roster: Roster
        self.processes: Processes
        self.is_draining = False
        self._outbox = Outbox(self.peer.send_now)
        self._output = OutputBox(self.peer)
        self._leases: Leases
        self._supplies: Supplies
        self._outcomes: Outcomes
        self._blobs: WorkerBlobs
        self._demand: Demand
        self._lending: Lending
        self._store = b""
        """Which store our leases are in."""
        self._is_due = False
        self._is_leaving = False
        self._watch: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[None]
        self._seal = None if options.seal is None else Seal(options.seal)

    # life ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until drained or told to leave; raises what ``Peer.connect`` raises."""
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        allow_descriptors(CHILD_DESCRIPTORS * (self.options.slots + self.options.processes + 64))
        self._put_together()
        only_spin_while(self._demand.has_idle_slot)
        with contextlib.closing(self.spool), contextlib.closing(self._blobs):
            await self._serve()

    async def _serve(self) -> None:
        """Have children and a connection until the worker leaves; afterwards neither is left."""
        keeping = None
        try:
            self.roster.begin()
            await self.peer.connect()
            keeping = asyncio.ensure_future(self.peer.run())
            await asyncio.wait([keeping, self._stopped], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                await keeping
        finally:
            self._is_leaving = True
            self.roster.close()
            self._leases.close()
            if self._watch is not None:
                self._watch.cancel()
            self.peer.close("the worker leaves")
            await self.roster.wait_until_empty()
            if keeping is not None:
                with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                    await asyncio.wait_for(asyncio.shield(keeping), 1.0)
                keeping.cancel()

    def _put_together(self) -> None:
        """Make the parts and tell them of each other; nothing is started yet."""
        options, peer, name = self.options, self.peer, self.name
        self.spool = Spool(options.spool)
        blobs = self._blobs = WorkerBlobs(peer, self.spool)
        self.shelf = Shelf(blobs, options.cache or cache_dir(), options.cache_bytes)
        leases = self._leases = Leases(peer, blobs, stop=self._end, withdraw=self._withdraw)
        outcomes = self._outcomes = Outcomes(
            leases, self._outbox, blobs, worker=name, stored=self._schedule
        )
        supplies = self._supplies = Supplies(
            blobs, self.shelf, leases, ready=self._ready, fail=self._fail
        )
        setup = setup_of(options, self.spool.path)
        forks = Forks(setup, is_ours=options.has_process)
        setup.fork = forks.fork
        roster = self.roster = Roster(
            self, options.slots, setup, supplies.function, supplies.shipped, forks=forks
        )
        processes = self.processes = Processes(
            roster,
            leases,
            outcomes,
            limit=options.processes,
            began=self._began,
            again=self._ready,
        )
        self._demand = Demand(peer, roster, leases, processes, self._outbox)
        self._lending = Lending(roster, self._output, lent=self._lent, worker=name)

    def drain(self) -> None:
        """Take nothing new, finish what runs within the grace, then go."""
        if self.is_draining:
            return
        self.is_draining = True
        self.peer.send(m.Drain(DRAINING))
        self._give_back(list(self.roster.backlog))
        self.roster.ask_back()
        self._loop.call_later(self.options.grace_s, self.leave)
        self._schedule()

    def leave(self) -> None:
        """Give back everything and go now."""
        if self._is_leaving:
            return
        self._is_leaving = self.is_draining = True
        # First they end, then others may begin them.
        self.roster.close()
        self.processes.report_killed()
        self._outbox.flush()
        self._give_back(self._leases.kept)
        if not self._stopped.done():
            self._stopped.set_result(None)

    # PeerOwner -------------------------------------------------------------------------

    def opening(self) -> m.Enlist:
        """Open the session, or come back with what is held."""
        held = [work.held for work in self._leases.kept]
        return m.Enlist(
            self.uid,
            self.name,
            socket.gethostname(),
            os.getpid(),
            self.roster.slots,
            self.options.queues,
            self.options.offer,
            tuple(held + self._outbox.held),
            self.options.is_elastic,
            tuple(work.grant.task for work, _ in self.processes.works),
        )

    def _installed(self) -> m.Installed:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        seal = "" if self._seal is None else self._seal.id.hex()
        return m.Installed(python, installed_packages(), seal)

    def connected(self, welcome: m.Welcome) -> None:
        """Send again what was not settled, and ask for work."""
        self._demand.forget()
        is_same_store = self._store in {b"", welcome.server}
        if not is_same_store:
            # Another store knows nothing of them, and its numbers may be the same.
            self._leases.lose()
            self._outbox.settle(self._outbox.held)
        self._store = welcome.server
        self._blobs.connected(is_same_store=is_same_store)
        if not self.options.is_elastic:  # else it is a part of the only client that could ask
            self.peer.send(self._installed())
        for work, slot in self.processes.works:
            self._began(work, slot)
        self._output.send_again()
        self._outbox.send_again()
        if self.is_draining:
            self.peer.send(m.Drain(DRAINING))
        self._leases.check()
        self._schedule()

    def received(self, messages: Sequence[Any]) -> None:
        """Serve the server's messages."""
        for message in messages:
            kind = type(message)
            if kind is m.Grants:
                self._granted(message)
            elif kind is m.Settled:
                self._outbox.settle(message.tasks)
            elif kind is m.Revoked:
                self._outbox.settle(message.tasks)
                for held in message.tasks:
                    self._leases.revoke(held)
            elif kind is m.SignalTask:
                self.processes.signal(message.task, message.token, message.number)
            elif kind is m.StarterGone:
                self.processes.miss_starters(message.tasks)
            elif kind is m.SetSlots:
                self.roster.resize(message.slots)
            elif kind is not m.Goodbye:
                self._blobs.received(message)
        self._turn()

    def writable(self) -> None:
        """Back-pressure is over."""
        self._blobs.writable()
        self._output.resume()
        self._schedule()

    def disconnected(self, reason: str) -> None:
        """Go on with what runs, but not beyond its lease."""
        self._output.resume()
        self._demand.forget()
        self._leases.check()

    # leases ----------------------------------------------------------------------------

    def _granted(self, message: m.Grants) -> None:
        works, demand = self._leases.works, self._demand
        jobs = {job.number: job for job in message.jobs}
        for grant in message.tasks:
            payload, job = grant.payload, jobs[job_of(grant.task)]
            inline = payload if isinstance(payload, bytes) else None
            work = works[grant.task] = Work(grant, job, inline)
            if job.style is not Style.PROCESS and demand.told > 0:
                demand.told -= 1
            if self.is_draining:
                self._give_back([work])
            elif (self._seal is not None or job.mark is not None) and self._mismatches(work):
                self._schedule()
            elif inline is None:
                assert isinstance(payload, m.Blob)
                self._supplies.bring_payload(work, payload)
            else:
                self._queue(work)
        self._leases.watch()

    def _mismatches(self, work: Work) -> bool:
        """Fail a work whose submitter has another seal than this worker, or only one has any."""
        failure = reports.seal_mismatch(work, self._seal, self.name)
        if failure is not None:
            self._outcomes.fail(work, failure)
        return failure is not None

    def _queue(self, work: Work) -> None:
        """All that a work needs is here: a slot takes it, a process begins at once."""
        if work.is_process:
            self.processes.start(work)
        else:
            self.roster.backlog.append(work)

    def _began(self, work: Work, slot: Slot) -> None:
        self.peer.send(m.Began(*work.lease, slot.pid))

    def _ready(self, work: Work) -> None:
        """What a work has waited for has come."""
        if self.is_draining:
            self._give_back([work])
        else:
            self._queue(work)
        self._schedule()

    def _fail(self, work: Work, failure: Failure) -> None:
        """What a work needs won't come."""
        self._outcomes.fail(work, failure)
        self._schedule()

    def _end(self, work: Work) -> None:
        """Stop a work that a child has."""
        (self.processes if work.is_process else self.roster).end(work)

    def _give_back(self, works: list[Work]) -> None:
        if works:
            self.peer.send(m.GiveBack([work.held for work in works]))
            for work in works:
                self._leases.forget(work)

    def _withdraw(self, work: Work) -> None:
        with contextlib.suppress(ValueError):
            self.roster.backlog.remove(work)

    # a turn of the loop ------------------------------------------------------------------

    def _schedule(self) -> None:
        """Look at slots, backlog and messages once in this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        self._outbox.flush()
        if self._is_leaving:
            return
        if self.is_draining:
            if not self._leases.works and not self._outbox:
                self.leave()
            return
        if self.roster.has_too_many:
            self.roster.trim()
        if self.roster.backlog:
            self.roster.feed()
        self.roster.fill_lent()
        self._demand.tell()
        # A long task would keep others waiting, here or soon to be sent here.
        if self._watch is None and (self._demand.is_inviting or self.roster.has_waiting):
            self._watch = self._loop.call_later(feed.STUCK_S, self._look)

    def _look(self) -> None:
        self._watch = None
        if self.roster.backlog and not self.is_draining:
            self.roster.feed()
        self._give_back(self.roster.look())
        self._schedule()

    # SlotOwner -------------------------------------------------------------------------

    def slot_began(self, slot: Slot, work: Work) -> None:
        """A work is the one its slot runs now: its time runs, too."""
        if work.job.timeout_s is not None:
            work.timer = self._loop.call_later(work.job.timeout_s, self._timed_out, slot, work)
        if work.is_revoked:
            self._end(work)

    def slot_done(
        self, slot: Slot, work: Work, ending: int, run_s: float, data: bytes | InFile
    ) -> None:
        """Report how an attempt ended."""
        self.roster.pace.note(run_s, work.size_bytes)
        self._leases.forget(work)
        if ending == Ending.UNRUNNABLE:
            assert isinstance(data, bytes)
            data = reports.signed(data, self.name)
            if work.job.context is not None:
                # Perhaps its initializer failed: the next task gets a child that tries again.
                self.roster.replace(slot)
        if work.is_revoked:
            pass
        elif work.is_timed_out:
            self._outcomes.fail_by_timeout(work)
        elif ending == Ending.CANCELLED:
            self._give_back([work])
        else:
            self._outcomes.report(work, _ENDINGS[ending], data, run_s)
            data = b""
        if isinstance(data, InFile):
            self.spool.remove(data.name)
        if self._leases.works or self.is_draining:
            self._schedule()
        else:  # nothing else will come for the message
            self._turn()

    def slot_returned(self, slot: Slot, works: list[Work]) -> None:
        """Give what came back to others."""
        kept = []
        for work in works:
            if work.is_revoked:
                self._leases.forget(work)
            else:
                kept.append(work)
        if self.is_draining or self.roster.is_lending:
            self._give_back(kept)
        else:
            self.roster.put_back(kept)
        self._schedule()

    def slot_output(self, slot: Slot, work: Work, stream: int, data: bytes) -> None:
        """Pass on what a task printed."""
        self._output.take(slot, work, stream, data)

    def slot_waits(self, slot: Slot, work: Work, *, is_waiting: bool) -> None:
        """A task waits for results of others: they may need the slot that it does not use."""
        if not is_waiting:
            self.roster.take_back(slot)
            self._schedule()
        elif self.options.lends and not work.is_process:
            self._lending.begin(slot, work)

    def _lent(self) -> None:
        # The server may have what the task waits for, and that goes before these.
        self._give_back(list(self.roster.backlog))
        self._schedule()

    def slot_died(self, slot: Slot, fed: list[Work], death: Death) -> None:
        """A child is gone: report the task it died under; the others go elsewhere."""
        if fed and fed[0].is_process:
            self.processes.died(slot, fed[0], death)
        elif fed:
            if self._is_leaving:
                self._leases.forget(fed[0])
            else:
                self._outcomes.died(slot, fed[0], death)
            for work in fed[1:]:
                work.slot = None
            self.slot_returned(slot, fed[1:])
        self._output.forget(slot)
        self.shelf.give_back(slot.shipped)
        self.spool.remove_of(slot.pid)
        self.roster.died(slot)
        self._schedule()

    def _timed_out(self, slot: Slot, work: Work) -> None:
        # Where the loop was held up the timer comes first: perhaps it has ended long ago.
        slot.catch_up()
        if self._leases.holds(work) and slot.work is work:
            work.is_timed_out = True
            self._end(work)
