"""How attempts end: outcomes are recorded once, faults counted, tasks run again or fail.

Every write matches the task's state *and* token. A row that does not match
means that another worker has the task, or that it was cancelled; the outcome
is stale then and changes nothing.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from multihost.core.ids import INDEX_BITS
from multihost.core.outcome import Ending, Failure
from multihost.core.retry import Faults, Verdict
from multihost.core.state import Event, Hold, TaskState
from multihost.store import failures
from multihost.store.base import Final, Settlement
from multihost.store.sqlite.book import DIGEST_ONLY, IN_PAYLOADS, Book, Job, Traits
from multihost.store.sqlite.keys import count_key, settle_keys
from multihost.store.sqlite.lease import count_moves, queued_again
from multihost.wire.message import Attempt, Blob, Held, Payload

# A small payload goes with the update; it is dropped unless a repeated submit is compared to it.
_SUCCEED = (
    "UPDATE tasks SET state = 3, session = NULL, args = iif(? AND size IS NULL, NULL, args)"
    " WHERE id = ? AND token = ? AND state = 2 RETURNING id, token, key, size"
)
_RUNNING = (
    "SELECT id, token, lane, key, errors, crashes, losses FROM tasks"
    " WHERE id = ? AND token = ? AND state = 2"
)
_RUNNING_OF = (
    "SELECT id, token, lane, key, errors, crashes, losses FROM tasks WHERE session = ? ORDER BY id"
)
_END = (
    "UPDATE tasks SET state = ?, session = NULL, errors = ?, crashes = ?, losses = ? WHERE id = ?"
)
_AGAIN = (
    "UPDATE tasks SET state = 1, session = NULL, hold = ?, due = ?, expires = NULL,"
    " errors = ?, crashes = ?, losses = ? WHERE id = ?"
)
_NOTE = (
    "INSERT INTO attempts (task, token, ending, session, ended_at, failure)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_HISTORY = "SELECT failure FROM attempts WHERE task = ? AND token < ? ORDER BY token"
_ARGS = (
    "SELECT size, args, data FROM tasks LEFT JOIN payloads ON payloads.id = tasks.id"
    " WHERE tasks.id = ?"
)


class _Row(NamedTuple):
    """A running task."""

    task: int
    token: int
    lane: int
    key: int | None
    errors: int
    crashes: int
    losses: int

    @property
    def faults(self) -> Faults:
        return Faults(self.errors, self.crashes, self.losses)


class _Tally:
    """What a batch has come to so far."""

    def __init__(self) -> None:
        self.finals: list[Final] = []
        self.stale: list[Held] = []
        self.requeued = 0


# A worker can't know these: what it reports under them is an error of its own.
_NOT_A_WORKERS = frozenset({Ending.EXPIRED, Ending.BLOCKED})


def finish(
    book: Book, session: int, attempts: Sequence[Attempt], now: float, chance: float
) -> Settlement:
    """Record how attempts ended."""
    tally = _Tally()
    good = [attempt for attempt in attempts if attempt.ending is Ending.OK]
    bad = [attempt for attempt in attempts if attempt.ending is not Ending.OK]
    if good:
        good, without_result = _check_results(book, good)
        bad += without_result
        _succeed(book, good, tally)
    for attempt in bad:
        _finish_badly(book, session, attempt, now, chance, tally)
    if tally.finals:
        book.record(tally.finals)
    settle_keys(book, now)
    return Settlement(tally.finals, tally.stale, tally.requeued)


def lose(book: Book, session: int, now: float) -> Settlement:
    """A session is gone: queue its tasks again, or fail those lost too often."""
    tally = _Tally()
    rows = [_Row(*row) for row in book.run(_RUNNING_OF, (session,)).fetchall()]
    if rows:
        failure = failures.lost(book.session_name(session), session)
        for row in rows:
            _fail(book, row, session, failure, b"", now, 0.0, tally)
        if tally.finals:
            book.record(tally.finals)
        settle_keys(book, now)
    return Settlement(tally.finals, tally.stale, tally.requeued)


# --- success ----------------------------------------------------------------------------


def _check_results(book: Book, good: list[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
    """Those whose results are there, and the others as failures that say so."""
    if all(attempt.payload.__class__ is bytes for attempt in good):
        return good, []
    kept, lacking = [], []
    for attempt in good:
        payload = attempt.payload
        if isinstance(payload, Blob) and not book.has_blob(payload.digest):
            lacking.append(
                msgspec.structs.replace(
                    attempt, ending=Ending.UNRUNNABLE, payload=failures.result_missing(payload)
                )
            )
        else:
            kept.append(attempt)
    return kept, lacking


def _succeed(book: Book, good: list[Attempt], tally: _Tally) -> None:
    number, job, drops = -1, None, False
    values = []
    for attempt in good:
        task = attempt.task
        if task >> INDEX_BITS != number:
            number = task >> INDEX_BITS
            job = book.job(number)
            drops = job is not None and not job.is_compared
        values.append((drops, task, attempt.token))
    rows = book.many(_SUCCEED, values).fetchall()
    if len(rows) != len(good):
        good = _matched(good, rows, tally)
    if not rows:
        return
    finals = [Final(attempt.task, Ending.OK, attempt.payload) for attempt in good]
    count_moves(book, [row[0] for row in rows], TaskState.RUNNING, Event.SUCCEEDED)
    for task, _, key, size in rows:
        if key is not None:
            count_key(book, key, running=-1)
        if size is not None:
            _drop_big_payload(book, task)
    for attempt in good:
        if isinstance(attempt.payload, Blob):
            _refer(book, attempt.task, attempt.payload)
    tally.finals.extend(finals)


def _matched(
    good: list[Attempt], rows: list[tuple[int, int, int | None, int | None]], tally: _Tally
) -> list[Attempt]:
    """The attempts that were recorded; of two that are the same only the first."""
    recorded = {(task, token) for task, token, _, _ in rows}
    matched = []
    for attempt in good:
        held = (attempt.task, attempt.token)
        if held in recorded:
            recorded.remove(held)
            matched.append(attempt)
        else:
            tally.stale.append(Held(*held))
    return matched


def _drop_big_payload(book: Book, task: int) -> None:
    """A task that succeeded needs its payload no more; its digest, if it is compared to."""
    job = _job(book, task)
    size, args, data = book.run(_ARGS, (task,)).fetchone()
    digest: bytes | None = args
    if size >= 0:
        book.refer(args, -1)
    elif size == IN_PAYLOADS:
        digest = hashlib.sha256(data).digest() if job.is_compared else None
        book.run("DELETE FROM payloads WHERE id = ?", (task,))
    if job.is_compared:
        book.run("UPDATE tasks SET size = ?, args = ? WHERE id = ?", (DIGEST_ONLY, digest, task))
    else:
        book.run("UPDATE tasks SET size = NULL, args = NULL WHERE id = ?", (task,))


# --- failure ----------------------------------------------------------------------------


def _finish_badly(
    book: Book, session: int, attempt: Attempt, now: float, chance: float, tally: _Tally
) -> None:
    found = book.run(_RUNNING, (attempt.task, attempt.token)).fetchone()
    if found is None:
        tally.stale.append(Held(attempt.task, attempt.token))
        return
    row = _Row(*found)
    payload = attempt.payload
    if isinstance(payload, Blob) and not book.has_blob(payload.digest):
        payload = failures.result_missing(payload)
    if attempt.ending is Ending.CANCELLED:
        _end(book, row, Event.CANCELLED, row.faults)
        if isinstance(payload, Blob):
            _refer(book, row.task, payload)
        tally.finals.append(Final(row.task, Ending.CANCELLED, payload))
        return
    ending = Ending.RAISED if attempt.ending in _NOT_A_WORKERS else attempt.ending
    failure = failures.read(ending, payload)
    _fail(book, row, session, failure, payload, now, chance, tally, ending)


def _fail(
    book: Book,
    row: _Row,
    session: int,
    failure: Failure,
    payload: Payload,
    now: float,
    chance: float,
    tally: _Tally,
    ending: Ending = Ending.LOST,
) -> None:
    """Note an attempt that went wrong, and run the task again or fail it for good."""
    job = _job(book, row.task)
    verdict = failures.verdict(ending, row.faults, job.spec, chance)
    history = failures.for_history(failure)
    book.run(_NOTE, (row.task, row.token, ending, session, now, history))
    if verdict.event is not Event.FAILED:
        _run_again(book, job, row, verdict, now)
        tally.requeued += 1
        return
    _end(book, row, Event.FAILED, verdict.faults)
    if isinstance(payload, Blob):
        _refer(book, row.task, payload)
    else:
        earlier = (data for (data,) in book.run(_HISTORY, (row.task, row.token)))
        payload = failures.with_certificates(failure, earlier)
    tally.finals.append(Final(row.task, ending, payload))


def _run_again(book: Book, job: Job, row: _Row, verdict: Verdict, now: float) -> None:
    book.move(job, TaskState.RUNNING, verdict.event)
    due = None
    if verdict.delay_s > 0:
        hold, due = Hold.TIME, now + verdict.delay_s
        book.wake_by(due)
        if row.key is not None:
            count_key(book, row.key, running=-1)
    else:
        hold = queued_again(book, row.lane, row.key)
    book.run(_AGAIN, (hold, due, *verdict.faults, row.task))


def _end(book: Book, row: _Row, event: Event, faults: Faults) -> None:
    state = book.move(_job(book, row.task), TaskState.RUNNING, event)
    book.run(_END, (state, *faults, row.task))
    if row.key is not None:
        count_key(book, row.key, running=-1)


def _job(book: Book, task: int) -> Job:
    job = book.job(task >> INDEX_BITS)
    assert job is not None, task
    return job


def _refer(book: Book, task: int, blob: Blob) -> None:
    """The result of a task is a blob."""
    _job(book, task).traits |= Traits.BLOBS
    book.refer(blob.digest)
