"""What is not needed any more goes: taken results, ended jobs, what nothing refers to."""

from typing import Final

from multihost.core.ids import first_task, index_of, last_task, task_id
from multihost.core.job import DAY_S, blobs_of
from multihost.core.state import TaskState
from multihost.store.base import Refusal
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import Job, Traits
from multihost.store.sqlite.items import clear_graves
from multihost.store.sqlite.jobs import no_job
from multihost.wire.message import RefusalCode

SESSION_RETENTION_S: Final = DAY_S
"""How long a closed session stays in listings."""
TAKEN_ROWS: Final = 5000
"""Tasks that one ``take`` drops at most, so that nobody waits long."""
SPARE_PAGES: Final = 4096
"""Free pages (16 MiB) that the file keeps for what comes next."""

_DUE = "SELECT number FROM jobs WHERE prune_at IS NOT NULL AND prune_at <= ? LIMIT ?"
_LAST_JOB = (
    "INSERT INTO meta (name, value) VALUES ('last_job', ?)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_NTH_TASK = "SELECT id FROM tasks WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1 OFFSET ?"
_ARG_BLOBS = "SELECT args FROM tasks WHERE id BETWEEN ? AND ? AND state >= 3 AND size >= 0"
_RESULT_BLOBS = "SELECT payload FROM results WHERE id BETWEEN ? AND ? AND size IS NOT NULL"
_KEYS = (
    "SELECT count(*), key FROM tasks WHERE id BETWEEN ? AND ? AND state >= 3 AND key IS NOT NULL"
    " GROUP BY key"
)
_DELETE_TASKS = "DELETE FROM tasks WHERE id BETWEEN ? AND ? AND state >= 3"
_ANY_TASK = "SELECT 1 FROM tasks WHERE id BETWEEN ? AND ? LIMIT 1"
_DELETE_PARTS: Final = (
    "DELETE FROM payloads WHERE id BETWEEN ? AND ?",
    "DELETE FROM results WHERE id BETWEEN ? AND ?",
    "DELETE FROM attempts WHERE task BETWEEN ? AND ?",
    "DELETE FROM output WHERE task BETWEEN ? AND ?",
)
_AND_LONE: Final = (
    " AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = payloads.id)",
    " AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = results.id)",
    " AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = attempts.task)",
    " AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = output.task)",
)
_UNUSED_KEYS = (
    "DELETE FROM keys WHERE number IN"
    " (SELECT number FROM keys WHERE refs = 0 AND next_at <= ? LIMIT ?)"
)
_OLD_SESSIONS = (
    "DELETE FROM sessions WHERE number IN (SELECT number FROM sessions AS old"
    " WHERE closed_at IS NOT NULL AND closed_at <= ?"
    " AND NOT EXISTS (SELECT 1 FROM tasks WHERE place = -old.number)"
    " AND NOT EXISTS (SELECT 1 FROM jobs WHERE owner = old.number) LIMIT ?)"
)


def take(book: Book, number: int, upto: int) -> int:
    """Drop ended tasks of a transient job below index ``upto``. How many."""
    job = book.job(number)
    if job is None or not job.spec.is_transient or upto < 1:
        return 0
    upto = min(upto, job.next_index)
    first, last = first_task(number), task_id(number, upto) - 1
    # The rest goes with the next call, or with the job.
    nth: int | None = book.run(_NTH_TASK, (first, last, TAKEN_ROWS - 1)).get
    if nth is not None:
        last, upto = nth, index_of(nth) + 1
    dropped = _delete(book, first, last, job.traits)
    job.taken = max(job.taken, upto)
    job.dropped += dropped
    book.touch(job)
    return dropped


def prune(book: Book, now: float, limit: int) -> int:
    """Delete ended jobs past their retention, and what is not used any more."""
    left = limit - _bury(book, now, limit)
    left -= _clear_graves(book, left)
    left -= clear_graves(book, left)
    if left > 0:
        left -= _count(book, _UNUSED_KEYS, (now, left))
        left -= _count(book, _OLD_SESSIONS, (now - SESSION_RETENTION_S, left))
        left -= _drop_lanes(book)
    if left == limit:
        return _give_back(book, limit)
    return limit - left


def _bury(book: Book, now: float, limit: int) -> int:
    """Delete jobs whose time is over; their tasks follow, a few at a time."""
    book.write_counters()
    numbers = [number for (number,) in book.run(_DUE, (now, limit))]
    for number in numbers:
        job = book.job(number)
        assert job is not None, number
        _bury_job(book, job)
    if numbers:
        book.run(_LAST_JOB, (book.last_job,))
    return len(numbers)


def delete_job(book: Book, number: int) -> Refusal | None:
    """Delete an ended job now; its tasks follow with ``prune``."""
    job = book.job(number)
    if job is None:
        return no_job(number)
    # The state is set when the transaction ends; a retry in it has changed the counters only.
    if not job.state.is_final or any(
        job.counts[state] for state in TaskState if not state.is_final
    ):
        text = f"job {number} has not ended; cancel it first, or wait for it"
        return Refusal(RefusalCode.BAD_REQUEST, text)
    book.write_counters()
    _bury_job(book, job)
    book.run(_LAST_JOB, (book.last_job,))
    return None


def _bury_job(book: Book, job: Job) -> None:
    lane = job.lane
    lane.jobs -= 1
    for state, count in enumerate(job.counts):
        lane.counts[state] -= count
    book.touch_lane(lane)
    for digest in blobs_of(job.spec):
        book.refer(digest, -1)
    book.run("DELETE FROM jobs WHERE number = ?", (job.number,))
    if job.count > job.dropped:
        book.run("INSERT INTO graves (job, traits) VALUES (?, ?)", (job.number, job.traits))
    book.forget(job.number)


def _clear_graves(book: Book, limit: int) -> int:
    deleted = 0
    while deleted < limit:
        grave = book.run("SELECT job, traits FROM graves LIMIT 1").fetchone()
        if grave is None:
            break
        number, traits = grave
        first, last = first_task(number), last_task(number)
        nth: int | None = book.run(_NTH_TASK, (first, last, limit - deleted - 1)).get
        deleted += _delete(book, first, last if nth is None else nth, traits)
        if nth is None:
            book.run("DELETE FROM graves WHERE job = ?", (number,))
    return deleted


def _delete(book: Book, first: int, last: int, traits: int) -> int:
    """Delete ended tasks from ``first`` to ``last`` with all that belongs to them. How many."""
    span = (first, last)
    if traits & Traits.BLOBS:
        for sql in (_ARG_BLOBS, _RESULT_BLOBS):
            for (digest,) in book.run(sql, span):
                book.refer(digest, -1)
    if traits & Traits.KEYS:
        book.many(
            "UPDATE keys SET refs = refs - ? WHERE number = ?", book.run(_KEYS, span).fetchall()
        )
    deleted = _count(book, _DELETE_TASKS, span)
    is_empty = book.run(_ANY_TASK, span).get is None
    for sql, and_lone in zip(_DELETE_PARTS, _AND_LONE, strict=True):
        book.run(sql if is_empty else sql + and_lone, span)
    return deleted


def _count(book: Book, sql: str, parameters: tuple[float, ...]) -> int:
    book.run(sql, parameters)
    return book.db.changes()


def _drop_lanes(book: Book) -> int:
    unused = [lane for lane in book.lanes.values() if not lane.jobs]
    for lane in unused:
        book.run("DELETE FROM lanes WHERE number = ?", (lane.number,))
        book.remove_lane(lane)
    for queue in list(book.queues.values()):
        if not queue.lanes and not queue.is_paused and queue.limit is None:
            del book.queues[queue.name]
            book.run("DELETE FROM queues WHERE name = ?", (queue.name,))
    return len(unused)


def _give_back(book: Book, limit: int) -> int:
    """Return free pages to the file system when they are many; how many."""
    free: int = book.db.pragma("freelist_count")
    if free <= SPARE_PAGES or free * 4 < book.db.pragma("page_count"):
        return 0
    count = min(limit, free - SPARE_PAGES)
    book.run(f"PRAGMA incremental_vacuum({count})").fetchall()
    return count
