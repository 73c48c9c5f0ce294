"""Locks, semaphores, conditions, events, barriers and values: a pure machine.

It is told who does what and when a time is over; it says at once what becomes
of that and of those who waited for it. The rules are those of
``multiprocessing``, and beyond them: whoever waits is served in the order of
arrival, every acquire has a token that rises, and what a taker holds is let go
when it ends. No I/O, no clock, no thread.

Who holds and waits for what is in the book that it is founded on.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from multihost.server.states import (
    BarrierState,
    ConditionState,
    EventState,
    LockState,
    SemaphoreState,
    State,
    ValueState,
    Waiter,
)
from multihost.server.synchronizer_book import SynchronizerBook
from multihost.wire import act as a
from multihost.wire.act import AnyResult, Done, RejectCode, Rejected


class Woken(NamedTuple):
    """A call that waited and is over."""

    taker: int
    number: int
    result: AnyResult


class Caller(NamedTuple):
    """Who does an act, in which of its calls."""

    taker: int
    number: int


class Synchronizers(SynchronizerBook):
    """All synchronizers of a server.

    Invariant: nobody waits for what could be had. ``woken`` gathers the calls that are
    over; its owner empties it.
    """

    def __init__(self, mint: Callable[[], int]) -> None:
        """Begin with none; ``mint`` gives tokens, each larger than any before."""
        super().__init__()
        self.woken: list[Woken] = []
        self._mint = mint

    def drop(self, number: int) -> None:
        """It is no more; whoever waits for it is told."""
        state = self._states.get(number)
        if state is None:
            return
        self.changed.add(number)
        self._reject(number, state)
        for condition in self._conditions.get(number, ()):
            self._change(condition)
            self._reject(condition, self._states[condition])
        self._remove(number)

    def undo(self) -> None:
        """Nothing has happened since the last ``keep``."""
        super().undo()
        self.woken.clear()

    # acts --------------------------------------------------------------------------------

    def act(self, taker: int, number: int, act: Any) -> AnyResult | None:
        """Do an act on a synchronizer; None: the call waits now.

        A call that waits already goes on waiting in its place.
        """
        needs, verb = _VERBS[type(act)]
        state = self._states.get(act.synchronizer)
        if not isinstance(state, needs):
            return _missing(act.synchronizer)
        place = self._places.get(taker)
        if place is not None and place[1] == number:
            return None  # in its place, or, of a condition that notified it, in its lock's line
        result: AnyResult | None = verb(self, Caller(taker, number), act, state)
        return result

    def expire(self, taker: int, number: int) -> None:
        """A call has waited long enough; a condition's wait still has to take its lock again."""
        place = self._places.get(taker)
        if place is None or place[1] != number:
            return
        synchronizer = place[0]
        state = self._states[synchronizer]
        waiter = _find(state, taker)
        if isinstance(state, ConditionState):
            self._change(synchronizer)
            self._leave(synchronizer, state, waiter)
            self._take_again(state, waiter, value=False)
        elif isinstance(state, BarrierState):
            self._expire_at_barrier(synchronizer, state, waiter)
        elif not waiter.condition:
            self._change(synchronizer)
            self._leave(synchronizer, state, waiter)
            self.woken.append(Woken(taker, number, Done(False)))

    def step_aside(self, taker: int) -> None:
        """A taker's connection broke: nothing is given to who may be dead, if that loses nothing.

        Who was notified, or has arrived at a barrier, keeps its place.
        """
        place = self._places.get(taker)
        if place is None:
            return
        state = self._states[place[0]]
        waiter = _find(state, taker)
        if not waiter.condition and not isinstance(state, ConditionState | BarrierState):
            self._change(place[0])
            self._leave(place[0], state, waiter)

    def give_up(self, taker: int) -> None:
        """A taker waits no more and wants no answer; a notify that it got is the next one's."""
        if taker in self._places:
            self._end_wait(taker)

    def end(self, takers: Collection[int], *, is_clean: bool) -> None:
        """Takers are no more: they wait for nothing, and hold nothing."""
        for taker in takers:
            self.give_up(taker)
        for taker in takers:
            for number in list(self._touched_by.get(taker, ())):
                self._end_hold(taker, number, is_clean=is_clean)

    # locks -------------------------------------------------------------------------------

    def _acquire(self, caller: Caller, act: a.Acquire, state: State) -> AnyResult | None:
        self._change(act.synchronizer)
        if isinstance(state, SemaphoreState):
            if not state.value:
                self._wait(act.synchronizer, state, Waiter(*caller))
                return None
            state.value -= 1
            return self._hold(act.synchronizer, state, caller.taker)
        assert isinstance(state, LockState)
        if state.is_reentrant and state.is_held_by(caller.taker):
            state.depth += 1
            return Done(True, state.token)
        self._wait(act.synchronizer, state, Waiter(*caller))
        if state.depth:
            return None
        self._hand_over(act.synchronizer, state)
        return self.woken.pop().result

    def _release(self, caller: Caller, act: a.Release, state: State) -> AnyResult:
        if isinstance(state, SemaphoreState):
            return self._release_semaphore(caller.taker, act, state)
        assert isinstance(state, LockState)
        if state.is_reentrant and not state.is_held_by(caller.taker):
            text = "is not held by this thread or task, and only its holder can release it"
            return _rejected(RejectCode.NOT_HELD, act.synchronizer, text, "lock")
        if not 0 < act.times <= state.depth:
            held = f"held {state.depth} times" if state.depth else "held by nobody"
            text = f"is released too many times: it is {held}"
            return _rejected(RejectCode.TOO_MANY, act.synchronizer, text, "lock")
        self._change(act.synchronizer)
        state.depth -= act.times
        if not state.depth:
            self._free(act.synchronizer, state)
        return Done()

    def _free(self, number: int, state: LockState) -> None:
        """The holder lets go of a lock: the next one has it."""
        holder, state.holder, state.depth = state.holder, 0, 0
        self._let_go(holder, number, state)
        self._hand_over(number, state)

    def _hand_over(self, number: int, state: LockState) -> None:
        if not state.waiters:
            return
        waiter = state.waiters[0]
        self._leave(number, state, waiter)
        state.holder, state.depth, state.token = waiter.taker, waiter.depth, self._mint()
        self._touched_by.setdefault(waiter.taker, set()).add(number)
        result = Done(waiter.value, state.token)
        self.woken.append(Woken(waiter.taker, waiter.number, result))

    # semaphores --------------------------------------------------------------------------

    def _hold(self, number: int, state: SemaphoreState, taker: int) -> Done:
        state.holds[taker] = state.holds.get(taker, 0) + 1
        state.token = self._mint()
        self._touched_by.setdefault(taker, set()).add(number)
        return Done(True, state.token)

    def _release_semaphore(self, taker: int, act: a.Release, state: SemaphoreState) -> AnyResult:
        if act.times < 1 or state.value + act.times > state.bound:
            text = (
                f"is released too many times: its value is {state.value} of at most {state.bound}"
            )
            return _rejected(RejectCode.TOO_MANY, act.synchronizer, text, "semaphore")
        self._change(act.synchronizer)
        left = self._forget_holds(act.synchronizer, state, taker, act.times)
        for other in list(state.holds):
            # Whoever acquired it, somebody has given it back: it is used to signal.
            if not left:
                break
            left = self._forget_holds(act.synchronizer, state, other, left)
        self._give(act.synchronizer, state, act.times)
        return Done()

    def _forget_holds(self, number: int, state: SemaphoreState, taker: int, times: int) -> int:
        """Forget so many holds of a taker; how many more there are to forget."""
        held = state.holds.get(taker, 0)
        if held > times:
            state.holds[taker] = held - times
            return 0
        if held:
            del state.holds[taker]
            self._let_go(taker, number, state)
        return times - held

    def _give(self, number: int, state: SemaphoreState, times: int) -> None:
        """Hand what is free to who waits; the rest is the value."""
        while times and state.waiters:
            waiter = state.waiters[0]
            self._leave(number, state, waiter)
            result = self._hold(number, state, waiter.taker)
            self.woken.append(Woken(waiter.taker, waiter.number, result))
            times -= 1
        state.value = min(state.bound, state.value + times)

    # conditions --------------------------------------------------------------------------

    def _wait_notified(
        self, caller: Caller, act: a.WaitNotified, state: ConditionState
    ) -> AnyResult | None:
        lock = self._states.get(state.lock)
        if not isinstance(lock, LockState):
            return _missing(state.lock)
        if not lock.is_held_by(caller.taker):
            text = "is not held by this thread or task, which can't wait for its condition"
            return _rejected(RejectCode.NOT_HELD, state.lock, text, "lock")
        self._change(act.synchronizer)
        self._change(state.lock)
        depth = lock.depth
        self._free(state.lock, lock)
        waiter = Waiter(caller.taker, caller.number, depth, act.synchronizer)
        self._wait(act.synchronizer, state, waiter)
        return None

    def _notify(self, caller: Caller, act: a.Notify, state: ConditionState) -> AnyResult:
        lock = self._states.get(state.lock)
        if not isinstance(lock, LockState):
            return _missing(state.lock)
        if not lock.is_held_by(caller.taker):
            text = "is not held by this thread or task, which can't notify others"
            return _rejected(RejectCode.NOT_HELD, state.lock, text, "lock")
        count = len(state.waiters) if act.count < 0 else min(act.count, len(state.waiters))
        for _ in range(count):
            self._notify_next(act.synchronizer, state)
        return Done(True, 0, count)

    def _notify_next(self, number: int, state: ConditionState) -> None:
        if state.waiters:
            self._change(number)
            waiter = state.waiters[0]
            self._leave(number, state, waiter)
            self._take_again(state, waiter, value=True)

    def _take_again(self, state: ConditionState, waiter: Waiter, *, value: bool) -> None:
        """A condition's wait is over: it goes on when it has the lock again."""
        lock = self._states[state.lock]
        assert isinstance(lock, LockState)
        self._change(state.lock)
        waiter.value = value
        self._wait(state.lock, lock, waiter)
        if not lock.depth:
            self._hand_over(state.lock, lock)

    # events and barriers -----------------------------------------------------------------

    def _set_event(self, _: Caller, act: a.SetEvent, state: EventState) -> AnyResult:
        if state.is_set is not act.is_set:
            self._change(act.synchronizer)
            state.is_set = act.is_set
        if act.is_set:
            self._wake_all(act.synchronizer, state, Done())
        return Done()

    def _wait_set(self, caller: Caller, act: a.WaitSet, state: EventState) -> AnyResult | None:
        if state.is_set:
            return Done()
        self._change(act.synchronizer)
        self._wait(act.synchronizer, state, Waiter(*caller))
        return None

    def _pass(self, caller: Caller, act: a.PassBarrier, state: BarrierState) -> AnyResult | None:
        if state.is_broken:
            return _broken(act.synchronizer)
        self._change(act.synchronizer)
        self._wait(act.synchronizer, state, Waiter(*caller, has_action=act.has_action))
        if state.token or len(state.waiters) < state.parties:
            return None
        self._complete(act.synchronizer, state)
        return self.woken.pop().result

    def _complete(self, number: int, state: BarrierState) -> None:
        """All parties are there: the last one acts if it has to; else they all go on."""
        last = state.waiters[state.parties - 1]
        if not last.has_action:
            self._let_through(number, state, state.parties)
            return
        self._leave(number, state, last)
        state.token, state.actor = self._mint(), last.taker
        self._touched_by.setdefault(last.taker, set()).add(number)
        result = Done(True, state.token, state.parties - 1)
        self.woken.append(Woken(last.taker, last.number, result))

    def _let_through(self, number: int, state: BarrierState, parties: int) -> None:
        for party, waiter in enumerate(state.waiters[:parties]):
            self._leave(number, state, waiter)
            self.woken.append(Woken(waiter.taker, waiter.number, Done(True, 0, party)))

    def _finish(self, _: Caller, act: a.FinishAction, state: BarrierState) -> AnyResult:
        if not state.token or act.token != state.token:
            return _broken(act.synchronizer)
        if act.has_failed:
            self._break(act.synchronizer, state)
            return Done()
        self._change(act.synchronizer)
        self._end_action(act.synchronizer, state)
        self._let_through(act.synchronizer, state, state.parties - 1)
        while len(state.waiters) >= state.parties and not state.token:
            self._complete(act.synchronizer, state)
        if not (state.token or all(waiter.value for waiter in state.waiters)):
            self._break(act.synchronizer, state)
        return Done()

    def _end_action(self, number: int, state: BarrierState) -> None:
        actor, state.token, state.actor = state.actor, 0, 0
        self._let_go(actor, number, state)

    def _expire_at_barrier(self, number: int, state: BarrierState, waiter: Waiter) -> None:
        """Who waits no longer breaks it; but an action is waited for, however long it takes."""
        if not state.token:
            self._break(number, state)
        elif waiter not in state.waiters[: state.parties - 1]:
            self._change(number)
            waiter.value = False

    def _reset(self, _: Caller, act: a.ResetBarrier, state: BarrierState) -> AnyResult:
        self._break(act.synchronizer, state)
        state.is_broken = act.is_abort
        return Done()

    def _break(self, number: int, state: BarrierState) -> None:
        self._change(number)
        state.is_broken = True
        self._end_action(number, state)
        self._wake_all(number, state, _broken(number))

    # values ------------------------------------------------------------------------------

    def _read(self, _: Caller, act: a.ReadValue, state: ValueState) -> AnyResult:
        stop = len(state.data) if act.stop < 0 else act.stop
        if not 0 <= act.start <= stop <= len(state.data):
            return _outside(act.synchronizer, act.start, stop, len(state.data))
        return a.Data(bytes(state.data[act.start : stop]))

    def _write(self, _: Caller, act: a.WriteValue, state: ValueState) -> AnyResult:
        stop = act.start + len(act.data)
        if not 0 <= act.start <= stop <= len(state.data):
            return _outside(act.synchronizer, act.start, stop, len(state.data))
        self._change(act.synchronizer)
        state.data[act.start : stop] = act.data
        return Done()

    # measuring ---------------------------------------------------------------------------

    def _measure(self, _: Caller, act: a.MeasureSynchronizer, state: State) -> AnyResult:
        if isinstance(state, LockState):
            return a.Measured([state.depth, state.token])
        if isinstance(state, SemaphoreState):
            return a.Measured([state.value, state.token])
        if isinstance(state, EventState):
            return a.Measured([int(state.is_set)])
        if isinstance(state, BarrierState):
            return a.Measured([len(state.waiters), state.parties, int(state.is_broken)])
        if isinstance(state, ValueState):
            return a.Measured([len(state.data)])
        return a.Measured([len(state.waiters)])

    # waking -----------------------------------------------------------------------------

    def _wake_all(self, number: int, state: State, result: AnyResult) -> None:
        if state.waiters:
            self._change(number)
        for waiter in list(state.waiters):
            self._leave(number, state, waiter)
            self.woken.append(Woken(waiter.taker, waiter.number, result))

    def _reject(self, number: int, state: State) -> None:
        self._wake_all(number, state, _missing(number))

    # takers that end ---------------------------------------------------------------------

    def _end_wait(self, taker: int) -> None:
        number = self._places[taker][0]
        state = self._states[number]
        waiter = _find(state, taker)
        self._change(number)
        self._leave(number, state, waiter)
        if isinstance(state, BarrierState):
            self._break(number, state)
        elif waiter.condition and waiter.value and isinstance(state, LockState):
            # It was notified and will never know: the notify is the next one's.
            condition = self._states.get(waiter.condition)
            if isinstance(condition, ConditionState):
                self._notify_next(waiter.condition, condition)

    def _end_hold(self, taker: int, number: int, *, is_clean: bool) -> None:
        state = self._states[number]
        self._change(number)
        if isinstance(state, LockState):
            self._free(number, state)
        elif isinstance(state, SemaphoreState):
            held = state.holds.pop(taker)
            self._let_go(taker, number, state)
            if not is_clean:
                self._give(number, state, held)
        elif isinstance(state, BarrierState):
            self._break(number, state)


_VERBS: dict[type, tuple[Any, Any]] = {
    a.Acquire: (LockState | SemaphoreState, Synchronizers._acquire),
    a.Release: (LockState | SemaphoreState, Synchronizers._release),
    a.WaitNotified: (ConditionState, Synchronizers._wait_notified),
    a.Notify: (ConditionState, Synchronizers._notify),
    a.SetEvent: (EventState, Synchronizers._set_event),
    a.WaitSet: (EventState, Synchronizers._wait_set),
    a.PassBarrier: (BarrierState, Synchronizers._pass),
    a.ResetBarrier: (BarrierState, Synchronizers._reset),
    a.FinishAction: (BarrierState, Synchronizers._finish),
    a.ReadValue: (ValueState, Synchronizers._read),
    a.WriteValue: (ValueState, Synchronizers._write),
    a.MeasureSynchronizer: (State, Synchronizers._measure),
}
"""What each act needs, and what it does."""

SYNCHRONIZER_ACTS = tuple(_VERBS)
"""Acts that ``Synchronizers.act`` does."""


def _find(state: State, taker: int) -> Waiter:
    return next(waiter for waiter in state.waiters if waiter.taker == taker)


def _rejected(code: RejectCode, number: int, text: str, kind: str = "synchronizer") -> Rejected:
    return Rejected(code, f"{kind} {number} {text}")


def _missing(number: int) -> Rejected:
    text = "doesn't exist (any more), or is of another kind"
    return _rejected(RejectCode.NOT_FOUND, number, text)


def _broken(number: int) -> Rejected:
    text = "is a barrier that is broken: a party timed out or died, or it was reset or aborted"
    return _rejected(RejectCode.BROKEN, number, text)


def _outside(number: int, start: int, stop: int, size_bytes: int) -> Rejected:
    text = f"has {size_bytes} bytes; {start} to {stop} are not within"
    return _rejected(RejectCode.BAD_REQUEST, number, text)
