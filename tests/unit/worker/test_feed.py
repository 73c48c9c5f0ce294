"""How far ahead tasks are fetched and fed."""

from hypothesis import given
from hypothesis import strategies as st

from multihost.worker import feed

durations = st.floats(0, 1e6, allow_nan=False)


def pace_of(*runs_s):
    pace = feed.Pace()
    for run_s in runs_s:
        pace.note(run_s)
    return pace


def test_nothing_is_fed_ahead_before_a_task_has_ended():
    assert feed.Pace().ahead == 0


def test_tiny_tasks_are_fed_ahead_up_to_a_limit_and_long_ones_not_at_all():
    assert pace_of(0.001).ahead == 10
    assert pace_of(0.0).ahead == feed.MAX_AHEAD
    assert pace_of(feed.AHEAD_S * 1.01).ahead == 0


def test_no_more_is_kept_in_hand_than_a_limit_of_bytes_however_tiny_the_tasks_are():
    pace = pace_of(0.0)
    pace.note(0.0, 64 << 10)
    assert pace.ahead == feed.MAX_AHEAD_BYTES // (64 << 10) < feed.MAX_AHEAD
    for _ in range(100):
        pace.note(0.0, 100)
    assert pace.ahead == feed.MAX_AHEAD


def test_one_long_task_ends_feeding_ahead_at_once_and_one_short_one_does_not_begin_it():
    pace = pace_of(*[0.0001] * 50)
    assert pace.ahead > 0
    pace.note(1.0)
    assert pace.ahead == 0
    pace.note(0.0001)
    assert pace.ahead == 0


def test_many_short_tasks_after_a_long_one_begin_it_again():
    pace = pace_of(1.0, *[0.0001] * 100)
    assert pace.ahead > 0


def test_a_task_that_goes_on_slows_down_before_it_has_ended():
    pace = pace_of(0.0001)
    pace.slow_down(0.5)
    assert pace.ahead == 0
    pace.slow_down(0.01)
    assert pace.run_s == 0.5


@given(st.lists(durations, min_size=1))
def test_the_pace_stays_within_what_was_seen_and_the_limit(runs_s):
    pace = pace_of(*runs_s)
    assert 0 <= pace.run_s <= max(runs_s) * (1 + 1e-9)
    assert 0 <= pace.ahead <= feed.MAX_AHEAD


@given(st.integers(0, 64), st.integers(0, feed.MAX_AHEAD), st.integers(0, 100_000))
def test_room_fills_every_slot_and_what_is_kept_ahead_and_is_never_negative(slots, ahead, in_hand):
    room = feed.room(slots, ahead, in_hand)
    assert room == max(0, slots + slots * ahead - in_hand)


@given(st.integers(1, 64), st.integers(0, feed.MAX_AHEAD), st.data())
def test_a_worker_with_an_idle_slot_never_keeps_its_room_to_itself(slots, ahead, data):
    # Whatever the server was told, the slots that are free beyond it are said in time.
    in_hand = data.draw(st.integers(0, slots * (1 + ahead)))
    room = feed.room(slots, ahead, in_hand)
    is_said = feed.is_worth_saying(room, 0, slots, ahead)
    assert is_said == (room > 0)


def test_room_is_said_for_every_task_when_tasks_are_long_and_by_halves_when_they_are_tiny():
    assert feed.is_worth_saying(1, 0, slots=2, ahead=0)
    assert feed.is_worth_saying(2, 1, slots=2, ahead=0)
    assert not feed.is_worth_saying(1, 1, slots=2, ahead=0)
    assert not feed.is_worth_saying(30, 21, slots=2, ahead=9)
    assert feed.is_worth_saying(30, 20, slots=2, ahead=9)
