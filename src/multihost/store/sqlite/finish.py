"""How attempts end: outcomes are recorded once, faults counted, tasks run again or fail.

Every write matches the task's state *and* token, and that the lease is the
session's that speaks of it. An attempt that does not match is stale: another
worker has the task, or it was cancelled; it changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from multihost.core.digest import digest_of
from multihost.core.ids import INDEX_BITS
from multihost.core.outcome import Ending, Failure
from multihost.core.retry import Faults, Verdict
from multihost.core.state import Event, TaskState
from multihost.store import failures
from multihost.store.base import Final, Settlement
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import DIGEST_ONLY, IN_PAYLOADS, Run, Traits
from multihost.store.sqlite.keys import count_key, settle_keys
from multihost.store.sqlite.lease import count_moves, queued_again
from multihost.wire.message import Attempt, Blob, Held, Payload

_SUCCEED = "UPDATE tasks SET state = 3, place = NULL WHERE id = ? AND token = ? AND state = 2"
_SUCCEED_AND_DROP = (
    "UPDATE tasks SET state = 3, place = NULL, args = NULL WHERE id = ? AND token = ? AND state = 2"
)
_DROP = "UPDATE tasks SET size = ?, args = ? WHERE id = ?"
_FAULTS = "SELECT errors, crashes, losses FROM tasks WHERE id = ?"
_RUNNING_OF = "SELECT id FROM tasks INDEXED BY tasks_place WHERE place = ? ORDER BY id"
_END = (
    "UPDATE tasks SET state = ?, place = NULL, errors = ?, crashes = ?, losses = ?"
    " WHERE id = ? AND token = ? AND state = 2"
)
_AGAIN = (
    "UPDATE tasks SET state = 1, place = ?, due = ?, expires = NULL,"
    " errors = ?, crashes = ?, losses = ? WHERE id = ? AND token = ? AND state = 2"
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
# A worker can't know these: what it reports under them is an error of its own.
_NOT_A_WORKERS = frozenset({Ending.EXPIRED, Ending.BLOCKED})


class _Fault(NamedTuple):
    """An attempt that went wrong."""

    task: int
    run: Run
    ending: Ending
    payload: Payload


@dataclass(slots=True)
class _Tally:
    """What a batch has come to so far."""

    session: int
    """Whose attempts they are."""
    now: float
    chance: float = 0.0
    finals: list[Final] = field(default_factory=list)
    stale: list[Held] = field(default_factory=list)
    requeued: int = 0


def finish(
    book: Book, session: int, attempts: Sequence[Attempt], now: float, chance: float
) -> Settlement:
    """Record how attempts ended."""
    tally = _Tally(session, now, chance)
    if any(attempt.payload.__class__ is not bytes for attempt in attempts):
        attempts = [_with_payload(book, attempt) for attempt in attempts]
    good = [attempt for attempt in attempts if attempt.ending is Ending.OK]
    bad = [attempt for attempt in attempts if attempt.ending is not Ending.OK]
    if good:
        _succeed(book, good, tally)
    for attempt in bad:
        run = _matched(book, attempt, tally)
        if run is not None:
            _finish_badly(book, run, attempt, tally)
    book.record(tally.finals)
    settle_keys(book, now)
    return Settlement(tally.finals, tally.stale, tally.requeued)


def lose(book: Book, session: int, now: float) -> Settlement:
    """A session is gone: queue its tasks again, or fail those lost too often."""
    tally = _Tally(session, now)
    tasks = [task for (task,) in book.run(_RUNNING_OF, (-session,))]
    if tasks:
        failure = failures.lost(book.session_name(session), session)
        for task in tasks:
            fault = _Fault(task, book.running.pop(task), Ending.LOST, b"")
            _fail(book, fault, failure, tally)
        book.record(tally.finals)
        settle_keys(book, now)
    return Settlement(tally.finals, tally.stale, tally.requeued)


def _matched(book: Book, attempt: Attempt, tally: _Tally) -> Run | None:
    """The run that an attempt ends, which is over with that; or None: it is stale."""
    run = book.running.get(attempt.task)
    if run is None or run[0] != attempt.token or run[1] != tally.session:
        tally.stale.append(Held(attempt.task, attempt.token))
        return None
    del book.running[attempt.task]
    return run


def _with_payload(book: Book, attempt: Attempt) -> Attempt:
    """The attempt, or if its blob never came the failure that this is."""
    if book.missing_blob([attempt.payload]) is None:
        return attempt
    ending = Ending.UNRUNNABLE if attempt.ending is Ending.OK else attempt.ending
    return msgspec.structs.replace(attempt, ending=ending, payload=failures.result_missing())


# --- success ----------------------------------------------------------------------------


def _succeed(book: Book, good: list[Attempt], tally: _Tally) -> None:
    number, drops = -1, False
    with_drop: list[tuple[int, int]] = []
    without: list[tuple[int, int]] = []
    big: list[int] = []
    for attempt in good:
        run = _matched(book, attempt, tally)
        if run is None:
            continue
        task = attempt.task
        if task >> INDEX_BITS != number:
            number = task >> INDEX_BITS
            drops = not book.job_of(task).is_compared
        token, _, key, size = run
        if size is not None:
            big.append(task)
        (with_drop if drops and size is None else without).append((task, token))
        if key is not None:
            count_key(book, key, running=-1)
        if attempt.payload.__class__ is not bytes:
            _refer(book, task, attempt.payload)
        tally.finals.append(Final(task, Ending.OK, attempt.payload))
    if with_drop:
        book.change(_SUCCEED_AND_DROP, with_drop)
    if without:
        book.change(_SUCCEED, without)
    for task in big:
        _drop_big_payload(book, task)
    count_moves(book, [final.task for final in tally.finals], TaskState.RUNNING, Event.SUCCEEDED)


def _drop_big_payload(book: Book, task: int) -> None:
    """A task that succeeded needs its payload no more; its digest, if it is compared to."""
    is_compared = book.job_of(task).is_compared
    size, args, data = book.run(_ARGS, (task,)).fetchone()
    digest: bytes | None = args
    if size == IN_PAYLOADS:
        digest = digest_of(data) if is_compared else None
        book.run("DELETE FROM payloads WHERE id = ?", (task,))
    else:
        book.refer(args, -1)
    book.run(_DROP, (DIGEST_ONLY, digest, task) if is_compared else (None, None, task))


# --- failure ----------------------------------------------------------------------------


def _finish_badly(book: Book, run: Run, attempt: Attempt, tally: _Tally) -> None:
    task, ending, payload = attempt.task, attempt.ending, attempt.payload
    if ending in _NOT_A_WORKERS:
        ending = Ending.RAISED
    fault = _Fault(task, run, ending, payload)
    if ending is Ending.CANCELLED:
        faults = Faults(*book.run(_FAULTS, (task,)).fetchone())
        _end(book, fault, Event.CANCELLED, faults, tally)
    else:
        _fail(book, fault, failures.read(ending, payload), tally)


def _fail(book: Book, fault: _Fault, failure: Failure, tally: _Tally) -> None:
    """Note an attempt that went wrong, and run the task again or fail it for good."""
    task, (token, session, _, _), ending, payload = fault
    spec = book.job_of(task).spec
    faults = Faults(*book.run(_FAULTS, (task,)).fetchone())
    verdict = failures.verdict(ending, faults, spec, tally.chance)
    history = failures.for_history(failure)
    book.run(_NOTE, (task, token, ending, session, tally.now, history))
    if verdict.event is not Event.FAILED:
        _run_again(book, fault, verdict, tally)
        return
    if not isinstance(payload, Blob):
        earlier = (data for (data,) in book.run(_HISTORY, (task, token)))
        fault = fault._replace(payload=failures.with_certificates(failure, earlier))
    _end(book, fault, Event.FAILED, verdict.faults, tally)


def _run_again(book: Book, fault: _Fault, verdict: Verdict, tally: _Tally) -> None:
    task, (token, _, key, _) = fault.task, fault.run
    book.move(book.job_of(task), TaskState.RUNNING, verdict.event)
    place, due = None, None
    if verdict.delay_s > 0:
        due = tally.now + verdict.delay_s
        book.wake_by(due)
        if key is not None:
            count_key(book, key, running=-1)
    else:
        place = queued_again(book, task, key)
    book.change(_AGAIN, [(place, due, *verdict.faults, task, token)])
    tally.requeued += 1


def _end(book: Book, fault: _Fault, event: Event, faults: Faults, tally: _Tally) -> None:
    task, (token, _, key, _), payload = fault.task, fault.run, fault.payload
    state = book.move(book.job_of(task), TaskState.RUNNING, event)
    book.change(_END, [(state, *faults, task, token)])
    if key is not None:
        count_key(book, key, running=-1)
    if isinstance(payload, Blob):
        _refer(book, task, payload)
    tally.finals.append(Final(task, fault.ending, payload))


def _refer(book: Book, task: int, payload: Payload) -> None:
    """The outcome of a task is a blob."""
    assert isinstance(payload, Blob)
    book.give_trait(book.job_of(task), Traits.BLOBS)
    book.refer(payload.digest)
