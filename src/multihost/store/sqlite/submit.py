"""Adding tasks to a job.

May be repeated: a client that never got its answer sends the same again, and
what is there already is left as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from multihost.core.digest import digest_of
from multihost.core.ids import MAX_INDEX, first_task, index_of, task_id
from multihost.core.state import TaskState
from multihost.store.base import Added, Refusal
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import IN_PAYLOADS, ROW_PAYLOAD_BYTES, Job, Traits
from multihost.store.sqlite.jobs import no_blob, no_job
from multihost.store.sqlite.keys import key_numbers, settle_keys
from multihost.wire.message import Blob, Payload, RefusalCode

SHOWN_INDICES: Final = 100
"""Indices of changed inputs that a refusal names."""

_EXISTING = (
    "SELECT tasks.id, size, coalesce(args, data) FROM tasks"
    " LEFT JOIN payloads ON payloads.id = tasks.id WHERE tasks.id BETWEEN ? AND ? ORDER BY tasks.id"
)
_INSERT_READY = "INSERT INTO tasks (id, place, rank, seq, args) VALUES (?, ?, ?, ?, ?)"
_INSERT_TASK = (
    "INSERT INTO tasks (id, state, place, rank, seq, due, expires, key, size, args)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_PAYLOAD = "INSERT INTO payloads (id, data) VALUES (?, ?)"


@dataclass(slots=True)
class Batch:
    """Tasks that were sent for a job, and which of them are new."""

    job: Job
    first: int
    payloads: Sequence[Payload]
    keys: Sequence[str] | None
    new: Sequence[int]
    """Indices, rising."""

    @property
    def last(self) -> int:
        return self.first + len(self.payloads) - 1

    def new_payloads(self) -> Iterator[Payload]:
        return (self.payloads[index - self.first] for index in self.new)


def add_tasks(book: Book, batch: Batch, now: float) -> Added | Refusal:
    """Insert tasks at ``first``, ``first + 1`` …; those that exist are left alone."""
    refusal = _check_shape(batch)
    if refusal is None and batch.first < batch.job.next_index:
        refusal = _leave_existing(book, batch)
    if refusal is None and batch.new:
        refusal = _check_new(book, batch)
    if refusal is not None:
        return refusal
    if batch.new:
        _insert(book, batch, now)
    return Added(len(batch.new))


def batch_for(
    book: Book, number: int, first: int, payloads: Sequence[Payload], keys: Sequence[str] | None
) -> Batch | Refusal:
    """What was sent for a job, all of it new as far as is known yet."""
    job = book.job(number)
    if job is None:
        return no_job(number)
    return Batch(job, first, payloads, keys, range(first, first + len(payloads)))


# --- checks -----------------------------------------------------------------------------


def _check_shape(batch: Batch) -> Refusal | None:
    number = batch.job.number
    if batch.first < 0 or batch.last > MAX_INDEX:
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {number}: tasks {batch.first} to {batch.last} are out of range; "
            f"indices go from 0 to {MAX_INDEX}",
        )
    if batch.keys is not None and len(batch.keys) != len(batch.payloads):
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {number}: {len(batch.keys)} keys came with {len(batch.payloads)} tasks",
        )
    return None


def _leave_existing(book: Book, batch: Batch) -> Refusal | None:
    """Take out of ``new`` what exists, unless its payloads contradict those sent."""
    job, first = batch.job, batch.first
    last = min(batch.last, job.next_index - 1)
    existing = set(range(first, min(job.taken, last + 1)))
    changed = []
    ids = (task_id(job.number, first), task_id(job.number, last))
    for task, size, kept in book.run(_EXISTING, ids):
        index = index_of(task)
        existing.add(index)
        if job.is_compared and not _is_same(batch.payloads[index - first], size, kept):
            changed.append(index)
    batch.new = [index for index in batch.new if index not in existing]
    if not changed:
        return None
    is_named = job.spec.name is not None
    return Refusal(
        RefusalCode.INPUT_CHANGED if is_named else RefusalCode.KEY_CONFLICT,
        f"job {job.number} has other inputs at {len(changed)} of these indices, first at "
        f"{changed[0]}; use another {'name' if is_named else 'unique key'} for the new inputs",
        tuple(changed[:SHOWN_INDICES]),
    )


def _is_same(payload: Payload, size: int | None, kept: bytes) -> bool:
    """Whether a payload is the one that was kept, whole or as its digest."""
    is_whole = size is None or size == IN_PAYLOADS
    if is_whole and not isinstance(payload, Blob):
        return payload == kept
    digest = payload.digest if isinstance(payload, Blob) else digest_of(payload)
    return digest == (digest_of(kept) if is_whole else kept)


def _check_new(book: Book, batch: Batch) -> Refusal | None:
    job, count = batch.job, len(batch.new)
    no_room = book.no_room()
    if no_room is not None:
        return Refusal(RefusalCode.STORE_FULL, no_room)
    if job.total is not None and (batch.new[-1] >= job.total or job.count + count > job.total):
        return Refusal(
            RefusalCode.INPUT_CHANGED if job.is_compared else RefusalCode.BAD_REQUEST,
            f"job {job.number} is sealed with {job.total} tasks and takes none at "
            f"{batch.new[0]} to {batch.new[-1]}; submit them as another job",
            tuple(batch.new[:SHOWN_INDICES]),
        )
    queue = book.queue(job.spec.queue)
    if queue.limit is not None and queue.waiting + count > queue.limit:
        return Refusal(
            RefusalCode.QUEUE_FULL,
            f"queue {queue.name!r} holds {queue.waiting} of at most {queue.limit} waiting tasks, "
            f"so {count} more don't fit; submit them later, or raise its limit",
        )
    missing = book.missing_blob(batch.new_payloads())
    return None if missing is None else no_blob(missing.digest)


# --- rows -------------------------------------------------------------------------------


def _insert(book: Book, batch: Batch, now: float) -> None:
    job, spec = batch.job, batch.job.spec
    is_plain = batch.keys is None and not spec.delay_s and spec.ttl_s is None and not job.needs
    if is_plain and _insert_plain(book, batch):
        state = TaskState.QUEUED
    else:
        state = _insert_any(book, batch, now)
    job.next_index = max(job.next_index, batch.new[-1] + 1)
    book.insert(job, state, len(batch.new))
    settle_keys(book, now)


def _insert_plain(book: Book, batch: Batch) -> bool:
    """Insert tasks that are ready at once and small; False if one of them is not small."""
    job, first, payloads = batch.job, batch.first, batch.payloads
    base = first_task(job.number)
    lane, rank = job.lane.number, -job.spec.priority
    shift = book.arrivals(len(payloads)) - first
    rows = [
        (base + index, lane, rank, shift + index, payload)
        for index in batch.new
        if (payload := payloads[index - first]).__class__ is bytes
        and len(payload) <= ROW_PAYLOAD_BYTES
    ]
    if len(rows) != len(batch.new):
        return False
    book.many(_INSERT_READY, rows)
    book.woken.add(lane)
    return True


def _insert_any(book: Book, batch: Batch, now: float) -> TaskState:
    """Insert tasks with whatever they wait for; the state they are in now."""
    job, spec, first, keys = batch.job, batch.job.spec, batch.first, batch.keys
    state = TaskState.BLOCKED if job.needs else TaskState.QUEUED
    due = now + spec.delay_s if spec.delay_s else None
    expires = None if spec.ttl_s is None else now + spec.ttl_s
    is_ready = state is TaskState.QUEUED and due is None and keys is None
    place = job.lane.number if is_ready else None
    names = None if keys is None else [keys[index - first] for index in batch.new]
    numbers = None if names is None else key_numbers(book, job, names)
    base, shift = first_task(job.number), book.arrivals(len(batch.payloads)) - first
    rows: list[tuple[Any, ...]] = []
    big: list[tuple[int, bytes]] = []
    for position, index in enumerate(batch.new):
        task, seq = base + index, shift + index
        size, args = _columns(book, job, task, batch.payloads[index - first], big)
        key = None if numbers is None else numbers[position]
        rows.append((task, state, place, -spec.priority, seq, due, expires, key, size, args))
    book.many(_INSERT_TASK, rows)
    book.many(_INSERT_PAYLOAD, big)
    if is_ready:
        book.woken.add(job.lane.number)
    for at in (due, expires):
        if at is not None:
            book.wake_by(at)
    return state


def _columns(
    book: Book, job: Job, task: int, payload: Payload, big: list[tuple[int, bytes]]
) -> tuple[int | None, bytes | None]:
    """``size`` and ``args`` of a task with this payload."""
    if isinstance(payload, Blob):
        book.give_trait(job, Traits.BLOBS)
        book.refer(payload.digest)
        return payload.size_bytes, payload.digest
    if len(payload) <= ROW_PAYLOAD_BYTES:
        return None, payload
    big.append((task, payload))
    return IN_PAYLOADS, None
