"""What follows by itself: time passes, jobs end, jobs that waited for them begin or don't."""

from typing import Final

from multihost.core.ids import first_task, last_task
from multihost.core.outcome import Ending
from multihost.core.state import Event, JobState, TaskState, job_state
from multihost.store import failures
from multihost.store.base import Changes, Promotion
from multihost.store.base import Final as FinalTask
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import DOOMED, Job
from multihost.store.sqlite.keys import leave_key, next_wake, settle_keys, wake_keys
from multihost.store.sqlite.settling import What, go_on, settle

PROMOTED_ROWS: Final = 10_000
"""Tasks that one ``promote`` wakes and expires at most; with more it asks to be called again."""

_EXPIRED = (
    "SELECT id, state, place, key FROM tasks INDEXED BY tasks_expires"
    " WHERE expires IS NOT NULL AND state <= 1 AND expires <= ? ORDER BY expires LIMIT ?"
)
_EXPIRE = "UPDATE tasks SET state = 4, place = NULL, due = NULL WHERE id = ?"
_DUE = (
    "SELECT id, key FROM tasks INDEXED BY tasks_due"
    " WHERE due IS NOT NULL AND state = 1 AND due <= ? ORDER BY due LIMIT ?"
)
_AWAKE = "UPDATE tasks SET place = ?, due = NULL WHERE id = ?"
_NEXT_DUE = "SELECT min(due) FROM tasks INDEXED BY tasks_due WHERE due IS NOT NULL AND state = 1"
_NEXT_EXPIRY = (
    "SELECT min(expires) FROM tasks INDEXED BY tasks_expires"
    " WHERE expires IS NOT NULL AND state <= 1"
)
_TURN_BACK = (
    "UPDATE tasks INDEXED BY tasks_due SET due = due - ? WHERE due IS NOT NULL AND state = 1",
    (
        "UPDATE tasks INDEXED BY tasks_expires SET expires = expires - ?"
        " WHERE expires IS NOT NULL AND state <= 1"
    ),
)
_TURN_BACK_BLOCKED = (
    "UPDATE tasks SET due = due - ? WHERE id BETWEEN ? AND ? AND due IS NOT NULL AND state = 0"
)
_TURN_BACK_RUNNING = "UPDATE tasks SET expires = expires - ? WHERE id = ?"
_TURN_BACK_KEYS = "UPDATE keys SET next_at = next_at - ?, wake_at = wake_at - ?"
_BLOCKED = "SELECT DISTINCT job FROM dependencies"
_DEPENDENTS = "SELECT job FROM dependencies WHERE needs = ?"
_MET = "DELETE FROM dependencies WHERE needs = ?"


# --- time -------------------------------------------------------------------------------


def promote(book: Book, now: float) -> Promotion:
    """Make ready what was due by ``now``, expire what waited too long, set ``wake_at``."""
    finals = go_on(book, now)
    finals += _expire(book, now)
    _wake(book, now)
    wake_keys(book, now)
    book.wake_at = next_time(book)
    return Promotion(finals)


def next_time(book: Book) -> float | None:
    """When ``promote`` has work to do; 0: at once."""
    if book.settling:
        return 0.0
    times = (book.run(_NEXT_DUE).get, book.run(_NEXT_EXPIRY).get, next_wake(book))
    return min((at for at in times if at is not None), default=None)


def _expire(book: Book, now: float) -> list[FinalTask]:
    finals = []
    for task, state, place, key in book.run(_EXPIRED, (now, PROMOTED_ROWS)).fetchall():
        job = book.job_of(task)
        finals.append(FinalTask(task, Ending.EXPIRED, failures.expired(job.spec)))
        book.move(job, TaskState(state), Event.EXPIRED)
        if key is not None:
            leave_key(book, key, place)
    if finals:
        book.change(_EXPIRE, [(final.task,) for final in finals])
        book.record(finals)
        settle_keys(book, now)
    return finals


def _wake(book: Book, now: float) -> None:
    rows = book.run(_DUE, (now, PROMOTED_ROWS)).fetchall()
    book.change(_AWAKE, [(book.ready_place(task, key), task) for task, key in rows])
    settle_keys(book, now)


def turn_back(book: Book, by_s: float) -> None:
    """Move every time that something waits for, after the clock was set back."""
    for sql in _TURN_BACK:
        book.run(sql, (by_s,))
    blocked = {number for (number,) in book.run(_BLOCKED)} | set(book.settling)
    spans = [(by_s, first_task(number), last_task(number)) for number in sorted(blocked)]
    book.many(_TURN_BACK_BLOCKED, spans)
    book.many(_TURN_BACK_RUNNING, [(by_s, task) for task in book.running])
    book.run(_TURN_BACK_KEYS, (by_s, by_s))
    book.wake_at = next_time(book)


# --- the end of jobs --------------------------------------------------------------------


def prepare(book: Book, now: float) -> Changes:
    """Write the counters, end what has ended; the last call before ``commit``."""
    ended: dict[int, Job] = {}
    finals: list[FinalTask] = []
    looked_at: dict[int, Job] = {}
    while book.dirty_jobs:
        # Ending one job may touch others, those that wait for it.
        jobs, book.dirty_jobs = book.dirty_jobs, {}
        looked_at |= jobs
        for job in jobs.values():
            is_doomed = job.needs == DOOMED and job.counts[TaskState.BLOCKED] > 0
            if is_doomed and job.number not in book.settling:
                finals += settle(book, job, What.GIVE_UP, now)
            if _look(book, job, now):
                ended[job.number] = job
    book.dirty_jobs = looked_at
    book.write_counters()
    book.items.write()
    book.write_references(now)
    book.dirty_jobs = {}
    return Changes([job.row() for job in ended.values()], finals)


def _look(book: Book, job: Job, now: float) -> bool:
    """Set a job's state by its counters; whether it has just ended."""
    blocked, queued, running, succeeded, failed, cancelled = job.counts
    unfinished = blocked + queued + running
    if job.total is not None:
        unfinished = max(unfinished, job.total - succeeded - failed - cancelled)
    before = job.state
    job.state = job_state(
        is_sealed=job.total is not None, unfinished=unfinished, failed=failed, cancelled=cancelled
    )
    if job.state is before:
        return False
    book.touch(job)
    if job.state is JobState.OPEN:
        job.ended_at = None
        return False
    job.ended_at = now
    _tell_dependents(book, job, now)
    return True


def _tell_dependents(book: Book, needed: Job, now: float) -> None:
    dependents = book.run(_DEPENDENTS, (needed.number,)).fetchall()
    if dependents:
        book.run(_MET, (needed.number,))
    for (number,) in dependents:
        job = book.job(number)
        if job is None or job.needs == DOOMED:
            continue
        book.touch(job)
        if needed.state is not JobState.SUCCEEDED:
            job.needs = DOOMED
            continue
        job.needs -= 1
        if not job.needs:
            settle(book, job, What.LET_GO, now)
