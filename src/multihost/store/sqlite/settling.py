"""Big things done a little at a time: a job's million tasks cancelled, or let go.

What would hold up everybody else for seconds in one transaction is begun
there and goes on in ``promote``, which asks to be called again until it is
done. What is still to be done to a job is kept in the table ``settling``, so
a restart goes on with it. ``lease`` leaves alone what only waits to be
cancelled.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final

from multihost.core.ids import first_task, last_task
from multihost.core.outcome import Ending
from multihost.core.state import Event, TaskState
from multihost.store import failures
from multihost.store.base import Final as FinalTask
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import Job, Settling
from multihost.store.sqlite.keys import leave_key, settle_keys

SETTLED_ROWS: Final = 2000
"""Waiting tasks that one transaction cancels or lets go at most."""

_SAVE = "INSERT OR REPLACE INTO settling (job, what, cursor) VALUES (?, ?, ?)"
_DONE = "DELETE FROM settling WHERE job = ?"
_WAITING = (
    "SELECT id, state, place, due, key FROM tasks"
    " WHERE id BETWEEN ? AND ? AND state <= ? ORDER BY id LIMIT ?"
)
_CANCEL = "UPDATE tasks SET state = 5, place = NULL, due = NULL WHERE id = ?"
_LET_GO = "UPDATE tasks SET state = 1, place = ?, due = ? WHERE id = ?"


class What(IntEnum):
    """What is to be done to the waiting tasks of a job. Stored: never renumber."""

    CANCEL = 0
    """Somebody cancelled the job."""
    GIVE_UP = 1
    """A job it depends on did not succeed."""
    LET_GO = 2
    """All jobs it depends on have succeeded."""


def settle(book: Book, job: Job, what: What, now: float) -> list[FinalTask]:
    """Begin something, and do as much of it as one transaction should; the outcomes."""
    known = book.settling.get(job.number)
    if known is not None and known.what == What.CANCEL:
        # Nothing else matters to tasks that are to be cancelled.
        return []
    is_saved = known is not None and known.is_saved
    book.settling[job.number] = Settling(what, first_task(job.number), is_saved)
    finals, _ = _go_on(book, job, SETTLED_ROWS, now)
    return finals


def go_on(book: Book, now: float) -> list[FinalTask]:
    """Go on with all that was begun, as far as one transaction should; the outcomes."""
    finals: list[FinalTask] = []
    left = SETTLED_ROWS
    for number in list(book.settling):
        if left > 0:
            some, count = _go_on(book, book.job_of(first_task(number)), left, now)
            finals += some
            left -= count
    return finals


def stop_cancelling(book: Book, job: Job) -> None:
    """Somebody wants the job's tasks to run after all."""
    known = book.settling.get(job.number)
    if known is not None and known.what == What.CANCEL:
        _finish(book, job)


def to_be_cancelled(book: Book) -> list[int]:
    """First and last numbers of the tasks that must not be leased, one after the other."""
    spans: list[int] = []
    for number, settling in book.settling.items():
        if settling.what == What.CANCEL:
            spans += (settling.cursor, last_task(number))
    return spans


def cancel_rows(
    book: Book, job: Job, rows: Iterable[tuple[Any, ...]], reason: tuple[Event, Ending, bytes]
) -> list[FinalTask]:
    """End tasks (number, state, place, due, key) of a job that did not get to an end."""
    event, ending, payload = reason
    finals = []
    before: dict[int, int] = {}
    for task, state, place, _, key in rows:
        before[state] = before.get(state, 0) + 1
        finals.append(FinalTask(task, ending, payload))
        if key is not None:
            leave_key(book, key, place)
    book.change(_CANCEL, [(final.task,) for final in finals])
    book.record(finals)
    for state, count in before.items():
        book.move(job, TaskState(state), event, count)
    return finals


def _go_on(book: Book, job: Job, limit: int, now: float) -> tuple[list[FinalTask], int]:
    """Do it to the next tasks; the outcomes, and how many tasks there were."""
    what, cursor, _ = book.settling[job.number]
    last_state = TaskState.QUEUED if what == What.CANCEL else TaskState.BLOCKED
    rows = book.run(_WAITING, (cursor, last_task(job.number), last_state, limit)).fetchall()
    finals: list[FinalTask] = []
    if what == What.LET_GO:
        _let_go(book, job, rows, now)
    elif what == What.CANCEL:
        finals = cancel_rows(book, job, rows, (Event.CANCELLED, Ending.CANCELLED, b""))
    else:
        payload = failures.blocked(job.spec)
        reason = (Event.DEPENDENCY_FAILED, Ending.BLOCKED, payload)
        finals = cancel_rows(book, job, rows, reason)
    settle_keys(book, now)
    if len(rows) < limit:
        _finish(book, job)
    else:
        _save(book, job, rows[-1][0] + 1 if rows else cursor)
    return finals, len(rows)


def _save(book: Book, job: Job, cursor: int) -> None:
    settling = book.settling[job.number]._replace(cursor=cursor, is_saved=True)
    book.settling[job.number] = settling
    book.run(_SAVE, (job.number, settling.what, cursor))
    book.wake_by(0.0)


def _finish(book: Book, job: Job) -> None:
    if book.settling.pop(job.number).is_saved:
        book.run(_DONE, (job.number,))
    # Tasks may have come meanwhile, before where it had got to; and who looked for work was
    # not shown all there is.
    book.touch(job)
    book.woken.add(job.lane.number)


def _let_go(book: Book, job: Job, rows: Iterable[tuple[Any, ...]], now: float) -> None:
    updates: list[tuple[Any, ...]] = []
    for task, _, _, due, key in rows:
        if due is not None and due > now:
            updates.append((None, due, task))
            book.wake_by(due)
        else:
            updates.append((book.ready_place(task, key), None, task))
    if updates:
        book.change(_LET_GO, updates)
        book.move(job, TaskState.BLOCKED, Event.DEPENDENCIES_MET, len(updates))
