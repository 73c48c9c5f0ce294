"""Listings: pages of rows by number, never a count over tasks."""

from typing import Any, Final

from multihost.core.ids import MAX_INDEX, MAX_JOB, is_task, last_task, task_id
from multihost.core.outcome import Ending
from multihost.core.resources import Requirement
from multihost.core.state import Hold, JobState, TaskState
from multihost.store.base import AttemptRow, JobRow, Lane, QueueRow, SessionRow, TaskRow
from multihost.store.base import Final as FinalTask
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import by_state, decode_session, decode_spec
from multihost.wire.message import Blob, Role

_JOBS: Final = (
    "SELECT number, uid, spec, state, created_at, ended_at, total, blocked, queued, running,"
    " succeeded, failed, cancelled, owner FROM jobs {}"
    " WHERE number < ? {} ORDER BY number DESC LIMIT ?"
)
# Most jobs succeed, so those are found soon without an index; the others have one each.
_JOBS_IN: Final[dict[JobState | None, str]] = {
    None: _JOBS.format("", ""),
    JobState.OPEN: _JOBS.format("INDEXED BY jobs_prune", "AND prune_at IS NULL"),
    JobState.SUCCEEDED: _JOBS.format("", "AND state = 1"),
    JobState.FAILED: _JOBS.format("INDEXED BY jobs_unsuccessful", "AND state >= 2 AND state = 2"),
    JobState.CANCELLED: _JOBS.format(
        "INDEXED BY jobs_unsuccessful", "AND state >= 2 AND state = 3"
    ),
}
_TASK: Final = "SELECT id, state, errors, crashes, losses, place, due FROM tasks"
_TASKS: Final[dict[TaskState | None, str]] = {
    None: f"{_TASK} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
    # Partial indices hold the few that run or did not succeed; the planner takes one only where
    # its condition is said literally.
    TaskState.RUNNING: f"{_TASK} INDEXED BY tasks_place WHERE place < 0"
    " AND id BETWEEN ? AND ? ORDER BY id LIMIT ?",
    **{
        state: f"{_TASK} INDEXED BY tasks_unsuccessful WHERE state >= 4 AND state = {state:d}"
        " AND id BETWEEN ? AND ? ORDER BY id LIMIT ?"
        for state in (TaskState.FAILED, TaskState.CANCELLED)
    },
    # Results hold only what has ended, so nothing is skipped that still waits.
    TaskState.SUCCEEDED: "SELECT tasks.id, state, errors, crashes, losses, place, due"
    " FROM results CROSS JOIN tasks ON tasks.id = results.id"
    " WHERE ending = 0 AND results.id BETWEEN ? AND ? ORDER BY results.id LIMIT ?",
    **{
        state: f"{_TASK} WHERE state = {state:d} AND id BETWEEN ? AND ? ORDER BY id LIMIT ?"
        for state in (TaskState.BLOCKED, TaskState.QUEUED)
    },
}
_OUTCOMES = (
    "SELECT id, ending, size, payload FROM results WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
)
_ATTEMPTS = (
    "SELECT task, token, ending, session, ended_at, failure FROM attempts WHERE task = ?"
    " ORDER BY token"
)
_SESSIONS = (
    "SELECT number, info, opened_at, closed_at,"
    " (SELECT count(*) FROM tasks WHERE place = -number) FROM sessions"
    " WHERE role = ? AND closed_at IS {} NULL ORDER BY number DESC"
)


def job_by_number(book: Book, number: int) -> JobRow | None:
    """A job by its number."""
    job = book.job(number)
    return None if job is None else job.row()


def job_by_name(book: Book, name: str) -> JobRow | None:
    """A job by its name."""
    job = book.find_job("name", name)
    return None if job is None else job.row()


def jobs(book: Book, state: JobState | None, before: int | None, limit: int) -> list[JobRow]:
    """Jobs, newest first, with numbers below ``before``."""
    book.write_counters()
    below = book.last_job + 1 if before is None else min(before, book.last_job + 1)
    return [_job_row(*row) for row in book.run(_JOBS_IN[state], (below, limit))]


def _job_row(number: int, uid: bytes, spec: bytes, state: int, *rest: Any) -> JobRow:
    return JobRow(number, uid, decode_spec(spec), JobState(state), *rest)


def queues(book: Book) -> list[QueueRow]:
    """Every queue, by name."""
    rows = []
    for name in sorted(book.queues):
        queue = book.queues[name]
        counts = [sum(lane.counts[state] for lane in queue.lanes) for state in TaskState]
        rows.append(QueueRow(name, *by_state(counts), queue.is_paused, queue.limit))
    return rows


def lanes(book: Book) -> list[Lane]:
    """Every lane, of paused queues too."""
    return [
        Lane(lane.number, lane.queue, Requirement.decode(lane.requires))
        for lane in book.lanes.values()
    ]


def paused_queues(book: Book) -> frozenset[str]:
    """Names of the queues that hand out nothing at present."""
    return frozenset(queue.name for queue in book.queues.values() if queue.is_paused)


def task(book: Book, number: int) -> TaskRow | None:
    """A task by its number."""
    if not is_task(number):
        return None
    row = book.run(f"{_TASK} WHERE id = ?", (number,)).fetchone()
    return None if row is None else _task_row(row)


def tasks(
    book: Book, job: int, state: TaskState | None, after_index: int, limit: int
) -> list[TaskRow]:
    """Tasks of a job, by index."""
    span = _span(job, after_index)
    known = book.job(job)
    if span is None or known is None or (state is not None and not known.counts[state]):
        return []
    return [_task_row(row) for row in book.run(_TASKS[state], (*span, limit))]


def _span(job: int, after_index: int) -> tuple[int, int] | None:
    """Numbers of the first and the last task to list; None when there can't be any."""
    if not 0 < job <= MAX_JOB or after_index >= MAX_INDEX:
        return None
    return task_id(job, max(0, after_index + 1)), last_task(job)


def _task_row(row: tuple[Any, ...]) -> TaskRow:
    number, state, errors, crashes, losses, place, due = row
    session = -place if place is not None and place < 0 else None
    hold = Hold.NONE
    if state == TaskState.QUEUED and place is None:
        hold = Hold.KEY if due is None else Hold.TIME
    return TaskRow(number, TaskState(state), errors, crashes, losses, session, due, hold)


def outcomes(book: Book, job: int, after_index: int, limit: int) -> list[FinalTask]:
    """Ended tasks with an index above ``after_index``, by index."""
    span = _span(job, after_index)
    if span is None:
        return []
    return [
        FinalTask(number, Ending(ending), payload if size is None else Blob(payload, size))
        for number, ending, size, payload in book.run(_OUTCOMES, (*span, limit))
    ]


def attempts(book: Book, number: int) -> list[AttemptRow]:
    """Attempts of a task that did not succeed, oldest first."""
    if not is_task(number):
        return []
    return [
        AttemptRow(task, token, Ending(ending), *rest)
        for task, token, ending, *rest in book.run(_ATTEMPTS, (number,))
    ]


def sessions(book: Book, role: Role, *, is_open: bool) -> list[SessionRow]:
    """Sessions of a role, newest first."""
    sql = _SESSIONS.format("" if is_open else "NOT")
    return [
        SessionRow(number, decode_session(info), *rest)
        for number, info, *rest in book.run(sql, (role,))
    ]
