"""Claims about locks, semaphores, conditions, events, barriers and values."""

import itertools

import pytest

from multihost.server.states import decode_state, encode_state, first_state
from multihost.server.synchronizers import Synchronizers
from multihost.wire.act import (
    Acquire,
    Data,
    Done,
    FinishAction,
    Kind,
    Measured,
    MeasureSynchronizer,
    Notify,
    OpenSynchronizer,
    PassBarrier,
    ReadValue,
    RejectCode,
    Rejected,
    Release,
    ResetBarrier,
    SetEvent,
    WaitNotified,
    WaitSet,
    WriteValue,
)

ANN, BOB, CY, DAN = 1, 2, 3, 4
LOCK, OTHER = 10, 11


class Desk:
    """The machine, with each taker's calls numbered and the answers kept."""

    def __init__(self):
        self.machine = Synchronizers(itertools.count(100).__next__)
        self.numbers = dict.fromkeys((ANN, BOB, CY, DAN), 0)
        self.answers = {}

    def make(self, number, kind, first=0, data=b""):
        state = first_state(OpenSynchronizer(kind, "name", first, data))
        self.machine.add(number, kind, encode_state(state))

    def do(self, taker, act):
        """Result of an act, or None while it waits."""
        self.numbers[taker] += 1
        self.answers.pop(taker, None)
        result = self.machine.act(taker, self.numbers[taker], act)
        self.hear()
        return result

    def hear(self):
        for taker, number, result in self.machine.woken:
            assert number == self.numbers[taker]
            assert taker not in self.answers
            self.answers[taker] = result
        self.machine.woken.clear()

    def expire(self, taker):
        self.machine.expire(taker, self.numbers[taker])
        self.hear()

    def end(self, *takers, is_clean=False):
        self.machine.end(takers, is_clean=is_clean)
        self.hear()

    def numbers_of(self, synchronizer):
        result = self.machine.act(99, 1, MeasureSynchronizer(synchronizer))
        assert isinstance(result, Measured)
        return result.numbers


@pytest.fixture
def desk():
    return Desk()


def code(result):
    assert isinstance(result, Rejected), result
    return result.code


# --- locks -----------------------------------------------------------------------------


def test_a_lock_goes_to_who_waited_longest_and_its_token_rises(desk):
    desk.make(LOCK, Kind.LOCK)
    tokens = [desk.do(ANN, Acquire(LOCK)).token]
    assert desk.do(BOB, Acquire(LOCK)) is None
    assert desk.do(CY, Acquire(LOCK)) is None
    assert desk.do(ANN, Release(LOCK)) == Done()
    assert CY not in desk.answers
    tokens.append(desk.answers[BOB].token)
    desk.do(BOB, Release(LOCK))
    tokens.append(desk.answers[CY].token)
    assert tokens == sorted(set(tokens))


def test_a_lock_may_be_released_by_anybody_but_only_when_held(desk):
    desk.make(LOCK, Kind.LOCK)
    assert code(desk.do(BOB, Release(LOCK))) is RejectCode.TOO_MANY
    desk.do(ANN, Acquire(LOCK))
    assert desk.do(BOB, Release(LOCK)) == Done()
    assert code(desk.do(ANN, Release(LOCK))) is RejectCode.TOO_MANY


def test_a_lock_is_not_reentrant(desk):
    desk.make(LOCK, Kind.LOCK)
    desk.do(ANN, Acquire(LOCK))
    assert desk.do(ANN, Acquire(LOCK)) is None
    desk.expire(ANN)
    assert desk.answers[ANN] == Done(False)


def test_an_rlock_is_released_by_its_holder_as_often_as_it_was_acquired(desk):
    desk.make(LOCK, Kind.RLOCK)
    first, second = desk.do(ANN, Acquire(LOCK)), desk.do(ANN, Acquire(LOCK))
    # A resource that saw the inner token would refuse the outer one.
    assert first.token == second.token
    assert desk.do(BOB, Acquire(LOCK)) is None
    assert code(desk.do(CY, Release(LOCK))) is RejectCode.NOT_HELD
    assert code(desk.do(ANN, Release(LOCK, 3))) is RejectCode.TOO_MANY
    desk.do(ANN, Release(LOCK))
    assert BOB not in desk.answers
    desk.do(ANN, Release(LOCK))
    assert desk.answers[BOB].value
    assert code(desk.do(ANN, Release(LOCK))) is RejectCode.NOT_HELD


def test_who_waited_long_enough_is_not_given_the_lock_later(desk):
    desk.make(LOCK, Kind.LOCK)
    desk.do(ANN, Acquire(LOCK))
    desk.do(BOB, Acquire(LOCK))
    desk.expire(BOB)
    assert desk.answers.pop(BOB) == Done(False)
    desk.do(ANN, Release(LOCK))
    assert desk.numbers_of(LOCK)[0] == 0
    assert BOB not in desk.answers


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_lock_is_released_when_its_holder_ends(desk, is_clean):
    desk.make(LOCK, Kind.RLOCK)
    desk.do(ANN, Acquire(LOCK))
    desk.do(ANN, Acquire(LOCK))
    desk.do(BOB, Acquire(LOCK))
    desk.end(ANN, is_clean=is_clean)
    assert desk.answers[BOB].value


def test_a_lock_is_never_given_to_one_of_several_takers_that_end_together(desk):
    desk.make(LOCK, Kind.LOCK)
    desk.do(ANN, Acquire(LOCK))
    for taker in (BOB, CY, DAN):
        desk.do(taker, Acquire(LOCK))
    desk.end(ANN, BOB, CY)
    assert set(desk.answers) == {DAN}


def test_a_waiter_whose_connection_broke_is_passed_over(desk):
    desk.make(LOCK, Kind.LOCK)
    desk.do(ANN, Acquire(LOCK))
    desk.do(BOB, Acquire(LOCK))
    desk.do(CY, Acquire(LOCK))
    desk.machine.step_aside(BOB)
    desk.do(ANN, Release(LOCK))
    assert set(desk.answers) == {CY}


# --- semaphores ------------------------------------------------------------------------


def test_a_semaphore_lets_as_many_in_as_its_value_says(desk):
    desk.make(LOCK, Kind.SEMAPHORE, 2)
    assert [desk.do(taker, Acquire(LOCK)) is None for taker in (ANN, BOB, CY, DAN)] == [
        *(False, False, True, True)
    ]
    desk.do(ANN, Release(LOCK, 2))
    assert desk.answers[CY].token < desk.answers[DAN].token
    assert desk.numbers_of(LOCK)[0] == 0


def test_a_semaphore_may_be_released_beyond_its_first_value_unless_it_is_bounded(desk):
    desk.make(LOCK, Kind.SEMAPHORE, 1)
    desk.make(OTHER, Kind.BOUNDED_SEMAPHORE, 1)
    assert desk.do(ANN, Release(LOCK)) == Done()
    assert desk.numbers_of(LOCK)[0] == 2
    assert code(desk.do(ANN, Release(OTHER))) is RejectCode.TOO_MANY
    assert code(desk.do(ANN, Release(LOCK, 2**31))) is RejectCode.TOO_MANY


@pytest.mark.parametrize(("is_clean", "value"), [(True, 1), (False, 3)])
def test_only_a_taker_that_died_gives_its_semaphore_holds_back(desk, is_clean, value):
    desk.make(LOCK, Kind.BOUNDED_SEMAPHORE, 3)
    desk.do(ANN, Acquire(LOCK))
    desk.do(ANN, Acquire(LOCK))
    desk.end(ANN, is_clean=is_clean)
    assert desk.numbers_of(LOCK)[0] == value


def test_what_a_dead_taker_held_goes_to_those_who_wait(desk):
    desk.make(LOCK, Kind.SEMAPHORE, 1)
    desk.do(ANN, Acquire(LOCK))
    desk.do(BOB, Acquire(LOCK))
    desk.end(ANN)
    assert desk.answers[BOB].value


def test_a_hold_that_another_has_released_is_not_given_back_again(desk):
    desk.make(LOCK, Kind.SEMAPHORE, 1)
    desk.do(ANN, Acquire(LOCK))
    desk.do(BOB, Release(LOCK))
    desk.end(ANN)
    assert desk.numbers_of(LOCK)[0] == 1


# --- conditions ------------------------------------------------------------------------


@pytest.fixture
def condition(desk):
    """Its number; ANN and BOB wait for it, having held its lock."""
    desk.make(LOCK, Kind.RLOCK)
    desk.make(OTHER, Kind.CONDITION, LOCK)
    desk.do(ANN, Acquire(LOCK))
    desk.do(ANN, Acquire(LOCK))
    assert desk.do(ANN, WaitNotified(OTHER)) is None
    desk.do(BOB, Acquire(LOCK))
    assert desk.do(BOB, WaitNotified(OTHER)) is None
    return OTHER


def test_waiting_and_notifying_need_the_lock(desk, condition):
    assert code(desk.do(CY, WaitNotified(condition))) is RejectCode.NOT_HELD
    assert code(desk.do(CY, Notify(condition))) is RejectCode.NOT_HELD


def test_a_notified_waiter_goes_on_when_it_has_the_lock_as_often_as_before(desk, condition):
    desk.do(CY, Acquire(LOCK))
    assert desk.do(CY, Notify(condition)) == Done(True, 0, 1)
    assert desk.answers == {}
    desk.do(CY, Release(LOCK))
    assert desk.answers[ANN].value
    assert desk.numbers_of(LOCK)[0] == 2
    assert desk.numbers_of(condition) == [1]


def test_notify_all_wakes_them_in_the_order_in_which_they_came(desk, condition):
    desk.do(CY, Acquire(LOCK))
    assert desk.do(CY, Notify(condition, -1)).number == 2
    desk.do(CY, Release(LOCK))
    assert set(desk.answers) == {ANN}
    desk.do(ANN, Release(LOCK, 2))
    assert desk.answers[BOB].value


def test_a_wait_that_timed_out_still_takes_the_lock_again(desk, condition):
    desk.do(CY, Acquire(LOCK))
    desk.expire(ANN)
    assert ANN not in desk.answers
    desk.expire(ANN)
    assert ANN not in desk.answers
    desk.do(CY, Release(LOCK))
    assert (desk.answers[ANN].value, desk.answers[ANN].token > 0) == (False, True)


def test_a_notified_wait_that_comes_again_keeps_its_place_in_the_locks_line(desk, condition):
    desk.do(CY, Acquire(LOCK))
    desk.do(CY, Notify(condition))
    assert desk.machine.act(ANN, desk.numbers[ANN], WaitNotified(condition)) is None
    desk.do(CY, Release(LOCK))
    assert desk.answers[ANN].value
    assert desk.numbers_of(LOCK)[0] == 2


def test_a_notify_that_a_dead_taker_got_is_the_next_one_s(desk, condition):
    desk.do(CY, Acquire(LOCK))
    desk.do(CY, Notify(condition))
    desk.end(ANN)
    desk.do(CY, Release(LOCK))
    assert desk.answers[BOB].value


def test_a_dead_waiter_is_not_notified(desk, condition):
    desk.end(ANN)
    desk.do(CY, Acquire(LOCK))
    assert desk.do(CY, Notify(condition)).number == 1
    desk.do(CY, Release(LOCK))
    assert desk.answers[BOB].value


def test_waiters_of_a_condition_whose_lock_is_dropped_are_told(desk, condition):
    desk.machine.drop(LOCK)
    desk.hear()
    assert code(desk.answers[ANN]) is code(desk.answers[BOB]) is RejectCode.NOT_FOUND


# --- events and barriers ---------------------------------------------------------------


def test_an_event_wakes_all_who_wait_and_lets_later_ones_pass(desk):
    desk.make(LOCK, Kind.EVENT)
    assert desk.do(ANN, WaitSet(LOCK)) is None
    assert desk.do(BOB, WaitSet(LOCK)) is None
    desk.do(CY, SetEvent(LOCK))
    assert desk.answers == {ANN: Done(), BOB: Done()}
    assert desk.do(DAN, WaitSet(LOCK)) == Done()
    desk.do(CY, SetEvent(LOCK, False))
    assert desk.do(DAN, WaitSet(LOCK)) is None
    desk.expire(DAN)
    assert desk.answers[DAN] == Done(False)


def test_a_barrier_lets_its_parties_through_together_and_again(desk):
    desk.make(LOCK, Kind.BARRIER, 3)
    for _ in range(2):
        assert desk.do(ANN, PassBarrier(LOCK)) is None
        assert desk.do(BOB, PassBarrier(LOCK)) is None
        last = desk.do(CY, PassBarrier(LOCK))
        assert [desk.answers[ANN].number, desk.answers[BOB].number, last.number] == [0, 1, 2]


@pytest.mark.parametrize("how", ["timeout", "death", "abort", "reset"])
def test_a_barrier_breaks_for_all_when_one_party_fails_to_come(desk, how):
    desk.make(LOCK, Kind.BARRIER, 3)
    desk.do(ANN, PassBarrier(LOCK))
    desk.do(BOB, PassBarrier(LOCK))
    if how == "timeout":
        desk.expire(ANN)
        assert code(desk.answers[ANN]) is RejectCode.BROKEN
    elif how == "death":
        desk.end(ANN)
        assert ANN not in desk.answers
    else:
        desk.do(CY, ResetBarrier(LOCK, how == "abort"))
    assert code(desk.answers[BOB]) is RejectCode.BROKEN
    later = desk.do(DAN, PassBarrier(LOCK))
    assert (later is None) is (how == "reset")
    desk.end(DAN)
    desk.do(CY, ResetBarrier(LOCK))
    assert desk.numbers_of(LOCK) == [0, 3, 0]


def act_at_barrier(desk):
    """Ann and Bob wait for what Cy does; its token."""
    desk.make(LOCK, Kind.BARRIER, 3)
    assert desk.do(ANN, PassBarrier(LOCK, has_action=True)) is None
    assert desk.do(BOB, PassBarrier(LOCK, has_action=True)) is None
    last = desk.do(CY, PassBarrier(LOCK, has_action=True))
    assert last.number == 2
    assert not desk.answers
    return last.token


def test_the_last_at_a_barrier_acts_while_the_others_wait_however_long(desk):
    token = act_at_barrier(desk)
    assert token
    desk.expire(ANN)
    assert not desk.answers
    assert desk.do(CY, FinishAction(LOCK, token)) == Done()
    assert [desk.answers[ANN].number, desk.answers[BOB].number] == [0, 1]
    assert code(desk.do(CY, FinishAction(LOCK, token))) is RejectCode.BROKEN
    assert desk.numbers_of(LOCK) == [0, 3, 0]


@pytest.mark.parametrize("how", ["failure", "death", "abort", "reset", "death of another"])
def test_a_barrier_whose_action_comes_to_nothing_breaks_once(desk, how):
    token = act_at_barrier(desk)
    if how == "failure":
        assert desk.do(CY, FinishAction(LOCK, token, has_failed=True)) == Done()
    elif how.startswith("death"):
        desk.end(CY if how == "death" else ANN)
    else:
        desk.do(DAN, ResetBarrier(LOCK, how == "abort"))
    assert code(desk.answers[BOB]) is RejectCode.BROKEN
    desk.do(DAN, ResetBarrier(LOCK))
    for has_failed in (True, False):
        result = desk.do(CY, FinishAction(LOCK, token, has_failed))
        assert code(result) is RejectCode.BROKEN
    assert desk.numbers_of(LOCK) == [0, 3, 0]


def test_who_comes_to_a_barrier_during_its_action_is_of_the_next_round(desk):
    desk.make(LOCK, Kind.BARRIER, 2)
    desk.do(ANN, PassBarrier(LOCK, has_action=True))
    token = desk.do(BOB, PassBarrier(LOCK, has_action=True)).token
    assert desk.do(CY, PassBarrier(LOCK, has_action=True)) is None
    assert desk.do(DAN, PassBarrier(LOCK, has_action=True)) is None
    desk.do(BOB, FinishAction(LOCK, token))
    assert desk.answers.pop(ANN) == Done()
    (acting,) = desk.answers.items()
    assert acting == (DAN, Done(True, acting[1].token, 1))
    assert acting[1].token > token
    desk.do(DAN, FinishAction(LOCK, acting[1].token))
    assert desk.answers == {CY: Done()}


def test_who_waited_too_long_for_the_next_round_breaks_it_and_not_the_one_before(desk):
    desk.make(LOCK, Kind.BARRIER, 2)
    desk.do(ANN, PassBarrier(LOCK, has_action=True))
    token = desk.do(BOB, PassBarrier(LOCK, has_action=True)).token
    assert desk.do(CY, PassBarrier(LOCK, has_action=True)) is None
    desk.expire(CY)
    assert not desk.answers
    assert desk.do(BOB, FinishAction(LOCK, token)) == Done()
    assert desk.answers[ANN] == Done()
    assert code(desk.answers[CY]) is RejectCode.BROKEN


# --- values and the rest ---------------------------------------------------------------


def test_a_value_is_read_and_written_in_place(desk):
    desk.make(LOCK, Kind.VALUE, data=b"abcdef")
    assert desk.do(ANN, WriteValue(LOCK, 2, b"XY")) == Done()
    assert desk.do(BOB, ReadValue(LOCK)) == Data(b"abXYef")
    assert desk.do(BOB, ReadValue(LOCK, 3, 5)) == Data(b"Ye")
    assert desk.numbers_of(LOCK) == [6]


@pytest.mark.parametrize(
    "act", [WriteValue(LOCK, 5, b"12"), ReadValue(LOCK, -1, 2), ReadValue(LOCK, 2, 7)]
)
def test_bytes_that_are_not_there_are_neither_read_nor_written(desk, act):
    desk.make(LOCK, Kind.VALUE, data=b"abcdef")
    assert code(desk.do(ANN, act)) is RejectCode.BAD_REQUEST
    assert desk.do(BOB, ReadValue(LOCK)) == Data(b"abcdef")


def test_what_is_missing_or_of_another_kind_is_not_found(desk):
    desk.make(LOCK, Kind.EVENT)
    assert code(desk.do(ANN, Acquire(LOCK))) is RejectCode.NOT_FOUND
    assert code(desk.do(ANN, SetEvent(OTHER))) is RejectCode.NOT_FOUND


def test_who_waits_for_what_is_dropped_is_told(desk):
    desk.make(LOCK, Kind.SEMAPHORE, 0)
    desk.do(ANN, Acquire(LOCK))
    desk.machine.drop(LOCK)
    desk.hear()
    assert code(desk.answers[ANN]) is RejectCode.NOT_FOUND


def test_a_call_that_comes_again_keeps_its_place(desk):
    desk.make(LOCK, Kind.LOCK)
    desk.do(ANN, Acquire(LOCK))
    desk.do(BOB, Acquire(LOCK))
    desk.do(CY, Acquire(LOCK))
    assert desk.machine.act(BOB, desk.numbers[BOB], Acquire(LOCK)) is None
    desk.do(ANN, Release(LOCK))
    assert set(desk.answers) == {BOB}


@pytest.mark.parametrize(
    ("kind", "number", "data"),
    [
        (Kind.SEMAPHORE, -1, b""),
        (Kind.BOUNDED_SEMAPHORE, 2**31, b""),
        (Kind.BARRIER, 0, b""),
        (Kind.VALUE, 0, bytes((8 << 20) + 1)),
    ],
)
def test_a_synchronizer_that_makes_no_sense_is_not_made(kind, number, data):
    state = first_state(OpenSynchronizer(kind, "name", number, data))
    assert code(state) is RejectCode.BAD_REQUEST


def test_a_restart_loses_no_waiter_and_no_notify(desk, condition):
    desk.do(CY, Acquire(LOCK))
    desk.do(CY, Notify(condition))
    again = Desk()
    again.numbers = desk.numbers
    for number, kind in ((LOCK, Kind.RLOCK), (OTHER, Kind.CONDITION)):
        again.machine.load(number, kind, encode_state(desk.machine.state(number)))
    again.do(CY, Release(LOCK))
    assert again.answers[ANN].value
    assert again.numbers_of(OTHER) == [1]


@pytest.mark.parametrize("kind", list(Kind))
def test_every_state_survives_being_kept(kind):
    state = first_state(OpenSynchronizer(kind, "name", 3, b"data"))
    assert decode_state(kind, encode_state(state)) == state
