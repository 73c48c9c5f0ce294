"""Workers' sessions: leases go out, outcomes come in.

The store decides whether an outcome counts; this only carries it there and
tells the worker that it need not send it again.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from multihost.core.ids import index_of, job_of
from multihost.server.blobs import BlobTraffic
from multihost.server.dispatch import by_role, refusal_of
from multihost.server.gateway import Connection
from multihost.server.operation import Operation
from multihost.server.services import Services
from multihost.store.base import Reinstated, SessionInfo, Settlement, Store
from multihost.wire import message as m

SETTLED_S = 0.005
"""So long, and twice at most, an outcome's receipt waits for leases that go to its worker."""
TASKS_OF_WEIGHT = 20
"""Outcomes that take the loop as long as a usual operation."""
OUTPUT_BYTES = 256 << 10
"""What is kept of a task's output; of more, the oldest goes."""
INSTALLED_CHARS = 256 << 10
"""Of names and versions of a worker's packages; of one that says more nothing is kept."""


class WorkerPeer:
    """One worker's open session on one connection. Also what the hub calls a taker."""

    def __init__(self, services: Services, connection: Connection, enlist: m.Enlist) -> None:
        """Open the session, or take it over from an older connection."""
        self.services = services
        self.connection = connection
        self.session = 0
        self._handlers = _HANDLERS[connection.key.role]
        self.uid = enlist.session
        self.name = enlist.name
        self.host = enlist.host
        self.slots = enlist.slots
        self.room = 0
        self.held = 0
        self.queues = enlist.queues
        self.offer = enlist.offer
        self.is_elastic = enlist.is_elastic
        self.children: list[m.Child] = []
        self.installed: m.Installed | None = None
        self._blobs = BlobTraffic(services.blobs, connection.link)
        self._is_leaving = False
        self._is_closed = False
        self._is_draining = False
        self._settled: list[m.Held] = []
        """Outcomes that were recorded and whose receipt has not been sent."""
        self._is_receipt_due = False
        """Whether a timer runs that will see to them."""
        info = SessionInfo(
            enlist.session,
            m.Role.WORKER,
            name=enlist.name,
            host=enlist.host,
            pid=enlist.pid,
            slots=enlist.slots,
            queues=enlist.queues,
            offer=msgspec.msgpack.encode(enlist.offer),
            key=connection.key.id,
        )

        def run(store: Store, now: float) -> Reinstated | None:
            session = store.open_session(info, now)
            if session is None:
                return None
            self.session = session
            return store.reinstate(session, enlist.held, now)

        def done(reinstated: Reinstated | None) -> None:
            if reinstated is None:
                connection.refuse_session()
            else:
                self._welcome(enlist, reinstated)

        services.committer.submit(Operation(run, done))

    # SessionPeer ---------------------------------------------------------------------

    def received(self, messages: Sequence[Any]) -> None:
        """Serve the worker's messages in order; any of them renews its leases."""
        self.services.leases.renew(self.session, self.services.now())
        for message in messages:
            self._handlers[type(message)](self, message)

    def writable(self) -> None:
        """Back-pressure is over."""
        self._blobs.writable()

    def closed(self, reason: str) -> None:
        """The connection is gone: the leases go on for the grace, or end with a goodbye."""
        self._is_closed = True
        self._blobs.close()
        services = self.services
        services.hub.remove_taker(self)
        if services.worker_peers.get(self.session) is not self:
            return
        del services.worker_peers[self.session]
        self._await_return()

    def _await_return(self) -> None:
        services = self.services
        if self._is_leaving:
            services.end_worker(self.session)
        else:
            services.leases.disconnect(self.session, services.now())
            services.reaper_wake()

    # Taker ---------------------------------------------------------------------------

    def grant(self, message: m.Grants) -> None:
        """Have leases sent with the next ``flush``."""
        if self._settled:
            self._put_settled()
        self.connection.link.put(message)

    def revoke(self, leases: list[m.Held]) -> None:
        """Tell the worker that these leases are void."""
        self.connection.link.send(m.Revoked(leases))

    def flush(self) -> None:
        """Send what was granted now."""
        self.connection.link.flush()

    # the session -----------------------------------------------------------------------

    def _welcome(self, enlist: m.Enlist, reinstated: Reinstated) -> None:
        services = self.services
        # Leases that it never got take no slot of a pool any more.
        services.hub.let_go(None, self.session, reinstated.released)
        older = services.worker_peers.get(self.session)
        if self._is_closed and older is not None:
            return
        services.leases.renew(self.session, services.now())
        if self._is_closed:  # before it was known to be open
            self._await_return()
            return
        services.worker_peers[self.session] = self
        if older is not None and older is not self:
            older.connection.link.abort("the session goes on over a newer connection")
        self._take_over(set(enlist.held) - set(reinstated.stale), set(enlist.beside))
        self.connection.link.send(services.welcome(self.session))
        if reinstated.stale:
            self.connection.link.send(m.Revoked(reinstated.stale))
        services.hub.add_taker(self)
        if reinstated.released:
            services.committer.kick()

    def _take_over(self, held: set[m.Held], beside: set[int]) -> None:
        """Count what the worker still holds, processes apart from what takes a slot."""
        processes = [lease for lease in held if lease.task in beside]
        self.held = len(held) - len(processes)
        for lease in processes:
            self.services.hub.processes.leased(lease.task, lease.token, self.session)

    def _on_goodbye(self, _: m.Goodbye) -> None:
        self._is_leaving = True
        self.connection.link.close("goodbye")

    def _on_beat(self, message: m.Beat) -> None:
        self.connection.link.send(m.BeatBack(message.number))

    def _on_blob(self, message: m.PutBlob | m.GetBlob | m.FindBlob) -> None:
        self._blobs.received(message)

    def _on_want(self, message: m.Want) -> None:
        self.room = 0 if self._is_draining else message.room
        if self.room and self.services.hub.has_work_for(self):
            self.services.committer.kick()

    def _on_drain(self, _: m.Drain) -> None:
        self._is_draining = True
        self.room = 0
        self.offer = msgspec.structs.replace(self.offer, processes=0)
        self.services.hub.add_taker(self)

    # tasks -----------------------------------------------------------------------------

    def _on_finished(self, message: m.Finished) -> None:
        attempts = message.attempts
        chance = self.services.chance()
        let_go = self._let_go_once()

        def run(store: Store, now: float) -> Settlement:
            settlement = store.finish(self.session, attempts, now, chance)
            let_go(_without(settlement.stale, attempts))
            return settlement

        def done(settlement: Settlement) -> None:
            self.services.watchers.push(settlement.finals)
            self._settle_soon([m.Held(attempt.task, attempt.token) for attempt in attempts])

        self.services.committer.submit(
            Operation(run, done, weight=1 + len(attempts) // TASKS_OF_WEIGHT)
        )

    def _settle_soon(self, held: list[m.Held]) -> None:
        """Have the worker told that it may forget these; it only tidies up, and is not woken."""
        self._settled += held
        if not self._is_receipt_due:
            self._await_leases()

    def _await_leases(self) -> None:
        self._is_receipt_due = True
        asyncio.get_running_loop().call_later(SETTLED_S, self._no_lease_came, self._settled)

    def _no_lease_came(self, settled: list[m.Held]) -> None:
        self._is_receipt_due = False
        if settled is self._settled:
            self.send_settled()
        elif self._settled:  # some did, and others have ended since
            self._await_leases()

    def send_settled(self) -> None:
        """Tell the worker now which outcomes it may forget."""
        if self._settled:
            self._put_settled()
            self.connection.link.flush()

    def _put_settled(self) -> None:
        settled, self._settled = self._settled, []
        self.connection.link.put(m.Settled(settled))

    def _on_give_back(self, message: m.GiveBack) -> None:
        held = message.tasks
        let_go = self._let_go_once()

        def run(store: Store, now: float) -> None:
            # Not what was cancelled, or has failed otherwise, before this came: that is let go of.
            let_go(store.release(self.session, held, now))

        self.services.committer.submit(Operation(run, is_durable=False))

    def _let_go_once(self) -> Callable[[Sequence[m.Held | m.Attempt]], None]:
        """Has the hub count what left the worker, though it is said again.

        An operation runs again when its transaction was undone (a full store, a bug beside it),
        and what the worker has done with is so whatever becomes of the transaction.
        """
        is_counted = False

        def let_go(leases: Sequence[m.Held | m.Attempt]) -> None:
            nonlocal is_counted
            if not is_counted:
                is_counted = True
                self.services.hub.let_go(self, self.session, leases)

        return let_go

    def _on_output(self, message: m.Output) -> None:
        task, stream, data = message.task, message.stream, message.data

        def run(store: Store, _: float) -> bool:
            held = m.Held(task, message.token)
            return store.append_output(self.session, held, stream, data, OUTPUT_BYTES)

        def done(is_its: bool) -> None:  # noqa: FBT001 - the answer of the verb
            if is_its:
                self.services.watchers.printed(job_of(task), index_of(task), stream, data)

        self.services.committer.submit(Operation(run, done, is_durable=False))

    def _on_began(self, message: m.Began) -> None:
        process = self.services.hub.processes.began(message, self.session, self.host, self.name)
        if process is None:
            return
        for number in self.services.hub.processes.take_signals(message.task):
            self.connection.link.send(m.SignalTask(message.task, message.token, number))
        self.services.watchers.process_began(job_of(message.task), index_of(message.task), process)

    def _on_children(self, message: m.Children) -> None:
        self.children = message.children

    def _on_installed(self, message: m.Installed) -> None:
        if sum(map(len, [*message.packages, *message.packages.values()])) <= INSTALLED_CHARS:
            self.installed = message

    def _on_forbidden(self, message: m.Message) -> None:
        self.connection.link.send(refusal_of(message, self.connection.refuse(message)))

    _every_handler: dict[type, Callable[["WorkerPeer", Any], None]] = {
        m.Goodbye: _on_goodbye,
        m.Beat: _on_beat,
        m.PutBlob: _on_blob,
        m.GetBlob: _on_blob,
        m.FindBlob: _on_blob,
        m.Want: _on_want,
        m.Drain: _on_drain,
        m.Began: _on_began,
        m.Children: _on_children,
        m.Installed: _on_installed,
        m.Finished: _on_finished,
        m.GiveBack: _on_give_back,
        m.Output: _on_output,
    }


_HANDLERS = by_role(WorkerPeer._every_handler, WorkerPeer._on_forbidden)
"""Of each role of a key."""


def _without(stale: list[m.Held], attempts: Sequence[m.Attempt]) -> Sequence[m.Attempt]:
    """Attempts that were not let go of before: when they were cancelled, or told of already."""
    if not stale:
        return attempts
    gone = set(stale)
    return [each for each in attempts if m.Held(each.task, each.token) not in gone]
