"""The table of transitions, and what a job's state is by its counters."""

import itertools

import pytest

from multihost.core.state import (
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    JobState,
    TaskState,
    after,
    job_state,
)


def test_every_pair_is_in_the_table_or_an_error():
    for state, event in itertools.product(TaskState, Event):
        if (state, event) in TRANSITIONS:
            assert after(state, event) is TRANSITIONS[state, event]
        else:
            with pytest.raises(IllegalTransitionError, match=state.name.lower()):
                after(state, event)


def test_only_a_retry_leaves_a_final_state():
    left = {(state, event) for state, event in TRANSITIONS if state.is_final}
    assert left == {
        (TaskState.FAILED, Event.RETRIED),
        (TaskState.CANCELLED, Event.RETRIED),
    }


def test_every_state_can_be_reached_and_every_event_can_happen():
    assert set(TRANSITIONS.values()) | {TaskState.BLOCKED} == set(TaskState)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_a_running_task_ends_or_is_queued_again():
    after_running = {to for (state, _), to in TRANSITIONS.items() if state is TaskState.RUNNING}
    assert after_running == {
        TaskState.QUEUED,
        TaskState.SUCCEEDED,
        TaskState.FAILED,
        TaskState.CANCELLED,
    }


def test_stored_numbers_never_change():
    assert [state.value for state in TaskState] == list(range(6))
    assert TaskState(3) is TaskState.SUCCEEDED
    assert [state.value for state in JobState] == list(range(4))


@pytest.mark.parametrize(
    ("is_sealed", "unfinished", "failed", "cancelled", "expected"),
    [
        (False, 0, 0, 0, JobState.OPEN),
        (False, 0, 5, 5, JobState.OPEN),
        (True, 1, 5, 5, JobState.OPEN),
        (True, 0, 0, 0, JobState.SUCCEEDED),
        (True, 0, 1, 0, JobState.FAILED),
        (True, 0, 1, 9, JobState.FAILED),
        (True, 0, 0, 1, JobState.CANCELLED),
    ],
)
def test_a_jobs_state_follows_from_its_counters(is_sealed, unfinished, failed, cancelled, expected):
    state = job_state(
        is_sealed=is_sealed, unfinished=unfinished, failed=failed, cancelled=cancelled
    )
    assert state is expected
    assert state.is_final is (expected is not JobState.OPEN)
