"""The states of a task and the one table of what may follow what.

Every store and every model checks a change of state against ``TRANSITIONS``;
a pair that is not in it is an error, never a shrug. The diagram in the docs
is drawn from this table.
"""

from enum import IntEnum
from typing import Final


class TaskState(IntEnum):
    """Where a task stands. The numbers are stored: never renumber."""

    BLOCKED = 0
    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def is_final(self) -> bool:
        """Whether nothing but an explicit retry leaves this state."""
        return self >= TaskState.SUCCEEDED


class Hold(IntEnum):
    """Why a queued task is not ready to be leased yet."""

    NONE = 0
    """Ready."""
    TIME = 1
    """Not before its due time."""
    KEY = 2
    """Its key runs as many tasks as it may."""


class JobState(IntEnum):
    """Where a job as a whole stands; follows from the counts of its tasks."""

    OPEN = 0
    """Takes more tasks, or some are unfinished."""
    SUCCEEDED = 1
    """Sealed, and every task succeeded."""
    FAILED = 2
    """Sealed, all tasks ended, at least one failed."""
    CANCELLED = 3
    """Sealed, all tasks ended, none failed, at least one was cancelled."""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self is not JobState.OPEN


class Event(IntEnum):
    """What happened to a task."""

    DEPENDENCIES_MET = 0
    DEPENDENCY_FAILED = 1
    LEASED = 2
    RELEASED = 3
    SUCCEEDED = 4
    ERRED = 5
    """The code raised; more attempts are left."""
    FAILED = 6
    """The code raised, timed out or died for the last time allowed."""
    CRASHED = 7
    """Its process died; it may start again."""
    LOST = 8
    """Its worker vanished; it may start again."""
    CANCELLED = 9
    EXPIRED = 10
    """It waited longer than its time to live."""
    RETRIED = 11
    """A person asked for a new run of a task that had ended."""


TRANSITIONS: Final[dict[tuple[TaskState, Event], TaskState]] = {
    (TaskState.BLOCKED, Event.DEPENDENCIES_MET): TaskState.QUEUED,
    (TaskState.BLOCKED, Event.DEPENDENCY_FAILED): TaskState.CANCELLED,
    (TaskState.BLOCKED, Event.CANCELLED): TaskState.CANCELLED,
    (TaskState.BLOCKED, Event.EXPIRED): TaskState.FAILED,
    (TaskState.QUEUED, Event.LEASED): TaskState.RUNNING,
    (TaskState.QUEUED, Event.CANCELLED): TaskState.CANCELLED,
    (TaskState.QUEUED, Event.EXPIRED): TaskState.FAILED,
    (TaskState.RUNNING, Event.RELEASED): TaskState.QUEUED,
    (TaskState.RUNNING, Event.SUCCEEDED): TaskState.SUCCEEDED,
    (TaskState.RUNNING, Event.ERRED): TaskState.QUEUED,
    (TaskState.RUNNING, Event.CRASHED): TaskState.QUEUED,
    (TaskState.RUNNING, Event.LOST): TaskState.QUEUED,
    (TaskState.RUNNING, Event.FAILED): TaskState.FAILED,
    (TaskState.RUNNING, Event.CANCELLED): TaskState.CANCELLED,
    (TaskState.FAILED, Event.RETRIED): TaskState.QUEUED,
    (TaskState.CANCELLED, Event.RETRIED): TaskState.QUEUED,
}


class IllegalTransitionError(Exception):
    """An event reached a task in a state that does not allow it."""


def after(state: TaskState, event: Event) -> TaskState:
    """State that follows ``state`` when ``event`` happens.

    Raises IllegalTransitionError when the table has no such pair.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        message = f"a {state.name.lower()} task cannot be {event.name.lower()}"
        raise IllegalTransitionError(message) from None


def job_state(*, is_sealed: bool, unfinished: int, failed: int, cancelled: int) -> JobState:
    """State of a job from the counts of its tasks."""
    if unfinished or not is_sealed:
        return JobState.OPEN
    if failed:
        return JobState.FAILED
    return JobState.CANCELLED if cancelled else JobState.SUCCEEDED
