"""Again, when, or never: what becomes of a task after an attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.core.retry import (
    Backoff,
    Faults,
    Limits,
    after_crash,
    after_error,
    after_loss,
)
from multihost.core.state import Event

backoffs = st.builds(
    Backoff, st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 1e6), st.floats(0, 1)
)


def test_the_wait_doubles_up_to_its_maximum():
    backoff = Backoff(first_s=1.0, factor=2.0, max_s=10.0, jitter=0.0)
    waits = [backoff.delay_s(failures, 0.5) for failures in range(1, 7)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_chance_spreads_the_wait_to_both_sides():
    backoff = Backoff(first_s=100.0, jitter=0.25)
    assert backoff.delay_s(1, 0.0) == 75.0
    assert backoff.delay_s(1, 0.5) == 100.0
    assert backoff.delay_s(1, 1.0) == 125.0


def test_without_failures_or_without_a_first_wait_there_is_none():
    assert Backoff().delay_s(0, 0.5) == 0.0
    assert Backoff(first_s=0.0).delay_s(9, 0.5) == 0.0


@given(backoffs, st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_never_negative_nor_above_the_spread_maximum(backoff, failures, chance):
    assert 0.0 <= backoff.delay_s(failures, chance) <= backoff.max_s * (1 + backoff.jitter)


def test_the_last_error_allowed_fails_the_task():
    limits = Limits(max_attempts=2)
    first = after_error(Faults(), limits, Backoff(5.0, jitter=0.0), 0.5)
    assert (first.event, first.faults, first.delay_s) == (Event.ERRED, Faults(errors=1), 5.0)
    second = after_error(first.faults, limits, Backoff(5.0), 0.5)
    assert (second.event, second.faults, second.delay_s) == (Event.FAILED, Faults(errors=2), 0.0)


@pytest.mark.parametrize(
    ("verdict", "event", "field"),
    [(after_crash, Event.CRASHED, "crashes"), (after_loss, Event.LOST, "losses")],
)
def test_crashes_and_losses_are_counted_apart_and_waited_for_by_nobody(verdict, event, field):
    limits = Limits(max_attempts=1, max_crashes=2, max_losses=2)
    before = Faults(errors=7)
    first = verdict(before, limits)
    assert (first.event, first.delay_s) == (event, 0.0)
    assert first.faults == before._replace(**{field: 1})
    assert verdict(first.faults, limits).event is Event.FAILED
