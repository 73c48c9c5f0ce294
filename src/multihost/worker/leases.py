"""The leases that a worker holds, and when it has to let go of them."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from multihost.core import lease
from multihost.runtime import clock
from multihost.wire import message as m
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.work import Work


class Renewer(Protocol):
    """The connection, as far as it renews leases."""

    renewed_at: float
    welcome: m.Welcome | None

    def drop(self, reason: str) -> None:
        """Connect anew."""
        ...


class Leases:
    """Works that wait, run, or have a result on its way as a blob.

    Invariant: a work is here from its grant until it is forgotten: its outcome was taken
    down, or it was given back. None that somebody else may hold by now is run on.
    """

    def __init__(
        self,
        renewer: Renewer,
        blobs: WorkerBlobs,
        *,
        stop: Callable[[Work], None],
        withdraw: Callable[[Work], None],
    ) -> None:
        """``stop`` ends a work that a child has, ``withdraw`` takes back one that none has yet."""
        self.works: dict[int, Work] = {}
        """By their tasks; those among them that were revoked."""
        self._renewer = renewer
        self._blobs = blobs
        self._stop = stop
        self._withdraw = withdraw
        self._loop = asyncio.get_running_loop()
        self._fence: asyncio.TimerHandle | None = None
        """Set while there is a lease that could be lost."""
        self._is_closed = False

    @property
    def kept(self) -> list[Work]:
        """All but those that were revoked."""
        return [work for work in self.works.values() if not work.is_revoked]

    # one of them -------------------------------------------------------------------------

    def holds(self, work: Work) -> bool:
        """Whether it was not forgotten, nor granted anew."""
        return self.works.get(work.grant.task) is work

    def find(self, task: int, token: int) -> Work | None:
        """The work under this very lease."""
        work = self.works.get(task)
        return work if work is not None and work.grant.token == token else None

    def forget(self, work: Work) -> None:
        """It has ended, or somebody else may have it."""
        if self.works.get(work.grant.task) is work:
            del self.works[work.grant.task]
        if work.timer is not None:
            work.timer.cancel()
        if work.copies:
            copies, work.copies = work.copies, ()
            self._blobs.release(copies)
        if work.slot is None:
            self._withdraw(work)

    def revoke(self, held: m.Held) -> None:
        """The server does not want it any more: stop it, if it has begun."""
        work = self.find(held.task, held.token)
        if work is None:
            return
        work.is_revoked = True
        if work.slot is None:
            self.forget(work)
        else:
            self._stop(work)

    # all of them -------------------------------------------------------------------------

    def watch(self) -> None:
        """See to it that they are stopped in time; called when there are new ones."""
        if self._fence is None:
            self.check()

    def check(self) -> None:
        """Stop them in time if they were not renewed: a dead line looks like a quiet one."""
        if self._fence is not None:
            self._fence.cancel()
            self._fence = None
        if self._is_closed or all(work.is_lapsed for work in self.kept):
            return
        welcome = self._renewer.welcome
        lease_s = welcome.lease_s if welcome is not None else lease.LEASE_S
        left_s = lease.must_stop_at(self._renewer.renewed_at, lease_s) - clock.mono()
        if left_s > 0:
            self._fence = self._loop.call_later(left_s, self.check)
            return
        self._let_lapse()
        self._renewer.drop("the lease could not be renewed")

    def _let_lapse(self) -> None:
        """The server may soon hand our tasks to others: stop them, forget them.

        But for processes that have begun, which it hands to nobody: how they end is told when it
        is there again. Did it not hear of them, it would take them for some that never came here.
        """
        for work in self.kept:
            if not (work.is_process and work.slot is not None):
                self.revoke(work.held)
            elif not work.is_lapsed:
                work.is_lapsed = True
                self._stop(work)

    def lose(self) -> None:
        """Nobody will want to hear of them any more: stop them, forget them."""
        for work in self.kept:
            self.revoke(work.held)

    def close(self) -> None:
        """The worker leaves: nothing is to be stopped any more."""
        self._is_closed = True
        if self._fence is not None:
            self._fence.cancel()
            self._fence = None
