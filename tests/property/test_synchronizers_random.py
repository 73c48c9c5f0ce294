"""Synchronizers keep their promises whatever takers do, and whatever is undone."""

import itertools
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from multihost.server.states import (
    BarrierState,
    ConditionState,
    EventState,
    LockState,
    SemaphoreState,
    encode_state,
    first_state,
)
from multihost.server.synchronizers import Synchronizers
from multihost.wire.act import (
    Acquire,
    Done,
    FinishAction,
    Kind,
    Notify,
    OpenSynchronizer,
    PassBarrier,
    Rejected,
    Release,
    ResetBarrier,
    SetEvent,
    WaitNotified,
    WaitSet,
)

EXAMPLES = int(os.environ.get("MULTIHOST_PROPERTY_EXAMPLES", "100"))
STEPS = 60
KINDS = {
    1: (Kind.LOCK, 0),
    2: (Kind.RLOCK, 0),
    3: (Kind.SEMAPHORE, 1),
    4: (Kind.BOUNDED_SEMAPHORE, 2),
    5: (Kind.CONDITION, 2),
    6: (Kind.CONDITION, 1),
    7: (Kind.EVENT, 0),
    8: (Kind.BARRIER, 2),
}
TAKERS = range(1, 6)
LOCKS = (1, 2)
SEMAPHORES = (3, 4)
CONDITIONS = (5, 6)

locks = st.sampled_from(LOCKS)
lockables = st.sampled_from(LOCKS + SEMAPHORES)
conditions = st.sampled_from(CONDITIONS)
acts = st.one_of(
    st.builds(Acquire, lockables),
    st.builds(Acquire, locks),
    st.builds(Release, lockables, st.integers(1, 2)),
    st.builds(Release, locks),
    st.builds(WaitNotified, conditions),
    st.builds(Notify, conditions, st.integers(-1, 2)),
    st.builds(SetEvent, st.just(7), st.booleans()),
    st.builds(WaitSet, st.just(7)),
    st.builds(PassBarrier, st.just(8), st.booleans()),
    st.builds(ResetBarrier, st.just(8), st.booleans()),
)


class Machine(RuleBasedStateMachine):
    """Five takers that do anything, die, time out and see their transactions undone."""

    def __init__(self):
        super().__init__()
        self.tokens = itertools.count(1)
        self.machine = Synchronizers(self.tokens.__next__)
        for number, (kind, first) in KINDS.items():
            state = first_state(OpenSynchronizer(kind, "name", first))
            self.machine.add(number, kind, encode_state(state))
        self.calls = dict.fromkeys(TAKERS, 0)
        self.waiting = {}
        self.highest = 0
        self.keep()

    def keep(self):
        self.machine.keep(self.machine.changes())
        self.kept = (self.bytes(), dict(self.calls), dict(self.waiting), self.highest)

    def bytes(self):
        return {number: encode_state(self.machine.state(number)) for number in KINDS}

    def hear(self, own=None):
        for taker, number, result in self.machine.woken:
            assert self.waiting.pop(taker) == number
            self.see(result)
        self.machine.woken.clear()
        if own is not None:
            self.see(own)

    def see(self, result):
        if isinstance(result, Done) and result.token:
            # Only an inner acquire has the token of an acquire before.
            self.highest = max(self.highest, result.token)

    @rule(taker=st.sampled_from(TAKERS), act=acts)
    def call(self, taker, act):
        if taker in self.waiting:
            return
        self.calls[taker] += 1
        before = self.highest
        result = self.machine.act(taker, self.calls[taker], act)
        if result is None:
            self.waiting[taker] = self.calls[taker]
        elif isinstance(act, Acquire) and act.synchronizer != 2:
            assert result.token > before
        if isinstance(result, Rejected):
            assert not self.machine.woken
        self.hear(result)

    @rule(taker=st.sampled_from(TAKERS))
    def come_again(self, taker):
        if taker in self.waiting:
            place = self.machine.place(taker)
            act = {5: WaitNotified, 6: WaitNotified, 7: WaitSet, 8: PassBarrier}.get(
                place[0], Acquire
            )
            before = self.bytes()
            assert self.machine.act(taker, place[1], act(place[0])) is None
            assert self.bytes() == before

    @rule(taker=st.sampled_from(TAKERS))
    def expire(self, taker):
        self.machine.expire(taker, self.calls[taker])
        self.hear()

    @rule(taker=st.sampled_from(TAKERS))
    def step_aside(self, taker):
        self.machine.step_aside(taker)
        if self.machine.place(taker) is None:
            self.waiting.pop(taker, None)
        self.hear()

    @rule(takers=st.sets(st.sampled_from(TAKERS), min_size=1), is_clean=st.booleans())
    def end(self, takers, is_clean):
        for taker in takers:
            self.waiting.pop(taker, None)
        self.machine.end(takers, is_clean=is_clean)
        self.machine.woken = [one for one in self.machine.woken if one.taker not in takers]
        self.hear()
        for number in KINDS:
            state = self.machine.state(number)
            assert not takers & {waiter.taker for waiter in state.waiters}
            assert not takers & set(state.holders())

    @rule(
        taker=st.sampled_from(TAKERS),
        is_its_token=st.booleans(),
        has_failed=st.booleans(),
    )
    def finish_action(self, taker, is_its_token, has_failed):
        barrier = self.machine.state(8)
        if taker in self.waiting or not barrier.token:
            return
        token = barrier.token if is_its_token else barrier.token - 1
        fellows = [waiter.taker for waiter in barrier.waiters[: barrier.parties - 1]]
        before = self.bytes()
        self.calls[taker] += 1
        result = self.machine.act(taker, self.calls[taker], FinishAction(8, token, has_failed))
        assert isinstance(result, Done) is is_its_token
        passed = {woken.taker for woken in self.machine.woken if isinstance(woken.result, Done)}
        if is_its_token and not has_failed:
            assert passed.issuperset(fellows)
        else:
            assert not passed
        assert is_its_token or self.bytes() == before
        self.hear()

    @rule()
    def commit(self):
        self.keep()

    @rule()
    def undo(self):
        self.machine.undo()
        before, self.calls, self.waiting, self.highest = self.kept
        self.calls, self.waiting = dict(self.calls), dict(self.waiting)
        assert self.bytes() == before
        assert not self.machine.changes()

    @rule()
    def restart(self):
        again = Synchronizers(self.tokens.__next__)
        for number, (kind, _) in KINDS.items():
            again.load(number, kind, encode_state(self.machine.state(number)))
        assert again._places == self.machine._places
        assert again._touched_by == self.machine._touched_by
        self.machine = again
        self.keep()

    @invariant()
    def whoever_waits_waits_once_and_nobody_else_does(self):
        places = {}
        for number in KINDS:
            for waiter in self.machine.state(number).waiters:
                assert waiter.taker not in places
                places[waiter.taker] = waiter.number
                assert self.machine.place(waiter.taker) == (number, waiter.number)
        assert places == self.waiting

    @invariant()
    def nobody_waits_for_what_could_be_had(self):
        for number in KINDS:
            state = self.machine.state(number)
            if isinstance(state, LockState):
                assert state.depth or not state.waiters
            elif isinstance(state, SemaphoreState):
                assert not (state.value and state.waiters)
                assert state.value + sum(state.holds.values()) <= state.bound
            elif isinstance(state, EventState):
                assert not (state.is_set and state.waiters)
            elif isinstance(state, BarrierState):
                assert not state.waiters or not state.is_broken
                assert state.token or len(state.waiters) < state.parties
                assert not state.token or len(state.waiters) >= state.parties - 1

    @invariant()
    def who_waits_for_a_condition_does_not_hold_its_lock(self):
        for number in CONDITIONS:
            state = self.machine.state(number)
            assert isinstance(state, ConditionState)
            lock = self.machine.state(state.lock)
            assert not any(lock.is_held_by(waiter.taker) for waiter in state.waiters)


def test_synchronizers_keep_their_promises():
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    )
