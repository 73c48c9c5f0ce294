"""The taker of a thread, and the connection of its own that a busy one has.

What its core awaits blocks the thread right where it stands, at no more cost
than a lock. See ``client.branches`` for when a branch is opened and closed.
"""

from _thread import allocate_lock
from collections.abc import Coroutine
from typing import Any, TypeVar

from multihost.client.branches import EVERY_CALLS, Branch
from multihost.client.taker import Begin, Decide, Line, Pending, Taker
from multihost.errors import MultihostError
from multihost.wire.act import AnyResult, Exchange

T = TypeVar("T")


class ThreadTaker(Taker):
    """The taker of a thread: waiting blocks it. KeyboardInterrupt and the like withdraw."""

    has_failed = False
    """Whether its thread is ending with an exception."""
    looked_at = 0.0
    """When it was last considered for a branch."""

    def __init__(self, line: Line, number: int) -> None:
        """As ``Taker``; without a branch at first."""
        super().__init__(line, number)
        self._branch: Branch | None = None
        self._is_over = False

    async def _perform(
        self,
        decide: Decide,
        wait_s: float | None,
        is_owed: bool,  # noqa: FBT001 - as in Pending
    ) -> Pending:
        door = allocate_lock()
        door.acquire()
        pending = Pending(self, decide, wait_s, door.release, is_owed)
        line = self.line
        try:
            if line.start_here(pending):
                return pending
            # While it is on its way; not later, when an interrupt would lose what it brings.
            if self._branch is None and pending.number and not pending.number % EVERY_CALLS:
                line.branches.consider(self, pending.began)
            door.acquire()
        except MultihostError:
            raise
        except BaseException:
            self.drop_branch(pending)
            self._disclaim(pending)
            raise
        if pending.error is not None:
            raise pending.error
        return pending

    # its branch ----------------------------------------------------------------------

    def enter_here(self, pending: Pending, registry: dict[int, Pending]) -> bool:
        """As ``enter``, on its own thread; a call whose turn it is has the branch, if any.

        A call under way there is handed to the session: this thread makes the new one out of a
        signal's handler, and comes to read the answer only when that is over.
        """
        with self._guard:
            if self.current is None:
                self._make_current(pending, registry)
                branch = self._branch
                if branch is not None and pending.act is not None:
                    pending.branch = branch
                    branch.used_at = pending.began
                return True
            self._behind.append(pending)
            interrupted = self.current
        if interrupted.branch is not None:
            self.cut_branch()
            self.line.resend(interrupted)
        return False

    @property
    def has_branch(self) -> bool:
        """Whether its next call is made on a branch."""
        return self._branch is not None

    def adopt(self, branch: Branch) -> bool:
        """From now on make calls on a branch; False: it has ended."""
        with self._guard:
            if not self._is_over:
                self._branch = branch
            return not self._is_over

    def answered_on_branch(
        self, pending: Pending, result: AnyResult, registry: dict[int, Pending]
    ) -> tuple[bool, Pending | None]:
        """The call was answered on its branch: whether that counts, and what is to be sent now.

        It does not when the branch was cut meanwhile: then the session goes on without it.
        """
        with self._guard:
            if self.current is not pending or self._branch is not pending.branch:
                return False, None
            return True, self._answered(pending, result, registry)

    def drop_branch(self, pending: Pending) -> None:
        """On its own thread: the branch that a call was made on is of no use any more."""
        branch = pending.branch
        if branch is None:
            return
        with self._guard:
            if self._branch is branch:
                self._branch = None
            pending.branch = None
            branch.link.close()
        self.line.branches.forget(self)

    def cut_branch(self, unused_since: float | None = None) -> None:
        """From any thread: end the branch; a call under way on it goes on without it.

        ``unused_since``: only if it has not been used for so long.
        """
        with self._guard:
            branch = self._branch
            if branch is None:
                return
            is_in_use = self.current is not None and self.current.branch is branch
            if unused_since is not None and (is_in_use or branch.used_at > unused_since):
                return
            self._branch = None
            if is_in_use:
                branch.link.interrupt()
            else:
                branch.link.close()
        self.line.branches.forget(self)

    def retire(self) -> None:
        """Its thread has ended, and its branch ends with it."""
        self._is_over = True
        self.cut_branch()

    def forget_branch(self) -> None:
        """In a forked child, where nothing else runs: the branch is the parent's."""
        branch, self._branch = self._branch, None
        if branch is not None:
            branch.link.forget()

    def _disclaim(self, pending: Pending) -> None:
        """What an interrupted call is granted, or was, is given back.

        It is not confirmed until then, and comes before whatever its thread does next: that may
        wait for the very lock.
        """
        line, act = self.line, None
        with self._guard:
            is_known = self.knows(pending)
            if is_known or pending.result is None:
                pending.is_abandoned = True
            elif pending.act is not None:
                act = self.undo(pending.act, pending.result)
                self.taking.kept.update(act.returns if isinstance(act, Exchange) else ())
        if is_known:
            line.post(lambda: line.abandon(pending))
        elif act is not None:
            self._do_soon(lambda: act)
        elif pending.is_owed and pending.result is None:
            line.line_up(pending)

    async def _wait_for(self, begin: Begin) -> Any:
        door = allocate_lock()
        door.acquire()
        results: list[Any] = []

        def then(result: Any) -> None:
            results.append(result)
            door.release()

        self.line.post(lambda: begin(then))
        door.acquire()
        return results[0]


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a core's coroutine whose taker is a thread's: it never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("a blocking call was made with a coroutine's taker")
