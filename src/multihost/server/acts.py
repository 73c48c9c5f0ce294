"""What a call does within its transaction, and whose answers that brings about.

Everything here runs between ``begin`` and ``commit`` and is undone with them.
Who may ask, in which order and for how long is ``server.calls``' business.
"""

import itertools
from collections.abc import Callable, Collection

import msgspec

from multihost.core.ids import first_token, session_of
from multihost.core.job import MAX_NAME_CHARS
from multihost.server.parking import Parking, missing
from multihost.server.pending import Pending
from multihost.server.states import conflict, encode_state, first_state
from multihost.server.synchronizers import SYNCHRONIZER_ACTS, Synchronizers
from multihost.store.base import Store, SynchronizerRow
from multihost.wire import act as a
from multihost.wire.act import (
    AnyResult,
    Exchange,
    Exchanged,
    ExchangeEnd,
    RejectCode,
    Rejected,
)

_NOTED = (
    a.Acquire,
    a.Release,
    a.Notify,
    a.SetEvent,
    a.PassBarrier,
    a.ResetBarrier,
    a.FinishAction,
    a.WriteValue,
)
"""Acts on synchronizers that must not be done twice."""
_TIMED_OUT = a.Done(False)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyResult).decode


class Acts:
    """Queues of items and synchronizers as calls change them, one transaction at a time.

    Invariant: between transactions memory says what the store says.
    """

    def __init__(self, store: Store, find: Callable[[int], Pending | None]) -> None:
        """Begin with what ``store`` has; ``find`` knows a taker's unanswered call."""
        tokens = itertools.count(first_token(store.epoch) + 1)
        self.synchronizers = Synchronizers(tokens.__next__)
        self.overs: list[tuple[Pending, AnyResult | None]] = []
        """Calls that are over if this transaction is kept; None: without an answer."""
        self.parked: list[Pending] = []
        """Calls that wait since this transaction."""
        self.must_last = False
        """Whether the operation under way did what an answer, now or later, relies on."""
        self.is_told = True
        """Whether nobody whom it answers has to wait for the disk."""
        self.parking = Parking(self)
        self._find = find
        self._changes: list[tuple[int, bytes]] = []
        for row in store.synchronizers():
            self.synchronizers.load(row.number, row.kind, row.state)

    # calls ---------------------------------------------------------------------------------

    def run(self, pending: Pending, store: Store, now: float) -> None:
        """Do a call, as far as it can be done now."""
        if pending.is_over:
            return
        place = self.synchronizers.place(pending.taker)
        if place is not None and place[1] != pending.number:
            self.synchronizers.give_up(pending.taker)
            self._tell_woken(store)
        is_known = pending.is_fresh or self.parking.holds(pending)
        answer = None if is_known else self.recall(store, pending)
        if answer is not None:
            self.over(pending, answer)
            return
        _VERBS[type(pending.act)](self, store, now, pending)
        if pending.is_over:
            return
        if pending.wait_s is not None and pending.wait_s <= 0:
            self.expire(pending, store, now)
        self.parked.append(pending)

    def recall(self, store: Store, pending: Pending) -> AnyResult | None:
        """Answer of a call that was done before, if it was; then no more than its take is left."""
        row = store.taker(pending.taker)
        if row is not None and row.number > pending.number:
            return outdated(pending.number, row.number)
        answer: AnyResult | None = None
        if row is not None and row.number == pending.number:
            answer = _decode(row.answer)
        act = pending.act
        if not isinstance(act, Exchange) or act.take is None:
            return answer
        if isinstance(answer, Exchanged) and answer.items:
            pending.is_lossy = True  # or there was no need to keep them
            return answer
        items = store.taken(pending.taker, pending.number)
        if items:
            return Exchanged(ExchangeEnd.OK, items)
        if answer is not None:
            pending.rest = Exchange(take=act.take, limit=act.limit)
        return None

    def expire(self, pending: Pending, store: Store, now: float) -> None:
        """A call's time is over."""
        if pending.is_over:
            return
        result = self.parking.leave(store, now, pending)
        if result is not None:
            self.over(pending, result)
            return
        self.synchronizers.expire(pending.taker, pending.number)
        self._tell_woken(store)

    def abandon(self, pending: Pending, store: Store, now: float) -> None:
        """A call's taker has gone on to its next, or is no more: nobody wants an answer."""
        if pending.is_over:
            return
        self.parking.leave(store, now, pending)
        self.synchronizers.give_up(pending.taker)
        self._tell_woken(store)
        self.over(pending, None)

    def end(
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
                self.over(pending, None)
        self.synchronizers.end(takers, is_clean=is_clean)
        self._tell_woken(store)

    # sessions ------------------------------------------------------------------------------

    def step_aside(self, store: Store, now: float, pending: Pending) -> None:
        """A call's connection broke: nothing is handed to it until it comes again."""
        if not pending.is_over:
            self.parking.leave(store, now, pending)
            self.synchronizers.step_aside(pending.taker)

    def lose_taker(self, store: Store, now: float, taker: int) -> None:
        """What a taker held goes to others."""
        for queue in store.lose_taker(taker):
            self.parking.look(store, now, queue)

    def lose_takers(self, store: Store, now: float, session: int) -> None:
        """What a session's takers held goes to others; its answers are kept."""
        rows = store.takers(session)
        queues = store.lose_takers(session)
        for row in rows:
            store.note_answer(row.taker, row.number, row.answer)
        for queue in queues:
            self.parking.look(store, now, queue)

    def drop_queue(self, store: Store, queue: int) -> None:
        """Delete a queue and its items; whoever waits there is told."""
        store.drop_item_queue(queue)
        self.parking.drop(queue)

    def drop_synchronizer(self, store: Store, synchronizer: int) -> None:
        """Delete a synchronizer; whoever waits there is told."""
        store.drop_synchronizer(synchronizer)
        self.synchronizers.drop(synchronizer)
        self._tell_woken(store)

    def drop_session(self, store: Store, session: int) -> None:
        """A session is no more: forget its answers, drop what lived with it."""
        store.lose_takers(session)
        queues, synchronizers = store.drop_transients(session)
        for queue in queues:
            self.parking.drop(queue)
        for synchronizer in synchronizers:
            self.synchronizers.drop(synchronizer)
        self._tell_woken(store)

    # transactions --------------------------------------------------------------------------

    def save(self, store: Store) -> None:
        """Save what has changed, once a transaction."""
        if self.synchronizers.changed:
            self._changes = self.synchronizers.changes()
            for number, state in self._changes:
                store.save_synchronizer(number, state)

    def keep(self) -> None:
        """The transaction is written."""
        if self.synchronizers.changed:
            self.synchronizers.keep(self._changes)
        self.parking.keep()
        self.overs = []
        self.parked = []

    def undo(self) -> None:
        """The transaction did not happen."""
        self.synchronizers.undo()
        self.parking.undo()
        for pending, _ in self.overs:
            pending.is_over = False
        self.overs.clear()
        self.parked.clear()

    # answers -------------------------------------------------------------------------------

    def over(self, pending: Pending, result: AnyResult | None) -> None:
        """A call is over if this transaction is kept; None: nobody asks any more.

        It need not wait for the disk if what it gets is leased.
        """
        pending.is_over = True
        act = pending.act
        pending.is_early = result is None or (
            type(act) is Exchange
            and act.take is not None
            and not (pending.is_lossy and type(result) is Exchanged and result.items)
        )
        if not pending.is_early:
            self.is_told = False
        self.overs.append((pending, result))

    def _note(self, store: Store, taker: int, number: int, result: AnyResult) -> None:
        """Keep an answer, so that its call is not done twice."""
        self.must_last = True
        store.note_answer(taker, number, _encode(result))

    def _tell_woken(self, store: Store) -> None:
        """Answer those who waited for a synchronizer."""
        woken, self.synchronizers.woken = self.synchronizers.woken, []
        for taker, number, result in woken:
            if result != _TIMED_OUT:
                self._note(store, taker, number, result)
            pending = self._find(taker)
            if pending is not None and pending.number == number and not pending.is_over:
                self.over(pending, result)

    # acts ----------------------------------------------------------------------------------

    def _open_queue(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.OpenQueue)
        if act.limit < 0:
            text = f"a queue has a limit of 0 (none) or more, not {act.limit}"
            self.over(pending, Rejected(RejectCode.BAD_REQUEST, text))
            return
        if not self._has_name(pending, act.name):
            return
        owner = session_of(pending.taker) if act.is_transient else None
        row, is_new = store.open_item_queue(act.name, act.limit, act.confirm, owner)
        self.must_last |= is_new
        self.over(pending, a.QueueOpened(row.number, row.limit, row.confirm, is_new))

    def _has_name(self, pending: Pending, name: str) -> bool:
        if 0 < len(name) <= MAX_NAME_CHARS:
            return True
        text = f"a name has 1 to {MAX_NAME_CHARS} characters, not {len(name)}: shorten or hash it"
        self.over(pending, Rejected(RejectCode.BAD_REQUEST, text))
        return False

    def _drop_queue(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.DropQueue)
        self.drop_queue(store, act.queue)
        self.must_last = True
        self.over(pending, a.Done())

    def _close_queue(self, store: Store, now: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.CloseQueue)
        if store.item_queue(act.queue) is None:
            self.over(pending, missing(act.queue))
            return
        store.close_item_queue(act.queue)
        self.parking.look(store, now, act.queue)
        self.must_last = True
        self.over(pending, a.Done())

    def _exchange(self, store: Store, now: float, pending: Pending) -> None:
        self.parking.exchange(store, now, pending)

    def _join_queue(self, store: Store, _: float, pending: Pending) -> None:
        self.parking.join(store, pending)

    def _measure_queue(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.MeasureQueue)
        row = store.item_queue(act.queue)
        if row is None:
            self.over(pending, missing(act.queue))
        else:
            numbers = [row.waiting, row.held, row.unfinished, row.limit]
            self.over(pending, a.Measured(numbers))

    def _open_synchronizer(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        assert isinstance(act, a.OpenSynchronizer)
        state = first_state(act)
        if isinstance(state, Rejected):
            self.over(pending, state)
            return
        if not self._has_name(pending, act.name):
            return
        owner = session_of(pending.taker) if act.is_transient else None
        data = encode_state(state)
        row, is_new = store.open_synchronizer(act.kind, act.name, owner, data)
        if is_new:
            self.must_last = True
            self.synchronizers.add(row.number, act.kind, data)
        self.over(pending, self._found(act, row, is_new=is_new))

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
        self.drop_synchronizer(store, act.synchronizer)
        self.must_last = True
        self.over(pending, a.Done())

    def _synchronize(self, store: Store, _: float, pending: Pending) -> None:
        act = pending.act
        result = self.synchronizers.act(pending.taker, pending.number, act)
        self._tell_woken(store)
        if result is not None:
            if isinstance(act, _NOTED) and not isinstance(result, Rejected):
                self._note(store, pending.taker, pending.number, result)
            self.over(pending, result)


_VERBS: dict[type, Callable[[Acts, Store, float, Pending], None]] = {
    a.OpenQueue: Acts._open_queue,
    a.DropQueue: Acts._drop_queue,
    a.CloseQueue: Acts._close_queue,
    a.Exchange: Acts._exchange,
    a.JoinQueue: Acts._join_queue,
    a.MeasureQueue: Acts._measure_queue,
    a.OpenSynchronizer: Acts._open_synchronizer,
    a.DropSynchronizer: Acts._drop_synchronizer,
    **dict.fromkeys(SYNCHRONIZER_ACTS, Acts._synchronize),
}


def outdated(number: int, later: int) -> Rejected:
    """The answer to a call that came after a later one."""
    text = f"call {number} came after call {later} of the same taker; numbers have to rise"
    return Rejected(RejectCode.BAD_REQUEST, text)
