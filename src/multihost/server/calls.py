"""What takers ask of queues and synchronizers: done once, answered once.

A call is run in the committer's next transaction. If what it asks for is not
there yet, it is parked, in the order of arrival, and the transaction that
brings what it waits for does and answers it too; nothing here polls. A call
that comes again after a broken connection is not done again: the store has its
answer, or it goes on waiting in its place.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from multihost.core.ids import TAKER_BITS, session_of, taker_id
from multihost.errors import BadRequest
from multihost.server.acts import Acts, outdated
from multihost.server.committer import Committer
from multihost.server.operation import Operation
from multihost.server.pending import Pending, Reply
from multihost.store.base import Store
from multihost.wire.act import AnyAct, AnyResult, RejectCode, Rejected

LONGEST_WAIT_S = 1e7
"""Whoever is willing to wait for longer (four months) waits for ever."""

T = TypeVar("T")
Run = Callable[[Store, float], None]


class Calls:
    """The service that does the calls of all takers.

    Takers are named by their full number (``core.ids.taker_id``). A reply is called at most
    once, on the loop, when what the call did is kept; that of a taker that has ended is not.
    Takes part in the committer's transactions, whatever is in them.
    """

    def __init__(self, committer: Committer) -> None:
        """Serve the queues and synchronizers in the store of ``committer``."""
        self._committer = committer
        self._takers: dict[int, dict[int, int]] = {}
        """Number of the latest call, by taker, by session."""
        self._opened: dict[int, int] = {}
        """How many takers were opened here, by session."""
        self._pending: dict[int, Pending] = {}
        """The call of each taker that is not answered yet."""
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._answers: list[tuple[Pending, AnyResult | None]] = []
        """Calls that are over, to be answered when the disk has what they did."""
        self._is_touched = False
        """Whether this transaction has to do with calls."""
        self._loop = asyncio.get_running_loop()
        self._latest = (0, 0.0)
        """Who made the latest urgent call, and when."""
        self._acts = Acts(committer.store, self._pending.get)
        self.parking, self.synchronizers = self._acts.parking, self._acts.synchronizers
        committer.participants.append(self)

    # takers and their calls ----------------------------------------------------------------

    def open_taker(self, session: int) -> int:
        """Full number of a taker that ``session`` has not had since this server began."""
        index = self._opened[session] = self._opened.get(session, 0) + 1
        return taker_id(session, index)

    def call(
        self,
        taker: int,
        number: int,
        act: AnyAct,
        wait_s: float | None,
        reply: Reply,
        *,
        is_urgent: bool = False,
    ) -> None:
        """Do an act for a taker, waiting at most ``wait_s`` (None: as long as it takes).

        The number rises with each call of the taker; one that comes again takes the place
        of the first, whose reply is forgotten. ``is_urgent``: in a transaction of its own when
        there is none to join; never from within one.
        """
        if wait_s is not None and not wait_s < LONGEST_WAIT_S:
            wait_s = None
        takers = self._takers.get(taker >> TAKER_BITS)
        if takers is None:
            takers = self._takers[taker >> TAKER_BITS] = {}
        known = takers.get(taker)
        before = self._pending.get(taker)
        if before is not None:
            if before.number == number:
                self._come_again(before, wait_s, reply)
                return
            if before.number > number:
                reply(outdated(number, before.number))
                return
            self._detach(taker)
            self._submit(partial(self._acts.abandon, before))
        is_fresh = known is not None and number > known
        pending = Pending(taker, number, act, wait_s, reply, is_fresh, self)
        self._pending[taker] = pending
        takers[taker] = number if is_fresh else max(number, known or 0)
        if is_urgent and self._is_alone(taker):
            self._committer.submit_now(pending)
        else:
            self._committer.submit(pending)

    def _come_again(self, pending: Pending, wait_s: float | None, reply: Reply) -> None:
        """A call that is not answered has been sent once more."""
        pending.reply, pending.wait_s, pending.is_fresh = reply, wait_s, False
        self._stop_timer(pending.taker)
        # Another operation: it may be on its way into a transaction already.
        self._submit(partial(self._acts.run, pending), pending.refused, pending.failed)

    def _is_alone(self, taker: int) -> bool:
        """Whether nobody else calls at this time: several are done in one transaction.

        The loop's clock counts milliseconds and stands still within a turn.
        """
        (latest, then), now = self._latest, self._loop.time()
        self._latest = (taker, now)
        return latest == taker or then != now

    def is_next(self, taker: int, number: int) -> bool:
        """Whether it is a taker's that is known here, and later than all of its calls."""
        takers = self._takers.get(taker >> TAKER_BITS)
        known = None if takers is None else takers.get(taker)
        return known is not None and number > known

    def withdraw(self, taker: int, number: int) -> None:
        """Answer a call now, as if its time were over; nothing if it is answered."""
        pending = self._pending.get(taker)
        if pending is not None and pending.number == number:
            self._expire_soon(pending)

    def end_taker(self, taker: int, *, is_clean: bool = True) -> None:
        """The taker is no more: what it holds goes to others; what it waits for is not answered.

        Clean: it ended in good order, and as in the standard library what it took from
        semaphores stays taken. Not clean: that is given back too.
        """
        self._takers.get(session_of(taker), {}).pop(taker, None)
        pending = self._detach(taker)

        def run(store: Store, now: float) -> None:
            self._acts.end(store, now, [taker], [pending], is_clean=is_clean)
            self._acts.lose_taker(store, now, taker)

        self._submit(run)

    # sessions ------------------------------------------------------------------------------

    def disconnected(self, session: int) -> None:
        """A session's connection broke: nothing is handed to it until it calls again."""

        def run(store: Store, now: float) -> None:
            for taker in self._takers.get(session, ()):
                pending = self._pending.get(taker)
                if pending is not None:
                    self._acts.step_aside(store, now, pending)

        if self._takers.get(session):
            self._submit(run)

    def release_session(self, session: int, *, is_clean: bool = False) -> None:
        """A session was away for too long: what its takers hold goes to others.

        Answers are kept: if it comes back after all, its calls are still done once.
        """
        takers = self._takers.pop(session, {})
        pendings = [self._detach(taker) for taker in takers]

        def run(store: Store, now: float) -> None:
            everyone = {*takers, *self.synchronizers.takers_of(session)}
            self._acts.end(store, now, everyone, pendings, is_clean=is_clean)
            self._acts.lose_takers(store, now, session)

        self._submit(run)

    def end_session(self, session: int, *, is_clean: bool = False) -> None:
        """A session is no more, with all its takers and all that lived with it."""
        self.release_session(session, is_clean=is_clean)
        self._opened.pop(session, None)

        self._submit(lambda store, _: self._acts.drop_session(store, session))

    async def do(self, run: Callable[[Acts, Store], T]) -> T:
        """Do something that no taker asked for; it is kept when this returns."""

        def within(store: Store, _: float) -> T | Exception:
            self._is_touched = True
            try:
                return run(self._acts, store)
            except BadRequest as error:  # nothing was done
                return error

        done = await self._committer.ask(within, is_durable=True, waits_for_room=True)
        if isinstance(done, BadRequest):
            raise done
        result: T = done
        return result

    # transactions --------------------------------------------------------------------------

    def finish(self, store: Store) -> None:
        """Save what has changed, once a transaction."""
        if self._is_touched:
            self._acts.save(store)

    def published(self) -> None:
        """The transaction is written: answer takes, for which that is enough.

        If the power fails before the disk has it, a take is undone with what it confirmed and
        put: the item that was made from waits again, what was made of it never was.
        """
        if not self._is_touched:
            return
        self._is_touched = False
        acts = self._acts
        overs, parked = acts.overs, acts.parked
        acts.keep()
        for pending in parked:
            if pending.wait_s is not None and not pending.is_over:
                self._time(pending, pending.wait_s)
        for pending, result in overs:
            if pending.is_early:
                self._close(pending, result)
            else:
                self._answers.append((pending, result))

    def committed(self) -> None:
        """What was published is kept: answer."""
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        for pending, result in answers:
            self._close(pending, result)

    def rolled_back(self) -> None:
        """The transaction did not happen."""
        self._is_touched = False
        self._acts.undo()

    # running calls -------------------------------------------------------------------------

    def run(self, pending: Pending, store: Store, now: float) -> None:
        """Do a call that has just come."""
        self._begin()
        self._acts.run(pending, store, now)
        self._end(pending)

    def refuse(self, pending: Pending, text: str) -> None:
        """The store has no room for a call, unless it has done it before."""
        if not (pending.is_fresh or pending.is_over or self.parking.holds(pending)):
            answer = self._acts.recall(self._committer.store, pending)
            if answer is not None:
                pending.is_over = True
                self._close(pending, answer)
                return
            if pending.rest not in (None, pending.act):  # only its take is left
                self._submit(partial(self._acts.run, pending), None, pending.failed)
                return
        self._refuse(pending, RejectCode.STORE_FULL, text)

    def fail(self, pending: Pending, error: Exception) -> None:
        """A call can't be done."""
        text = f"the server can't do this: {type(error).__name__}: {error}"
        self._refuse(pending, RejectCode.BAD_REQUEST, text)

    def _submit(
        self,
        run: Run,
        refused: Callable[[str], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run something in the next transaction; it waits for the disk if it must last."""

        def run_it(store: Store, now: float) -> None:
            self._begin()
            run(store, now)
            self._end(operation)

        operation = Operation(run_it, None, True, refused, failed)
        self._committer.submit(operation)

    def _begin(self) -> None:
        self._is_touched = True
        self._acts.must_last, self._acts.is_told = False, True

    def _end(self, operation: Operation | Pending) -> None:
        """Have the committer know for whom what was done has to be on the disk."""
        operation.is_durable, operation.is_told = self._acts.must_last, self._acts.is_told

    def _expire_soon(self, pending: Pending) -> None:
        self._submit(partial(self._acts.expire, pending))

    def _detach(self, taker: int) -> Pending | None:
        """A taker's call is to be forgotten; if it comes again, it is another one."""
        if taker in self._timers:
            self._stop_timer(taker)
        return self._pending.pop(taker, None)

    def _stop_timer(self, taker: int) -> None:
        timer = self._timers.pop(taker, None)
        if timer is not None:
            timer.cancel()

    # answers -------------------------------------------------------------------------------

    def _close(self, pending: Pending, result: AnyResult | None) -> None:
        """A call is over, for good."""
        if self._pending.get(pending.taker) is pending:
            self._detach(pending.taker)
        if result is not None:
            pending.reply(result)

    def _time(self, pending: Pending, wait_s: float) -> None:
        self._stop_timer(pending.taker)
        self._timers[pending.taker] = asyncio.get_running_loop().call_later(
            max(0.0, wait_s), self._expire_soon, pending
        )

    def _refuse(self, pending: Pending, code: RejectCode, text: str) -> None:
        """The transaction of a call was undone, and it is not tried again."""
        if pending.is_over:
            return
        if self.parking.holds(pending):
            # It came again, and waits already.
            if pending.wait_s is not None:
                self._time(pending, pending.wait_s)
            return
        pending.is_over = True
        self._close(pending, Rejected(code, text))
