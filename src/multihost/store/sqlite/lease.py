"""Leases: handed out, given back, compared with what a returning worker holds."""

import heapq
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from multihost.core.ids import INDEX_BITS
from multihost.core.state import Event, Hold, TaskState
from multihost.store.base import Lease, Reinstated
from multihost.store.sqlite.book import IN_PAYLOADS, Book
from multihost.store.sqlite.keys import count_key, settle_keys
from multihost.wire.message import Blob, Held, Payload

# The index is named, lest a planner that has seen few rows walks the whole table.
_READY = (
    "SELECT rank, seq, id, args, size, key, errors + crashes + losses, lane"
    " FROM tasks INDEXED BY tasks_ready"
    " WHERE lane = ? AND state = 1 AND hold = 0 AND (expires IS NULL OR expires > ?)"
    " ORDER BY rank, seq LIMIT ?"
)
_LEASE = "UPDATE tasks SET state = 2, session = ?, token = ? WHERE id = ?"
_PAYLOAD = "SELECT data FROM payloads WHERE id = ?"
_RELEASE = (
    "UPDATE tasks SET state = 1, session = NULL, hold = iif(key IS NULL, 0, 2)"
    " WHERE id = ? AND token = ? AND state = 2 RETURNING id, lane, key, expires"
)
_HELD = "SELECT id, token FROM tasks WHERE session = ? ORDER BY id"


def lease(book: Book, lanes: Collection[int], limit: int, session: int, now: float) -> list[Lease]:
    """Hand at most ``limit`` ready tasks to ``session``."""
    rows = _best(book, lanes, limit, now)
    if not rows:
        return []
    token = book.tokens(len(rows))
    leases = []
    updates = []
    has_keys = False
    for _, _, task, args, size, key, faults, _ in rows:
        payload = args if size is None else _payload(book, task, size, args)
        leases.append(Lease(task, token, payload, faults + 1))
        updates.append((session, token, task))
        token += 1
        if key is not None:
            has_keys = True
            count_key(book, key, ready=-1, running=1, has_started=True)
    book.many(_LEASE, updates)
    count_moves(book, [row[2] for row in rows], TaskState.QUEUED, Event.LEASED)
    if has_keys:
        settle_keys(book, now)
    return leases


def _best(book: Book, lanes: Collection[int], limit: int, now: float) -> list[tuple[Any, ...]]:
    """Ready rows of the lanes, best first, without those of paused queues."""
    open_lanes = [
        number
        for number in lanes
        if (lane := book.lanes.get(number)) is not None
        and lane.counts[TaskState.QUEUED]
        and not book.queue(lane.queue).is_paused
    ]
    if not open_lanes or limit < 1:
        return []
    if len(open_lanes) == 1:
        return book.run(_READY, (open_lanes[0], now, limit)).fetchall()
    cursors = [book.run(_READY, (lane, now, limit)) for lane in open_lanes]
    rows = []
    # Arrival numbers are unique, so a comparison never gets beyond them.
    for row in heapq.merge(*cursors):
        rows.append(row)
        if len(rows) == limit:
            break
    for cursor in cursors:
        cursor.close()
    return rows


def _payload(book: Book, task: int, size: int, args: bytes) -> Payload:
    if size == IN_PAYLOADS:
        data: bytes = book.run(_PAYLOAD, (task,)).get
        return data
    return Blob(args, size)


def count_moves(book: Book, tasks: Sequence[int], before: TaskState, event: Event) -> None:
    """Count tasks, of whatever jobs, from one state into the next."""
    number = tasks[0] >> INDEX_BITS
    if number == tasks[-1] >> INDEX_BITS and all(task >> INDEX_BITS == number for task in tasks):
        counts = {number: len(tasks)}
    else:
        counts = Counter(task >> INDEX_BITS for task in tasks)
    for number, count in counts.items():
        job = book.job(number)
        assert job is not None, number
        book.move(job, before, event, count)


def release(book: Book, held: Sequence[Held], now: float) -> int:
    """Queue again what was handed out but not run; no fault is counted. How many."""
    rows = book.many(_RELEASE, [(lease.task, lease.token) for lease in held]).fetchall()
    if not rows:
        return 0
    count_moves(book, [row[0] for row in rows], TaskState.RUNNING, Event.RELEASED)
    for _, lane, key, expires in rows:
        queued_again(book, lane, key)
        if expires is not None:
            book.wake_by(expires)
    settle_keys(book, now)
    return len(rows)


def queued_again(book: Book, lane: int, key: int | None) -> Hold:
    """A task that ran is queued without a due time; the hold it starts with."""
    if key is None:
        book.woken.add(lane)
        return Hold.NONE
    count_key(book, key, running=-1)
    return Hold.KEY


def reinstate(book: Book, session: int, held: Sequence[Held], now: float) -> Reinstated:
    """Compare what a returning worker holds with the book; the book wins."""
    booked = {Held(task, token) for task, token in book.run(_HELD, (session,))}
    believed = set(held)
    stale = [lease for lease in held if lease not in booked]
    unknown = sorted(booked - believed, key=lambda lease: lease.task)
    return Reinstated(stale, release(book, unknown, now))
