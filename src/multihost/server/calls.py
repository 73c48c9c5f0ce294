"""What takers ask of queues and synchronizers: done once, answered once.

A call is run in the committer's next transaction. If what it asks for is not
there yet, it is parked, in the order of arrival, and the transaction that
brings what it waits for does and answers it too; nothing here polls. A call
that comes again after a broken connection is not done again: the store has its
answer, or it goes on waiting in its place.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection
from functools import partial

import msgspec

from multihost.core.ids import first_token, session_of, taker_id
from multihost.server.committer import Committer, Operation
from multihost.server.parking import Parking, Pending, Reply, missing
from multihost.server.states import conflict, encode_state, first_state
from multihost.server.synchronizers import SYNCHRONIZER_ACTS, Synchronizers
from multihost.store.base import Store, SynchronizerRow
from multihost.wire import act as a
from multihost.wire.act import (
    AnyAct,
    AnyResult,
    Exchange,
    Exchanged,
    ExchangeEnd,
    RejectCode,
    Rejected,
)

LONGEST_WAIT_S = 1e7
"""Whoever is willing to wait for longer (four months) waits for ever."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyResult).decode
_TIMED_OUT = a.Done(False)

Run = Callable[[Store, float], None]

_NOTED = (
    a.Acquire,
    a.Release,
    a.Notify,
    a.SetEvent,
    a.PassBarrier,
    a.ResetBarrier,
    a.WriteValue,
)
"""Acts on synchronizers that must not be done twice."""
_GROWS = (a.OpenQueue, a.OpenSynchronizer, a.WriteValue)
"""Acts that a full store refuses; the others make room, or are tried again."""


class Calls:
    """The service that does the calls of all takers.

    Takers are named by their full number (``core.ids.taker_id``). A reply is called at most
    once, on the loop, after the commit that did the call; a taker's that has ended is not.
    Takes part in the committer's transactions, whatever is in them.
    """

    def __init__(self, committer: Committer) -> None:
        """Serve the queues and synchronizers in the store of ``committer``."""
        self._committer = committer
        tokens = itertools.count(first_token(committer.store.epoch) + 1)
        self.synchronizers = Synchronizers(tokens.__next__)
        self.parking = Parking(self._over, self._note)
        self._takers: dict[int, dict[int, int]] = {}
        """Number of the latest call, by taker, by session."""
        self._opened: dict[int, int] = {}
        """How many takers were opened here, by session."""
        self._pending: dict[int, Pending] = {}
        """The call of each taker that is not answered yet."""
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._overs: list[tuple[Pending, AnyResult | None]] = []
        """Calls that are over if this transaction is kept; None: without an answer."""
        self._answers: list[tuple[Pending, AnyResult | None]] = []
        """Calls that are over, to be answered when the disk has what they did."""
        self._parked: list[Pending] = []
        """Calls that wait since this transaction."""
        self._changes: list[tuple[int, bytes]] = []
        self._is_touched = False
        """Whether this transaction has to do with calls."""
        self._must_last = False
        """Whether the operation under way did what an answer, now or later, relies on."""
        for row in committer.store.synchronizers():
            self.synchronizers.load(row.number, row.kind, row.state)
        committer.participants.append(self)

    # takers and their calls ----------------------------------------------------------------

    def open_taker(self, session: int) -> int:
        """Full number of a taker that ``session`` has not had since this server began."""
        index = self._opened[session] = self._opened.get(session, 0) + 1
        return taker_id(session, index)

    def call(
        self, taker: int, number: int, act: AnyAct, wait_s: float | None, reply: Reply
    ) -> None:
        """Do an act for a taker, waiting at most ``wait_s`` (None: as long as it takes).

        The number rises with each call of the taker; one that comes again takes the place
        of the first, whose reply is forgotten.
        """
        if wait_s is not None and not wait_s < LONGEST_WAIT_S:
            wait_s = None
        takers = self._takers.setdefault(session_of(taker), {})
        known = takers.get(taker)
        pending = self._pending.get(taker)
        if pending is not None and pending.number == number:
            pending.reply, pending.wait_s, pending.is_fresh = reply, wait_s, False
            self._stop_timer(taker)
        elif pending is not None and pending.number > number:
            reply(_outdated(number, pending.number))
            return
        else:
            if pending is not None:
                self._detach(taker)
                self._submit(partial(self._abandon, pending))
            is_fresh = known is not None and number > known
            pending = self._pending[taker] = Pending(taker, number, act, wait_s, reply, is_fresh)
        takers[taker] = max(number, known or 0)
        self._submit_call(pending)

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
            self._end(store, now, [taker], [pending], is_clean=is_clean)
            for queue in store.lose_taker(taker):
                self.parking.look(store, now, queue)

        self._submit(run)

    # sessions ------------------------------------------------------------------------------

    def disconnected(self, session: int) -> None:
        """A session's connection broke: nothing is handed to it until it calls again."""

        def run(store: Store, now: float) -> None:
            for taker in self._takers.get(session, ()):
                pending = self._pending.get(taker)
                if pending is not None and not pending.is_over:
                    self.parking.leave(store, now, pending)
                    self.synchronizers.step_aside(taker)

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
            self._end(store, now, everyone, pendings, is_clean=is_clean)
            rows = store.takers(session)
            queues = store.lose_takers(session)
            for row in rows:
                store.note_answer(row.taker, row.number, row.answer)
            for queue in queues:
                self.parking.look(store, now, queue)

        self._submit(run)

    def end_session(self, session: int, *, is_clean: bool = False) -> None:
        """A session is no more, with all its takers and all that lived with it."""
        self.release_session(session, is_clean=is_clean)
        self._opened.pop(session, None)

        def run(store: Store, _: float) -> None:
            store.lose_takers(session)
            queues, synchronizers = store.drop_transients(session)
            for queue in queues:
                self.parking.drop(queue)
            for synchronizer in synchronizers:
                self.synchronizers.drop(synchronizer)
            self._tell_woken(store)

        self._submit(run)

    # transactions --------------------------------------------------------------------------

    def finish(self, store: Store) -> None:
        """Save what has changed, once a transaction."""
        if not self._is_touched:
            return
        self._changes = self.synchronizers.changes()
        for number, state in self._changes:
            store.save_synchronizer(number, state)

    def published(self) -> None:
        """The transaction is written: answer takes, for which that is enough.

        If the power fails before the disk has it, a take is undone with what it confirmed and
        put: the item that was made from waits again, what was made of it never was.
        """
        if not self._is_touched:
            return
        self._is_touched = False
        self.synchronizers.keep(self._changes)
        self.parking.keep()
        overs, self._overs = self._overs, []
        parked, self._parked = self._parked, []
        for pending in parked:
            if pending.wait_s is not None and not pending.is_over:
                self._time(pending, pending.wait_s)
        for pending, result in overs:
            if self._is_told(pending, result):
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
        self.synchronizers.undo()
        self.parking.undo()
        for pending, _ in self._overs:
            pending.is_over = False
        self._overs.clear()
        self._parked.clear()

    # running calls -------------------------------------------------------------------------

    def _submit(
        self,
        run: Run,
        refused: Callable[[str], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run something in the next transaction; it waits for the disk if it must last."""
        operation = Operation(run, refused=refused, failed=failed)

        def tell(store: Store, now: float) -> None:
            self._is_touched = True
            self._must_last = False
            answered = len(self._overs)
            run(store, now)
            operation.is_durable = self._must_last
            operation.is_told = all(
                self._is_told(pending, result) for pending, result in self._overs[answered:]
            )

        operation.run = tell
        self._committer.submit(operation)

    def _submit_call(self, pending: Pending) -> None:
        refused = None
        act = pending.act
        if isinstance(act, _GROWS) or (isinstance(act, Exchange) and act.puts):
            refused = partial(self._refuse, pending, RejectCode.STORE_FULL)
        self._submit(partial(self._run, pending), refused, partial(self._fail, pending))

    def _run(self, pending: Pending, store: Store, now: float) -> None:
        """Do a call, as far as it can be done now."""
        if pending.is_over:
            return
        place = self.synchronizers.place(pending.taker)
        if place is not None and place[1] != pending.number:
            self.synchronizers.give_up(pending.taker)
            self._tell_woken(store)
        answer = None if pending.is_fresh else self._recall(store, pending)
        if answer is not None:
            self._over(pending, answer)
            return
        _VERBS[type(pending.act)](self, store, now, pending)
        if pending.is_over:
            return
        if pending.wait_s is not None and pending.wait_s <= 0:
            self._expire(pending, store, now)
        self._parked.append(pending)

    def _recall(self, store: Store, pending: Pending) -> AnyResult | None:
        """Answer of a call that was done before, if it was; then no more than its take is left."""
        row = store.taker(pending.taker)
        if row is not None and row.number > pending.number:
            return _outdated(pending.number, row.number)
        answer: AnyResult | None = None
        if row is not None and row.number == pending.number:
            answer = _decode(row.answer)
        act = pending.act
        if not isinstance(act, Exchange) or act.take is None:
            return answer
        if isinstance(answer, Exchanged) and answer.items:
            return answer
        items = store.taken(pending.taker, pending.number)
        if items:
            return Exchanged(ExchangeEnd.OK, items)
        if answer is not None:
            pending.rest = Exchange(take=act.take, limit=act.limit)
        return None

    def _expire(self, pending: Pending, store: Store, now: float) -> None:
        """A call's time is over."""
        if pending.is_over:
            return
        result = self.parking.leave(store, now, pending)
        if result is not None:
            self._over(pending, result)
            return
        self.synchronizers.expire(pending.taker, pending.number)
        self._tell_woken(store)

    def _expire_soon(self, pending: Pending) -> None:
        self._submit(partial(self._expire, pending))

    def _abandon(self, pending: Pending, store: Store, now: float) -> None:
        """A call's taker has gone on to its next, or is no more: nobody wants an answer."""
        if pending.is_over:
            return
        self.parking.leave(store, now, pending)
        self.synchronizers.give_up(pending.taker)
        self._tell_woken(store)
        self._over(pending, None)

    def _end(
        self,
        store: Store,
        now: float,
        takers: Collection[int],
        pendings: Collection[Pending | None],
        *,
        is_clean: bool,
    ) -> None:
        """Takers are no more, and nobody wants answers to their calls."""
        for pending in pendings:
            if pending is not None and not pending.is_over:
                self.parking.leave(store, now, pending)
                self._over(pending, None)
        self.synchronizers.end(takers, is_clean=is_clean)
        self._tell_woken(store)

    def _detach(self, taker: int) -> Pending | None:
        """A taker's call is to be forgotten; if it comes again, it is another one."""
        self._stop_timer(taker)
        return self._pending.pop(taker, None)

    def _stop_timer(self, taker: int) -> None:
        timer = self._timers.pop(taker, None)
        if timer is not None:
            timer.cancel()

    # answers -------------------------------------------------------------------------------

    def _over(self, pending: Pending, result: AnyResult | None) -> None:
        pending.is_over = True
        self._overs.append((pending, result))

    def _note(self, store: Store, taker: int, number: int, result: AnyResult) -> None:
        """Keep an answer, so that its call is not done twice."""
        self._must_last = True
        store.note_answer(taker, number, _encode(result))

    def _tell_woken(self, store: Store) -> None:
        """Answer those who waited for a synchronizer."""
        woken, self.synchronizers.woken = self.synchronizers.woken, []
        for taker, number, result in woken:
            if result != _TIMED_OUT:
                self._note(store, taker, number, result)
            pending = self._pending.get(taker)
            if pending is not None and pending.number == number and not pending.is_over:
                self._over(pending, result)

    def _is_told(self, pending: Pending, result: AnyResult | None) -> bool:
        """Whether a call need not wait for the disk: nobody asks, or what it gets is leased."""
        act = pending.act
        if result is None:
            return True
        return (
            isinstance(act, Exchange)
            and act.take is not None
            and not (
                isinstance(result, Exchanged)
                and result.items
                and self.parking.is_lossy(self._committer.store, act.take)
            )
        )

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

    def _fail(self, pending: Pending, error: Exception) -> None:
        text = f"the server can't do this: {type(error).__name__}: {error}"
        self._refuse(pending, RejectCode.BAD_REQUEST, text)

    # acts ----------------------------------------------------------------------------------

    def _open_queue(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.OpenQueue)
        if not act.name or act.limit < 0:
            text = f"a queue has a name and a limit of 0 (none) or more, not {act.limit}"
            self._over(pending, Rejected(RejectCode.BAD_REQUEST, text))
            return
        owner = session_of(pending.taker) if act.is_transient else None
        row, is_new = store.open_item_queue(act.name, act.limit, act.confirm, owner)
        self._must_last |= is_new
        self._over(pending, a.QueueOpened(row.number, row.limit, row.confirm, is_new))

    def _drop_queue(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.DropQueue)
        store.drop_item_queue(act.queue)
        self.parking.drop(act.queue)
        self._must_last = True
        self._over(pending, a.Done())

    def _close_queue(self, store: Store, now: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.CloseQueue)
        if store.item_queue(act.queue) is None:
            self._over(pending, missing(act.queue))
            return
        store.close_item_queue(act.queue)
        self.parking.look(store, now, act.queue)
        self._must_last = True
        self._over(pending, a.Done())

    def _exchange(self, store: Store, now: float, pending: Pending) -> None:
        self.parking.exchange(store, now, pending)

    def _join_queue(self, store: Store, _: float, pending: Pending) -> None:
        self.parking.join(store, pending)

    def _measure_queue(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.MeasureQueue)
        row = store.item_queue(act.queue)
        if row is None:
            self._over(pending, missing(act.queue))
        else:
            numbers = [row.waiting, row.held, row.unfinished, row.limit]
            self._over(pending, a.Measured(numbers))

    def _open_synchronizer(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.OpenSynchronizer)
        state = first_state(act)
        if isinstance(state, Rejected):
            self._over(pending, state)
            return
        owner = session_of(pending.taker) if act.is_transient else None
        data = encode_state(state)
        row, is_new = store.open_synchronizer(act.kind, act.name, owner, data)
        if is_new:
            self._must_last = True
            self.synchronizers.add(row.number, act.kind, data)
        self._over(pending, self._found(act, row, is_new=is_new))

    def _found(self, act: a.OpenSynchronizer, row: SynchronizerRow, *, is_new: bool) -> AnyResult:
        """Answer for a synchronizer that is new, or was found."""
        state = self.synchronizers.state(row.number)
        assert state is not None
        if row.kind is not act.kind:
            text = f"{act.name!r} is a {row.kind.name}, not a {act.kind.name}: choose another name"
            return Rejected(RejectCode.CONFLICT, text)
        difference = conflict(act, state)
        if difference:
            return Rejected(RejectCode.CONFLICT, f"{act.name!r} exists: {difference}")
        return a.SynchronizerOpened(row.number, is_new)

    def _drop_synchronizer(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.DropSynchronizer)
        store.drop_synchronizer(act.synchronizer)
        self.synchronizers.drop(act.synchronizer)
        self._tell_woken(store)
        self._must_last = True
        self._over(pending, a.Done())

    def _synchronize(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        result = self.synchronizers.act(pending.taker, pending.number, act)
        self._tell_woken(store)
        if result is not None:
            if isinstance(act, _NOTED) and not isinstance(result, Rejected):
                self._note(store, pending.taker, pending.number, result)
            self._over(pending, result)


_VERBS: dict[type, Callable[[Calls, Store, float, Pending], None]] = {
    a.OpenQueue: Calls._open_queue,
    a.DropQueue: Calls._drop_queue,
    a.CloseQueue: Calls._close_queue,
    a.Exchange: Calls._exchange,
    a.JoinQueue: Calls._join_queue,
    a.MeasureQueue: Calls._measure_queue,
    a.OpenSynchronizer: Calls._open_synchronizer,
    a.DropSynchronizer: Calls._drop_synchronizer,
    **dict.fromkeys(SYNCHRONIZER_ACTS, Calls._synchronize),
}


def _outdated(number: int, later: int) -> Rejected:
    text = f"call {number} came after call {later} of the same taker; numbers have to rise"
    return Rejected(RejectCode.BAD_REQUEST, text)
