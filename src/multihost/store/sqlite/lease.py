"""Leases: handed out, given back, compared with what a returning worker holds."""

import heapq
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from multihost.core.ids import INDEX_BITS
from multihost.core.state import Event, TaskState
from multihost.store.base import Lease, Reinstated
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import IN_PAYLOADS
from multihost.store.sqlite.keys import count_key, settle_keys
from multihost.store.sqlite.settling import to_be_cancelled
from multihost.wire.message import Blob, Held, Payload

# The index is named, lest a planner that has seen few rows walks the whole table.
_READY = (
    "SELECT rank, seq, id, args, size, key, errors + crashes + losses"
    " FROM tasks INDEXED BY tasks_place"
    " WHERE place = ? AND (expires IS NULL OR expires > ?)"
)
_BUT = " AND id NOT BETWEEN ? AND ?"
_BEST_FIRST = " ORDER BY rank, seq LIMIT ?"
_LEASE = "UPDATE tasks SET state = 2, place = ?, token = ? WHERE id = ? AND state = 1"
_PAYLOAD = "SELECT data FROM payloads WHERE id = ?"
_RELEASE = "UPDATE tasks SET state = 1, place = ? WHERE id = ? AND token = ? AND state = 2"
_HELD = "SELECT id, token FROM tasks INDEXED BY tasks_place WHERE place = ? ORDER BY id"
_EXPIRES = "SELECT expires FROM tasks WHERE id = ?"


def lease(book: Book, lanes: Collection[int], limit: int, session: int, now: float) -> list[Lease]:
    """Hand at most ``limit`` ready tasks to ``session``."""
    rows = _best(book, lanes, limit, now)
    if not rows:
        return []
    running = book.running
    token = book.tokens(len(rows))
    place = -session
    leases, updates = [], []
    has_keys = False
    for _, _, task, args, size, key, faults in rows:
        payload = args if size is None else _payload(book, task, size, args)
        leases.append(Lease(task, token, payload, faults + 1))
        updates.append((place, token, task))
        running[task] = (token, session, key, size)
        token += 1
        if key is not None:
            has_keys = True
            count_key(book, key, ready=-1, running=1, has_started=True)
    book.change(_LEASE, updates)
    count_moves(book, [row[2] for row in rows], TaskState.QUEUED, Event.LEASED)
    if has_keys:
        settle_keys(book, now)
    return leases


def _best(book: Book, lanes: Collection[int], limit: int, now: float) -> list[tuple[Any, ...]]:
    """Ready rows of the lanes, best first, without those of paused queues."""
    places = [
        number
        for number in lanes
        if (lane := book.lanes.get(number)) is not None
        and lane.counts[TaskState.QUEUED]
        and not book.queue(lane.queue).is_paused
    ]
    if not places or limit < 1:
        return []
    not_these = to_be_cancelled(book) if book.settling else []
    sql = _READY + _BUT * (len(not_these) // 2) + _BEST_FIRST
    if len(places) == 1:
        return book.run(sql, (places[0], now, *not_these, limit)).fetchall()
    cursors = [book.run(sql, (place, now, *not_these, limit)) for place in places]
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


def count_moves(book: Book, tasks: Iterable[int], before: TaskState, event: Event) -> None:
    """Count tasks, of whatever jobs, from one state into the next."""
    counts: dict[int, int] = {}
    for task in tasks:
        number = task >> INDEX_BITS
        counts[number] = counts.get(number, 0) + 1
    for number, count in counts.items():
        book.move(book.job_of(number << INDEX_BITS), before, event, count)


def release(book: Book, session: int, held: Sequence[Held], now: float) -> list[Held]:
    """Queue again what was handed out but not run; no fault is counted. What was queued."""
    updates = []
    released = []
    for lease in held:
        run = book.running.get(lease.task)
        if run is None or run[0] != lease.token or run[1] != session:
            continue
        del book.running[lease.task]
        updates.append((queued_again(book, lease.task, run[2]), lease.task, lease.token))
        released.append(lease)
    if not updates:
        return released
    book.change(_RELEASE, updates)
    for _, task, _ in updates:
        # Its time to live goes on: as far as anybody knows it was never started.
        if book.job_of(task).spec.ttl_s is not None:
            expires = book.run(_EXPIRES, (task,)).get
            book.wake_by(now if expires is None else expires)
    count_moves(book, [task for _, task, _ in updates], TaskState.RUNNING, Event.RELEASED)
    settle_keys(book, now)
    return released


def queued_again(book: Book, task: int, key: int | None) -> int | None:
    """The place of a task that ran and is to run again at once."""
    if key is not None:
        count_key(book, key, running=-1)
    return book.ready_place(task, key)


def reinstate(book: Book, session: int, held: Sequence[Held], now: float) -> Reinstated:
    """Compare what a returning worker holds with the book; the book wins."""
    booked = {Held(task, token) for task, token in book.run(_HELD, (-session,))}
    believed = set(held)
    stale = [lease for lease in held if lease not in booked]
    unknown = sorted(booked - believed, key=lambda lease: lease.task)
    release(book, session, unknown, now)
    return Reinstated(stale, unknown)
