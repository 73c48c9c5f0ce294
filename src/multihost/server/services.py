"""What the parts of a server share: who is connected, and what ends with whom."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import multihost
from multihost.core.lease import HEARTBEAT_S, LEASE_S, LeaseTable
from multihost.core.resources import Requirement
from multihost.runtime import clock
from multihost.server.blobs import BlobStore
from multihost.server.calls import Calls
from multihost.server.committer import Committer
from multihost.server.hub import Hub
from multihost.server.operation import Operation
from multihost.store.base import Cancelled, Settlement
from multihost.wire import message as m

if TYPE_CHECKING:
    from multihost.server.clients import ClientPeer
    from multihost.server.subscription import Watchers
    from multihost.server.workers import WorkerPeer

CLIENT_SILENCE_S = 330.0
"""A client silent for so long is not coming back: its transient jobs are cancelled. It goes on
trying for five minutes itself: a cut link costs it nothing."""
CLIENT_GRACE_S = 30.0
"""The same when its connection was closed: it has most likely been killed."""
TAKER_GRACE_S = 3.0
"""After so long without a connection, what a client's takers hold goes to others."""
RESTART_GRACE_S = 5.0
"""As above, for clients that were there when the server stopped."""

# Its own, so that a program that embeds a server and seeds Python's gets what it expects.
_chance = random.Random()  # noqa: S311 - spreads retries, nothing secret


@dataclass(slots=True)
class Services:
    """The server's parts, as sessions see them."""

    committer: Committer
    hub: Hub
    blobs: BlobStore
    calls: Calls
    watchers: "Watchers"
    reaper_wake: Callable[[], None]
    leases: LeaseTable = field(default_factory=LeaseTable)
    clients: LeaseTable = field(
        default_factory=lambda: LeaseTable(CLIENT_SILENCE_S, CLIENT_GRACE_S)
    )
    takers: LeaseTable = field(default_factory=lambda: LeaseTable(grace_s=TAKER_GRACE_S))
    """When the takers of a client's session lose what they hold."""
    client_peers: dict[bytes, "ClientPeer"] = field(default_factory=dict)
    worker_peers: dict[int, "WorkerPeer"] = field(default_factory=dict)
    heartbeat_s: float = HEARTBEAT_S
    lease_s: float = LEASE_S
    paused: frozenset[str] = frozenset()

    @property
    def tables(self) -> tuple[LeaseTable, ...]:
        """Every table of deadlines that the reaper watches."""
        return self.leases, self.takers, self.clients

    def now(self) -> float:
        """The clock of leases."""
        return clock.mono()

    def chance(self) -> float:
        """A random number in [0, 1) for jitter."""
        return _chance.random()

    def welcome(self, session: int, ticket: bytes = b"") -> m.Welcome:
        """The message that opens a session, to be branched with ``ticket``."""
        return m.Welcome(
            session,
            self.committer.store.uid,
            f"multihost {multihost.__version__}",
            self.heartbeat_s,
            self.lease_s,
            ticket=ticket,
        )

    def why_waiting(self, queue: str, requires: Requirement) -> str:
        """Why tasks of a kind are not run; empty when they can be."""
        return self.hub.why_waiting(queue, requires, self.paused)

    def resize(self, slots: int) -> None:
        """Ask elastic workers for at least so many slots."""
        for peer in self.worker_peers.values():
            if peer.is_elastic and peer.slots < slots:
                peer.slots = slots
                peer.connection.link.send(m.SetSlots(slots))

    def cancelled(self, result: Cancelled) -> None:
        """Tell workers what to stop, and clients what has ended."""
        revoked: dict[int, list[m.Held]] = {}
        for session, task, token in result.stopped:
            revoked.setdefault(session, []).append(m.Held(task, token))
        for session, held in revoked.items():
            peer = self.worker_peers.get(session)
            self.hub.let_go(peer, session, held)
            if peer is not None:
                peer.connection.link.send(m.Revoked(held))
        self.watchers.push(result.finals)

    def settled(self, result: Settlement) -> None:
        """Tell clients what has ended."""
        self.watchers.push(result.finals)

    def end_client(self, session: int, *, is_clean: bool = False) -> None:
        """A client is gone for good: cancel and drop what lived with it.

        Clean: it said goodbye, so that nothing of it has died.
        """
        self.clients.end(session)
        self.takers.end(session)
        self.calls.end_session(session, is_clean=is_clean)
        self.committer.submit(
            Operation(lambda store, now: store.disown(session, now), self.cancelled)
        )
        self.committer.submit(Operation(lambda store, now: store.close_session(session, now)))

    def miss_starter(self, session: int) -> None:
        """A client has not come back in time: the processes that it started are told."""
        for task, process in self.hub.processes.started_by(session):
            worker = self.worker_peers.get(process.session)
            if worker is not None:
                held = m.Held(task, process.token)
                worker.connection.link.send(m.StarterGone([held]))

    def end_worker(self, session: int) -> None:
        """A worker left in good order: what it still held goes back, no fault counted."""
        self.leases.end(session)
        self.hub.forget_session(session)
        self.committer.submit(Operation(lambda store, now: store.reinstate(session, (), now)))
        self.committer.submit(Operation(lambda store, now: store.close_session(session, now)))

    def lose_worker(self, session: int) -> None:
        """A worker vanished: what it held runs elsewhere."""
        self.leases.end(session)
        self.hub.forget_session(session)
        self.committer.submit(Operation(lambda store, now: store.lose(session, now), self.settled))
        self.committer.submit(Operation(lambda store, now: store.close_session(session, now)))
