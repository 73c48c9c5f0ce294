"""Ends what has gone silent, wakes what has become due, deletes what is past its time.

Three small services on one pattern: sleep until the next instant that
matters, or until woken; then hand an operation to the committer. An idle
server sleeps.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from multihost.core.lease import PAUSE_S
from multihost.errors import StoreFull
from multihost.runtime import clock
from multihost.server.blobs import BlobStore
from multihost.server.committer import Committer
from multihost.server.operation import Operation
from multihost.server.pace import Pace
from multihost.server.services import Services
from multihost.server.subscription import Watchers
from multihost.server.sweeper import sweep
from multihost.store.base import Promotion, Store
from multihost.wire.message import Blob

PRUNE_EVERY_S = 30.0
UNUSED_BLOBS = 500
"""Blobs deleted in one transaction."""
BLOB_GRACE_S = 600.0
"""A blob that nothing refers to yet may be about to be used."""


class Reaper:
    """Ends the sessions whose lease is over.

    If the server itself was stopped (suspended, starved, waiting for a disk),
    the silence was its own: every deadline moves by that time.
    """

    def __init__(self) -> None:
        """Begin with nothing to watch; ``services`` is set by whoever composes the server."""
        self.services: Services | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A deadline may have come nearer."""
        self._woken.set()

    async def run(self) -> None:
        """Watch the deadlines until cancelled."""
        assert self.services is not None
        services = self.services
        while True:
            await self._sleep(services)
            now = services.now()
            for session in services.leases.expired(now):
                peer = services.worker_peers.pop(session, None)
                if peer is not None:
                    peer.connection.link.abort(
                        f"nothing from the worker for {services.lease_s:g} s"
                    )
                services.lose_worker(session)
            for session in services.takers.expired(now):
                for client in list(services.client_peers.values()):
                    if client.session == session:
                        client.fell_silent()
                services.calls.release_session(session)
                services.miss_starter(session)
            for session in services.clients.expired(now):
                services.end_client(session)

    async def _sleep(self, services: Services) -> None:
        now = services.now()
        deadlines = [
            deadline for table in services.tables if (deadline := table.next_deadline()) is not None
        ]
        # A session that appears while nobody else is there has a whole lease. Otherwise it is
        # no longer than between two heartbeats, so that no pause is taken for sleep.
        most_s = services.heartbeat_s if deadlines else services.lease_s
        planned_s = max(0.0, min([deadline - now for deadline in deadlines] + [most_s]))
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), planned_s)
        late_s = services.now() - now - planned_s
        if late_s > PAUSE_S:
            # After a long one what they said meanwhile has still to be read, and maybe to be sent
            # again. Not after every short one: a busy server would wait for the dead for ever.
            late_s += services.heartbeat_s if late_s > services.heartbeat_s else 0.0
            for table in services.tables:
                table.extend(late_s)


class Promoter:
    """Wakes tasks whose time has come, and expires those whose time is over."""

    def __init__(self, committer: Committer, watchers: Watchers) -> None:
        """Look after the tasks of ``committer``'s store; tell ``watchers`` what expired."""
        self._committer = committer
        self._watchers = watchers
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None

    def look(self) -> None:
        """Set the timer by what the store says; called after each commit, so it must be cheap."""
        due = self._committer.store.wake_at
        if due == self._due:
            return
        self._due = due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            wait_s = max(0.0, due - clock.wall())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._promote)

    def stop(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _promote(self) -> None:
        self._timer = None
        self._due = None
        self._committer.submit(Operation(lambda store, now: store.promote(now), self._promoted))

    def _promoted(self, promotion: Promotion) -> None:
        self._watchers.push(promotion.finals)


class Pruner:
    """Deletes ended jobs past their retention, and blobs that nothing refers to."""

    def __init__(
        self, committer: Committer, blobs: BlobStore, keeps_blobs: Callable[[], bool]
    ) -> None:
        """Prune the store of ``committer``; no blobs while ``keeps_blobs`` says so."""
        self._committer = committer
        self._blobs = blobs
        self._keeps_blobs = keeps_blobs
        self._pace = Pace()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Somebody has deleted something and wants the room."""
        self._woken.set()

    async def run(self) -> None:
        """Prune now and then until cancelled; first what a server that was killed left behind."""
        await self._try(sweep(self._committer, self._blobs.files))
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), PRUNE_EVERY_S)
            self._woken.clear()
            await self._try(self.prune())

    async def _try(self, deleting: Coroutine[Any, Any, object]) -> None:
        """Delete what can be deleted; of what can't be there is another time."""
        try:
            await deleting
        except (StoreFull, OSError):
            # Deleting takes room in the log first; there may be some the next time, or
            # descriptors, or a disk that does not only read.
            pass
        except Exception as error:  # a bug; tasks need not stand still for it, but be it known
            trouble = {"message": "deleting what is over failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(trouble)

    async def prune(self) -> None:
        """Delete all that may go, a few rows at a time."""
        while await self._committer.ask(self._prune_some):
            pass
        while not self._keeps_blobs() and (
            gone := await self._committer.ask(_unused, is_durable=True)
        ):
            await self._blobs.files.delete([blob.digest for blob in gone])
        await self._blobs.files.prune()

    def _prune_some(self, store: Store, now: float) -> int:
        count = store.prune(now, self._pace.begin())
        self._pace.end()
        return count


def _unused(store: Store, now: float) -> list[Blob]:
    return store.unused_blobs(now - BLOB_GRACE_S, UNUSED_BLOBS)
