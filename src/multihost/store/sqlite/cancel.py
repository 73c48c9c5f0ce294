"""What people decide: tasks are cancelled, ended ones run again, clients' work goes with them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from multihost.core.ids import first_task, last_task, task_id
from multihost.core.outcome import Ending
from multihost.core.state import Event, Hold, JobState, TaskState
from multihost.store.base import Cancelled, Running
from multihost.store.base import Final as FinalTask
from multihost.store.sqlite.book import Book, Job, Traits
from multihost.store.sqlite.keys import count_key, settle_keys

_COLUMNS: Final = "id, state, hold, key, session, token"
_UNFINISHED = f"SELECT {_COLUMNS} FROM tasks WHERE id BETWEEN ? AND ? AND state <= ? ORDER BY id"
_ONE_UNFINISHED = f"SELECT {_COLUMNS} FROM tasks WHERE id = ? AND state <= ?"
_CANCEL = "UPDATE tasks SET state = 5, hold = 0, due = NULL, session = NULL WHERE id = ?"
_UNSUCCESSFUL = (
    "SELECT id, state, key, lane FROM tasks INDEXED BY tasks_unsuccessful"
    " WHERE state IN (4, 5) AND id BETWEEN ? AND ? ORDER BY id"
)
_ONE_UNSUCCESSFUL = "SELECT id, state, key, lane FROM tasks WHERE id = ? AND state IN (4, 5)"
_RETRY = (
    "UPDATE tasks SET state = 1, hold = ?, due = NULL, expires = NULL,"
    " errors = 0, crashes = 0, losses = 0 WHERE id = ?"
)
_RESULT_BLOB = "SELECT payload FROM results WHERE id = ? AND size IS NOT NULL"
_OWNED = "SELECT number FROM jobs WHERE owner = ? AND state = 0 ORDER BY number"


def cancel(
    book: Book, number: int, indices: Sequence[int] | None, *, only_queued: bool, now: float
) -> Cancelled:
    """Cancel tasks of a job (all of it for None, which also seals it)."""
    job = book.job(number)
    if job is None:
        return Cancelled([], [])
    last_state = TaskState.QUEUED if only_queued else TaskState.RUNNING
    rows = _chosen(book, job, indices, _UNFINISHED, _ONE_UNFINISHED, (last_state,))
    if indices is None:
        # Fewer than it was sealed with, if not all of them had come.
        job.total = job.count
        book.touch(job)
    cancelled = _cancel_rows(book, job, rows)
    settle_keys(book, now)
    return cancelled


def disown(book: Book, owner: int, now: float) -> Cancelled:
    """A client is gone for good: cancel the transient jobs that lived with it."""
    finals: list[FinalTask] = []
    stopped: list[Running] = []
    book.write_counters()
    for (number,) in book.run(_OWNED, (owner,)).fetchall():
        cancelled = cancel(book, number, None, only_queued=False, now=now)
        finals += cancelled.finals
        stopped += cancelled.stopped
    return Cancelled(finals, stopped)


def _chosen(
    book: Book,
    job: Job,
    indices: Sequence[int] | None,
    range_sql: str,
    one_sql: str,
    parameters: tuple[Any, ...],
) -> list[tuple[Any, ...]]:
    """Rows of all tasks of a job, or of those at ``indices``."""
    if indices is None:
        span = (first_task(job.number), last_task(job.number), *parameters)
        return book.run(range_sql, span).fetchall()
    wanted = [(task_id(job.number, index), *parameters) for index in sorted(set(indices))]
    return book.many(one_sql, wanted).fetchall()


def _cancel_rows(book: Book, job: Job, rows: Iterable[tuple[Any, ...]]) -> Cancelled:
    finals = []
    stopped = []
    before: Counter[int] = Counter()
    for task, state, hold, key, session, token in rows:
        before[state] += 1
        finals.append(FinalTask(task, Ending.CANCELLED, b""))
        if state == TaskState.RUNNING:
            stopped.append(Running(session, task, token))
        if key is not None:
            leave_key(book, key, state, hold)
    book.many(_CANCEL, [(final.task,) for final in finals])
    book.record(finals)
    for state, count in before.items():
        book.move(job, TaskState(state), Event.CANCELLED, count)
    return Cancelled(finals, stopped)


def leave_key(book: Book, key: int, state: int, hold: int) -> None:
    """A task with a key ends in this state and hold."""
    if state == TaskState.RUNNING:
        count_key(book, key, running=-1)
    elif state == TaskState.QUEUED and hold == Hold.NONE:
        count_key(book, key, ready=-1)


def retry(book: Book, number: int, indices: Sequence[int] | None, now: float) -> int:
    """Queue failed or cancelled tasks again with fresh limits. How many."""
    job = book.job(number)
    if job is None:
        return 0
    rows = _chosen(book, job, indices, _UNSUCCESSFUL, _ONE_UNSUCCESSFUL, ())
    before: Counter[int] = Counter()
    updates = []
    for task, state, key, lane in rows:
        before[state] += 1
        updates.append((Hold.NONE if key is None else Hold.KEY, task))
        if key is None:
            book.woken.add(lane)
        else:
            count_key(book, key)
        if job.traits & Traits.BLOBS:
            for (digest,) in book.run(_RESULT_BLOB, (task,)):
                book.refer(digest, -1)
    book.many(_RETRY, updates)
    book.many("DELETE FROM results WHERE id = ?", [(task,) for _, task in updates])
    for state, count in before.items():
        book.move(job, TaskState(state), Event.RETRIED, count)
        job.state, job.ended_at = JobState.OPEN, None
    settle_keys(book, now)
    return len(updates)
