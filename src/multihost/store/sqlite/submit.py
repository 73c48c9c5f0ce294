"""Submitting: jobs are opened or found, tasks inserted, the total stated.

Everything here may be repeated: a client that never got its answer asks
again, and what is there already is left as it is.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from multihost.core.ids import MAX_INDEX, first_task, index_of, task_id
from multihost.core.job import JobSpec
from multihost.core.state import Hold, JobState, TaskState
from multihost.store.base import Added, OpenedJob, Refusal
from multihost.store.sqlite.book import (
    DIGEST_ONLY,
    DOOMED,
    IN_PAYLOADS,
    ROW_PAYLOAD_BYTES,
    Book,
    Job,
    Traits,
    encode,
)
from multihost.store.sqlite.keys import key_numbers, settle_keys
from multihost.wire.message import Blob, Payload, RefusalCode

SHOWN_INDICES: Final = 100
"""Indices of changed inputs that a refusal names."""

_BY_UID = "SELECT number FROM jobs WHERE uid = ?"
_BY_NAME = "SELECT number FROM jobs WHERE name = ?"
_BY_KEY = "SELECT number FROM jobs WHERE unique_key = ?"
_INSERT_JOB = (
    "INSERT INTO jobs (number, uid, name, unique_key, state, lane, total, blocked, queued,"
    " running, succeeded, failed, cancelled, needs, taken, dropped, traits, owner, created_at,"
    " ended_at, prune_at, spec)"
    " VALUES (?, ?, ?, ?, 0, ?, NULL, 0, 0, 0, 0, 0, 0, ?, 0, 0, ?, ?, ?, NULL, NULL, ?)"
)
_NEED = "INSERT INTO dependencies (needs, job) VALUES (?, ?)"
_EXISTING = (
    "SELECT tasks.id, size, coalesce(args, data) FROM tasks"
    " LEFT JOIN payloads ON payloads.id = tasks.id WHERE tasks.id BETWEEN ? AND ? ORDER BY tasks.id"
)
_INSERT_READY = "INSERT INTO tasks (id, lane, rank, seq, args) VALUES (?, ?, ?, ?, ?)"
_INSERT_TASK = (
    "INSERT INTO tasks (id, state, hold, lane, rank, seq, due, expires, key, size, args)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_PAYLOAD = "INSERT INTO payloads (id, data) VALUES (?, ?)"


# --- jobs -------------------------------------------------------------------------------


def open_job(
    book: Book, uid: bytes, spec: JobSpec, owner: int | None, now: float
) -> OpenedJob | Refusal:
    """Create a job, or find the one with this uid, name or unique key."""
    found = _find(book, uid, spec)
    if isinstance(found, Refusal):
        return found
    if found is not None:
        if found.spec.is_transient and found.owner != owner:
            found.owner = owner
            book.touch(found)
        return _opened(found, is_new=False)
    refusal = _check_references(book, spec)
    if refusal is not None:
        return refusal
    return _opened(_insert_job(book, uid, spec, owner, now), is_new=True)


def _find(book: Book, uid: bytes, spec: JobSpec) -> Job | Refusal | None:
    number = book.run(_BY_UID, (uid,)).get
    if number is not None:
        return book.job(number)
    for what, sql, text, code in (
        ("name", _BY_NAME, spec.name, RefusalCode.INPUT_CHANGED),
        ("unique key", _BY_KEY, spec.unique_key, RefusalCode.KEY_CONFLICT),
    ):
        number = None if text is None else book.run(sql, (text,)).get
        if number is None:
            continue
        job = book.job(number)
        assert job is not None
        return _attach(job, spec, what, text, code)
    return None


def _attach(
    job: Job, spec: JobSpec, what: str, text: str | None, code: RefusalCode
) -> Job | Refusal:
    """The job that was found by name or key, unless it is for something else."""
    if job.spec.fingerprint != spec.fingerprint:
        return Refusal(
            code,
            f"the {what} {text!r} belongs to job {job.number} ({job.spec.label or 'unlabelled'}), "
            f"whose function is another one; use another {what}, or delete that job first",
        )
    # Both given and one in use: the other would be lost without a word.
    if job.spec.name != spec.name or job.spec.unique_key != spec.unique_key:
        return Refusal(
            RefusalCode.KEY_CONFLICT,
            f"the {what} {text!r} belongs to job {job.number}, which has the name "
            f"{job.spec.name!r} and the unique key {job.spec.unique_key!r}; give the same two",
        )
    return job


def _check_references(book: Book, spec: JobSpec) -> Refusal | None:
    for number in spec.after:
        if book.job(number) is None:
            return Refusal(
                RefusalCode.BAD_REQUEST, f"it is to run after job {number}, which does not exist"
            )
    for digest in blobs_of(spec):
        if not book.has_blob(digest):
            return _no_blob(digest)
    return None


def blobs_of(spec: JobSpec) -> list[bytes]:
    initializer = None if spec.context is None else spec.context.initializer
    return [digest for digest in (spec.function, initializer) if digest is not None]


def _no_blob(digest: bytes) -> Refusal:
    return Refusal(
        RefusalCode.BAD_REQUEST,
        f"it refers to blob {digest.hex()[:16]}…, which is not in the store; upload it first",
    )


def _insert_job(book: Book, uid: bytes, spec: JobSpec, owner: int | None, now: float) -> Job:
    number = book.new_number()
    lane = book.lane(spec.queue, spec.requires)
    job = Job(
        number=number,
        uid=uid,
        spec=spec,
        state=JobState.OPEN,
        lane=lane,
        total=None,
        counts=[0] * len(TaskState),
        needs=_needs(book, number, spec),
        taken=0,
        dropped=0,
        traits=Traits.NONE,
        owner=owner if spec.is_transient else None,
        created_at=now,
        ended_at=None,
    )
    book.run(
        _INSERT_JOB,
        (
            number,
            uid,
            spec.name,
            spec.unique_key,
            lane.number,
            job.needs,
            job.traits,
            job.owner,
            now,
            encode(spec),
        ),
    )
    for digest in blobs_of(spec):
        book.refer(digest)
    lane.jobs += 1
    book.touch_lane(lane)
    book.remember(job)
    return job


def _needs(book: Book, number: int, spec: JobSpec) -> int:
    """Note the jobs that ``spec`` waits for; how many, or DOOMED."""
    if not spec.after:
        return 0
    needed = [job for n in dict.fromkeys(spec.after) if (job := book.job(n)) is not None]
    if any(job.state in (JobState.FAILED, JobState.CANCELLED) for job in needed):
        return DOOMED
    open_ones = [job.number for job in needed if job.state is JobState.OPEN]
    book.many(_NEED, [(needs, number) for needs in open_ones])
    return len(open_ones)


def _opened(job: Job, *, is_new: bool) -> OpenedJob:
    return OpenedJob(job.number, is_new, job.spec, job.count, job.total, job.state)


def seal_job(book: Book, number: int, total: int) -> Refusal | None:
    """State that the job has exactly ``total`` tasks. Idempotent."""
    job = book.job(number)
    if job is None:
        return _no_job(number)
    if job.total == total:
        return None
    if job.total is not None:
        return Refusal(
            RefusalCode.INPUT_CHANGED if job.is_compared else RefusalCode.BAD_REQUEST,
            f"job {number} was sealed with {job.total} tasks and can't have {total} now",
        )
    if total < job.next_index:
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {number} has a task at index {job.next_index - 1} and can't have {total} in all",
        )
    job.total = total
    book.touch(job)
    return None


def _no_job(number: int) -> Refusal:
    return Refusal(RefusalCode.BAD_REQUEST, f"job {number} does not exist; it may have been pruned")


# --- tasks ------------------------------------------------------------------------------


def add_tasks(
    book: Book,
    number: int,
    first: int,
    payloads: Sequence[Payload],
    keys: Sequence[str] | None,
    now: float,
) -> Added | Refusal:
    """Insert tasks at ``first``, ``first + 1`` …; those that exist are left alone."""
    job = book.job(number)
    if job is None:
        return _no_job(number)
    refusal = _check_shape(job, first, payloads, keys)
    if refusal is not None:
        return refusal
    new: Iterable[int] = range(first, first + len(payloads))
    if first < job.next_index:
        existing = _existing(book, job, first, payloads)
        if isinstance(existing, Refusal):
            return existing
        new = [index for index in new if index not in existing]
    refusal = _check_new(book, job, first, payloads, new)
    if refusal is not None:
        return refusal
    return Added(_insert(book, job, first, payloads, keys, new, now))


def _check_shape(
    job: Job, first: int, payloads: Sequence[Payload], keys: Sequence[str] | None
) -> Refusal | None:
    if first < 0 or first + len(payloads) - 1 > MAX_INDEX:
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {job.number}: tasks {first} to {first + len(payloads) - 1} are out of range; "
            f"indices go from 0 to {MAX_INDEX}",
        )
    if keys is not None and len(keys) != len(payloads):
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {job.number}: {len(keys)} keys came with {len(payloads)} tasks",
        )
    return None


def _existing(book: Book, job: Job, first: int, payloads: Sequence[Payload]) -> set[int] | Refusal:
    """Indices that are taken, or why their payloads contradict the new ones."""
    last = min(first + len(payloads), job.next_index) - 1
    existing = set(range(first, min(job.taken, last + 1)))
    changed = []
    ids = (task_id(job.number, first), task_id(job.number, last))
    for task, size, kept in book.run(_EXISTING, ids):
        index = index_of(task)
        existing.add(index)
        if job.is_compared and not _is_same(payloads[index - first], size, kept):
            changed.append(index)
    if not changed:
        return existing
    is_named = job.spec.name is not None
    return Refusal(
        RefusalCode.INPUT_CHANGED if is_named else RefusalCode.KEY_CONFLICT,
        f"job {job.number} has other inputs at {len(changed)} of these indices, first at "
        f"{changed[0]}; use another {'name' if is_named else 'unique key'} for the new inputs",
        tuple(changed[:SHOWN_INDICES]),
    )


def _is_same(payload: Payload, size: int | None, kept: bytes) -> bool:
    """Whether a payload is the one that was kept, whole or as its digest."""
    if isinstance(payload, Blob):
        digest = payload.digest
    elif size is None or size == IN_PAYLOADS:
        return payload == kept
    else:
        digest = hashlib.sha256(payload).digest()
    if size is None or size == IN_PAYLOADS:
        kept = hashlib.sha256(kept).digest()
    return digest == kept


def _check_new(
    book: Book, job: Job, first: int, payloads: Sequence[Payload], new: Iterable[int]
) -> Refusal | None:
    count = len(new)  # type: ignore[arg-type]
    if not count:
        return None
    if job.total is not None and (
        max(new) >= job.total or job.count + count > job.total or job.state.is_final
    ):
        return Refusal(
            RefusalCode.INPUT_CHANGED if job.is_compared else RefusalCode.BAD_REQUEST,
            f"job {job.number} is sealed with {job.total} tasks and takes none at "
            f"{min(new)} to {max(new)}; submit them as another job",
        )
    queue = book.queue(job.spec.queue)
    if queue.limit is not None and queue.waiting + count > queue.limit:
        return Refusal(
            RefusalCode.QUEUE_FULL,
            f"queue {queue.name!r} holds {queue.waiting} of at most {queue.limit} waiting tasks, "
            f"so {count} more don't fit; submit them later, or raise its limit",
        )
    missing = book.missing_blob(payloads[index - first] for index in new)
    return None if missing is None else _no_blob(missing.digest)


def _insert(
    book: Book,
    job: Job,
    first: int,
    payloads: Sequence[Payload],
    keys: Sequence[str] | None,
    new: Iterable[int],
    now: float,
) -> int:
    count = len(new)  # type: ignore[arg-type]
    if not count:
        return 0
    spec = job.spec
    is_plain = keys is None and not spec.delay_s and spec.ttl_s is None and not job.needs
    if is_plain and _insert_plain(book, job, first, payloads, new):
        state = TaskState.QUEUED
    else:
        state = _insert_any(book, job, first, payloads, keys, new, now)
    job.next_index = max(job.next_index, max(new) + 1)
    book.insert(job, state, count)
    if keys is not None:
        settle_keys(book, now)
    return count


def _insert_plain(
    book: Book, job: Job, first: int, payloads: Sequence[Payload], new: Iterable[int]
) -> bool:
    """Insert tasks that are ready at once and small; False if one of them is not small."""
    base = first_task(job.number)
    lane, rank = job.lane.number, -job.spec.priority
    shift = book.arrivals(0) - first
    rows = [
        (base + index, lane, rank, shift + index, payload)
        for index in new
        if (payload := payloads[index - first]).__class__ is bytes
        and len(payload) <= ROW_PAYLOAD_BYTES
    ]
    if len(rows) != len(new):  # type: ignore[arg-type]
        return False
    book.arrivals(len(payloads))
    book.many(_INSERT_READY, rows)
    book.woken.add(lane)
    return True


def _insert_any(
    book: Book,
    job: Job,
    first: int,
    payloads: Sequence[Payload],
    keys: Sequence[str] | None,
    new: Iterable[int],
    now: float,
) -> TaskState:
    """Insert tasks with whatever they wait for; the state they are in now."""
    spec = job.spec
    state = TaskState.BLOCKED if job.needs else TaskState.QUEUED
    due = now + spec.delay_s if spec.delay_s else None
    expires = None if spec.ttl_s is None else now + spec.ttl_s
    numbers = None if keys is None else key_numbers(book, job, [keys[i - first] for i in new])
    hold = initial_hold(state, due, numbers is not None)
    base, shift = first_task(job.number), book.arrivals(len(payloads)) - first
    rows: list[tuple[Any, ...]] = []
    big: list[tuple[int, bytes]] = []
    for index in new:
        size, args = _columns(book, job, base + index, payloads[index - first], big)
        key = None if numbers is None or keys is None else numbers[keys[index - first]]
        rows.append(
            (base + index, state, hold, job.lane.number, -spec.priority, shift + index)
            + (due, expires, key, size, args)
        )
    book.many(_INSERT_TASK, rows)
    if big:
        book.many(_INSERT_PAYLOAD, big)
    if state is TaskState.QUEUED and hold is Hold.NONE:
        book.woken.add(job.lane.number)
    for at in (due, expires):
        if at is not None:
            book.wake_by(at)
    return state


def initial_hold(state: TaskState, due: float | None, has_key: bool) -> Hold:  # noqa: FBT001
    """What a task waits for that is new to its state; a key decides in ``settle_keys``."""
    if state is not TaskState.QUEUED:
        return Hold.NONE
    if due is not None:
        return Hold.TIME
    return Hold.KEY if has_key else Hold.NONE


def _columns(
    book: Book, job: Job, task: int, payload: Payload, big: list[tuple[int, bytes]]
) -> tuple[int | None, bytes | None]:
    """``size`` and ``args`` of a task with this payload."""
    if isinstance(payload, Blob):
        job.traits |= Traits.BLOBS
        book.refer(payload.digest)
        return payload.size_bytes, payload.digest
    if len(payload) <= ROW_PAYLOAD_BYTES:
        return None, payload
    big.append((task, payload))
    return IN_PAYLOADS, None


__all__ = ["DIGEST_ONLY", "add_tasks", "open_job", "seal_job"]
