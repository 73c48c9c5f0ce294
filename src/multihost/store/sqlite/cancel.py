"""What people decide: tasks are cancelled, ended ones run again, clients' work goes with them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from multihost.core.ids import INDEX_BITS, first_task, last_task, task_id
from multihost.core.outcome import Ending
from multihost.core.state import Event, JobState, TaskState
from multihost.store.base import Cancelled, Running
from multihost.store.base import Final as FinalTask
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import Job, Traits
from multihost.store.sqlite.keys import settle_keys
from multihost.store.sqlite.settling import What, cancel_rows, settle, stop_cancelling


class _Choice(NamedTuple):
    """How to read tasks: all of a job, or one."""

    all: str
    one: str


_UNFINISHED = _Choice(
    "SELECT id, state, place, due, key FROM tasks"
    " WHERE id BETWEEN ? AND ? AND state <= ? ORDER BY id",
    "SELECT id, state, place, due, key FROM tasks WHERE id = ? AND state <= ?",
)
_UNSUCCESSFUL = _Choice(
    "SELECT id, state, key FROM tasks INDEXED BY tasks_unsuccessful"
    " WHERE state >= 4 AND state IN (4, 5) AND id BETWEEN ? AND ? ORDER BY id",
    "SELECT id, state, key FROM tasks WHERE id = ? AND state IN (4, 5)",
)
_RETRY = (
    "UPDATE tasks SET state = 1, place = ?, due = NULL, expires = NULL,"
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
    if indices is None:
        # Fewer than it was sealed with, if not all of them had come.
        job.total = job.count
        book.touch(job)
        rows = [] if only_queued else _running(book, number)
    else:
        last_state = TaskState.QUEUED if only_queued else TaskState.RUNNING
        rows = _chosen(book, job, indices, _UNFINISHED, last_state)
    finals, stopped = _cancel_rows(book, job, rows)
    if indices is None:
        finals += settle(book, job, What.CANCEL, now)
        finals.sort()
    settle_keys(book, now)
    return Cancelled(finals, stopped)


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
    book: Book, job: Job, indices: Sequence[int] | None, choice: _Choice, *parameters: int
) -> list[tuple[Any, ...]]:
    """Rows of all tasks of a job, or of those at ``indices``."""
    if indices is None:
        span = (first_task(job.number), last_task(job.number), *parameters)
        return book.run(choice.all, span).fetchall()
    wanted = [
        (task_id(job.number, index), *parameters)
        for index in sorted(set(indices))
        if 0 <= index < job.next_index
    ]
    return book.many(choice.one, wanted).fetchall()


def _running(book: Book, number: int) -> list[tuple[Any, ...]]:
    """Rows, as ``cancel_rows`` takes them, of what runs of a job."""
    return [
        (task, TaskState.RUNNING, -session, None, key)
        for task, (_, session, key, _) in book.running.items()
        if task >> INDEX_BITS == number
    ]


def _cancel_rows(book: Book, job: Job, rows: list[tuple[Any, ...]]) -> Cancelled:
    """Cancel tasks; those that ran are to be stopped."""
    stopped = []
    for task, state, _, _, _ in rows:
        if state == TaskState.RUNNING:
            token, session, _, _ = book.running.pop(task)
            stopped.append(Running(session, task, token))
    reason = (Event.CANCELLED, Ending.CANCELLED, b"")
    return Cancelled(cancel_rows(book, job, rows, reason), sorted(stopped))


def retry(book: Book, number: int, indices: Sequence[int] | None, now: float) -> int:
    """Queue failed or cancelled tasks again with fresh limits. How many."""
    job = book.job(number)
    if job is None:
        return 0
    if indices is None:
        stop_cancelling(book, job)
    rows = _chosen(book, job, indices, _UNSUCCESSFUL)
    before: Counter[int] = Counter()
    updates = []
    for task, state, key in rows:
        before[state] += 1
        updates.append((book.ready_place(task, key), task))
        if job.traits & Traits.BLOBS:
            for (digest,) in book.run(_RESULT_BLOB, (task,)):
                book.refer(digest, -1)
    book.change(_RETRY, updates)
    book.many("DELETE FROM results WHERE id = ?", [(task,) for _, task in updates])
    for state, count in before.items():
        book.move(job, TaskState(state), Event.RETRIED, count)
        job.state, job.ended_at = JobState.OPEN, None
        book.touch(job)
    settle_keys(book, now)
    return len(updates)
