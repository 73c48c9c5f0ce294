"""What one transaction knows and has changed beside the rows of tasks.

The store has one owner and one connection, so what was read once stays true:
the particulars and counters of recent jobs, every lane and every queue are
kept in memory, changed there, and written once, at the end. After a
rollback nothing of it is believed any more and all is read again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import apsw

from multihost.core.ids import INDEX_BITS, MAX_JOB, first_task, first_token, index_of, last_task
from multihost.core.resources import Requirement
from multihost.core.state import Event, JobState, TaskState, after
from multihost.store.base import Final as FinalTask
from multihost.store.sqlite.entries import (
    Job,
    KeyChange,
    LaneBook,
    QueueBook,
    Run,
    Settling,
    Traits,
    decode_session,
    decode_spec,
)
from multihost.store.sqlite.itembook import ItemBook
from multihost.wire.message import Blob, Payload

_JOB = (
    "SELECT number, uid, spec, state, lane, total, blocked, queued, running, succeeded, failed,"
    " cancelled, needs, taken, dropped, traits, owner, created_at, ended_at"
    " FROM jobs WHERE number = ?"
)
_FIND_JOB: Final = {
    "uid": "SELECT number FROM jobs WHERE uid = ?",
    "name": "SELECT number FROM jobs WHERE name = ?",
    "unique_key": "SELECT number FROM jobs WHERE unique_key = ?",
}
_LAST_INDEX = "SELECT max(id) FROM tasks WHERE id BETWEEN ? AND ?"
_INSERT_JOB = (
    "INSERT INTO jobs (total, blocked, queued, running, succeeded, failed, cancelled, state,"
    " needs, taken, dropped, traits, owner, ended_at, prune_at, number, uid, name, unique_key,"
    " lane, created_at, spec)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_WRITE_JOB = (
    "UPDATE jobs SET total = ?, blocked = ?, queued = ?, running = ?, succeeded = ?, failed = ?,"
    " cancelled = ?, state = ?, needs = ?, taken = ?, dropped = ?, traits = ?, owner = ?,"
    " ended_at = ?, prune_at = ? WHERE number = ?"
)
# Without a column that is in an index: SQLite would write its entry again, same or not.
_WRITE_COUNTS = (
    "UPDATE jobs SET total = ?, blocked = ?, queued = ?, running = ?, succeeded = ?, failed = ?,"
    " cancelled = ? WHERE number = ?"
)
_LANES = (
    "SELECT number, queue, requires, jobs, blocked, queued, running, succeeded, failed,"
    " cancelled FROM lanes"
)
_WRITE_LANE = (
    "UPDATE lanes SET jobs = ?, blocked = ?, queued = ?, running = ?, succeeded = ?, failed = ?,"
    " cancelled = ? WHERE number = ?"
)
_RUNNING = "SELECT id, token, -place, key, size FROM tasks INDEXED BY tasks_place WHERE place < 0"
_SETTLING = "SELECT job, what, cursor FROM settling ORDER BY job"
_FILED_BYTES = "SELECT coalesce(sum(size), 0) FROM blobs WHERE is_inline = 0"
_WRITE_REFS = "UPDATE blobs SET refs = refs + ?, touched_at = ? WHERE digest = ?"


PAGE_BYTES: Final = 4096


class Rows(Protocol):
    """What a statement yields: rows whose types the schema states and Python can't."""

    get: Any

    def __iter__(self) -> Iterator[Any]: ...
    def fetchall(self) -> list[Any]: ...
    def fetchone(self) -> Any: ...
    def close(self) -> None: ...


class Book:
    """The connection and everything that is remembered beside it.

    Invariant: between transactions what is in memory equals what is in the
    file. ``dirty`` has the jobs and lanes of which that is not so.
    """

    def __init__(self, db: apsw.Connection, epoch: int, cached_jobs: int) -> None:
        """Read lanes and queues; remember up to ``cached_jobs`` jobs."""
        self.run: Callable[..., Rows] = db.execute
        self.many: Callable[..., Rows] = db.executemany
        self.db = db
        self.woken: set[int] = set()
        self.wake_at: float | None = None
        self._cached_jobs = cached_jobs
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self.has_more_jobs = False
        """Whether more are in memory since the old ones were last forgotten."""
        self.dirty_jobs: dict[int, Job] = {}
        self.running: dict[int, Run] = {}
        self.settling: dict[int, Settling] = {}
        self._new_jobs: dict[tuple[str, bytes | str], int] = {}
        self._dirty_lanes: dict[int, LaneBook] = {}
        self._refs: dict[bytes, int] = {}
        self.key_changes: dict[int, KeyChange] = {}
        self._next_token = first_token(epoch)
        # Arrival numbers grow with the epoch like tokens, so none has to be stored.
        self._next_seq = first_token(epoch)
        self._next_lane = 1
        self.limit_bytes: int | None = None
        self.used_bytes = 0
        """As last measured; kept only where there is a limit."""
        self.filed_bytes = 0
        """Of blobs that are files."""
        self.items = ItemBook(self.run, self.many)
        self._read()

    def reload(self) -> None:
        """Read again all that a rollback may have made untrue."""
        self.items.reload()
        self._read()

    def _read(self) -> None:
        self._jobs.clear()
        self.dirty_jobs.clear()
        self._new_jobs.clear()
        self._dirty_lanes.clear()
        self._refs.clear()
        self.key_changes.clear()
        self.lanes: dict[int, LaneBook] = {}
        self._lane_of: dict[tuple[str, str], LaneBook] = {}
        self.queues: dict[str, QueueBook] = {}
        for name, is_paused, limit in self.run('SELECT name, is_paused, "limit" FROM queues'):
            self.queues[name] = QueueBook(name, bool(is_paused), limit)
        for number, queue, requires, jobs, *counts in self.run(_LANES):
            self._add_lane(LaneBook(number, queue, requires, jobs, counts))
        self._next_lane = max(self._next_lane, max(self.lanes, default=0) + 1)
        last = self.run("SELECT max(number) FROM jobs").get or 0
        pruned = self.run("SELECT value FROM meta WHERE name = 'last_job'").get or 0
        self._next_job = max(last, pruned) + 1
        self.running = {task: tuple(run) for task, *run in self.run(_RUNNING)}
        self.settling = {job: Settling(*rest) for job, *rest in self.run(_SETTLING)}
        if self.limit_bytes is not None:
            self.filed_bytes = self.run(_FILED_BYTES).get

    # room ------------------------------------------------------------------------------

    def limit_size(self, limit_bytes: int) -> None:
        """Refuse what makes the store hold more than about so much."""
        self.limit_bytes = limit_bytes
        self.filed_bytes = self.run(_FILED_BYTES).get

    def measure(self) -> None:
        """See how much the store holds: pages in use and files of blobs, without the log."""
        pages = self.db.pragma("page_count") - self.db.pragma("freelist_count")
        self.used_bytes = pages * PAGE_BYTES + self.filed_bytes

    def no_room(self, more_bytes: int = 0) -> str | None:
        """Why nothing more is taken, or not so much; None while there is room."""
        if self.limit_bytes is None or (
            self.used_bytes < self.limit_bytes and self.used_bytes + more_bytes <= self.limit_bytes
        ):
            return None
        more = f", and a payload of {more_bytes:,} bytes would come on top" if more_bytes else ""
        return (
            f"the store holds {self.used_bytes >> 20} MiB of the {self.limit_bytes >> 20} MiB that "
            f"--store-limit allows{more}: submit again when more of its work is done, delete ended "
            "jobs with 'multihost delete', or start the server with a larger limit"
        )

    def forget_old_jobs(self) -> None:
        """Keep the memory of jobs within its bound; between transactions only."""
        self.has_more_jobs = False
        while len(self._jobs) > self._cached_jobs:
            self._jobs.popitem(last=False)

    # jobs ----------------------------------------------------------------------------

    def job(self, number: int) -> Job | None:
        """The job, from memory or from the file."""
        job = self._jobs.get(number)
        if job is None:
            if not 0 < number <= MAX_JOB:
                return None
            row = self.run(_JOB, (number,)).fetchone()
            if row is None:
                return None
            job = self._read_job(row)
            self._jobs[number] = job
            self.has_more_jobs = True
        else:
            self._jobs.move_to_end(number)
        return job

    def _read_job(self, row: Sequence[Any]) -> Job:
        (number, uid, spec, state, lane, total), counts = row[:6], row[6:12]
        needs, taken, dropped, traits, owner, created_at, ended_at = row[12:]
        last = self.run(_LAST_INDEX, (first_task(number), last_task(number))).get
        return Job(
            number,
            uid,
            decode_spec(spec),
            JobState(state),
            self.lanes[lane],
            total,
            list(counts),
            needs,
            taken,
            dropped,
            traits,
            owner,
            created_at,
            ended_at,
            max(taken, 0 if last is None else index_of(last) + 1),
        )

    def job_of(self, task: int) -> Job:
        """The job of a task that is in the store."""
        job = self.job(task >> INDEX_BITS)
        assert job is not None, task
        return job

    def find_job(self, column: str, value: bytes | str) -> Job | None:
        """The job with this uid, name or unique_key."""
        number = self._new_jobs.get((column, value))
        if number is None:
            number = self.run(_FIND_JOB[column], (value,)).get
        return None if number is None else self.job(number)

    def new_number(self) -> int:
        """Number for a job; none is ever given twice."""
        number = self._next_job
        self._next_job += 1
        return number

    @property
    def last_job(self) -> int:
        """Largest number given to a job so far."""
        return self._next_job - 1

    def add_job(self, job: Job) -> None:
        """A new job; it gets its row at the end, with the counters of its first tasks."""
        job.is_new = True
        self._jobs[job.number] = job
        self.has_more_jobs = True
        self._new_jobs["uid", job.uid] = job.number
        if job.spec.name is not None:
            self._new_jobs["name", job.spec.name] = job.number
        if job.spec.unique_key is not None:
            self._new_jobs["unique_key", job.spec.unique_key] = job.number
        job.lane.jobs += 1
        self.dirty_jobs[job.number] = job
        self._dirty_lanes[job.lane.number] = job.lane

    def forget(self, number: int) -> None:
        """A job was deleted."""
        self._jobs.pop(number, None)
        self.dirty_jobs.pop(number, None)

    def touch(self, job: Job) -> None:
        """The job has changed: write it, and see whether it has ended."""
        job.has_changed = True
        self.dirty_jobs[job.number] = job

    def give_trait(self, job: Job, trait: Traits) -> None:
        """Note what the job's tasks have had."""
        if not job.traits & trait:
            job.traits |= trait
            self.touch(job)

    def insert(self, job: Job, state: TaskState, count: int) -> None:
        """Count new tasks."""
        job.counts[state] += count
        job.lane.counts[state] += count
        self._touch_both(job)

    def move(self, job: Job, before: TaskState, event: Event, count: int = 1) -> TaskState:
        """Count tasks from the state ``before`` into the one that follows on ``event``.

        Raises IllegalTransitionError when the table has no such pair.
        """
        state = after(before, event)
        job.counts[before] -= count
        job.counts[state] += count
        lane = job.lane.counts
        lane[before] -= count
        lane[state] += count
        self._touch_both(job)
        return state

    def _touch_both(self, job: Job) -> None:
        self.dirty_jobs[job.number] = job
        self._dirty_lanes[job.lane.number] = job.lane

    # lanes and queues ------------------------------------------------------------------

    def queue(self, name: str) -> QueueBook:
        """The queue, which exists as soon as it is spoken of."""
        book = self.queues.get(name)
        if book is None:
            book = self.queues[name] = QueueBook(name)
        return book

    def lane(self, queue: str, requires: Requirement) -> LaneBook:
        """The lane of a queue with these requirements, made when first needed."""
        text = requires.encode()
        lane = self._lane_of.get((queue, text))
        if lane is None:
            lane = LaneBook(self._next_lane, queue, text)
            self._next_lane += 1
            values = (lane.number, queue, text)
            self.run("INSERT INTO lanes (number, queue, requires) VALUES (?, ?, ?)", values)
            self._add_lane(lane)
        return lane

    def _add_lane(self, lane: LaneBook) -> None:
        self.lanes[lane.number] = lane
        self._lane_of[lane.queue, lane.requires] = lane
        self.queue(lane.queue).lanes.append(lane)

    def remove_lane(self, lane: LaneBook) -> None:
        """A lane was deleted."""
        del self.lanes[lane.number]
        del self._lane_of[lane.queue, lane.requires]
        self._dirty_lanes.pop(lane.number, None)
        self.queues[lane.queue].lanes.remove(lane)

    def touch_lane(self, lane: LaneBook) -> None:
        """The lane has changed: write it."""
        self._dirty_lanes[lane.number] = lane

    def ready_place(self, task: int, key: int | None) -> int | None:
        """The place of a queued task that waits for no time: its lane, unless its key decides."""
        if key is not None:
            self.key_changes.setdefault(key, KeyChange())
            return None
        lane = self.job_of(task).lane.number
        self.woken.add(lane)
        return lane

    def wake_by(self, at: float) -> None:
        """``promote`` has work at that time."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    # numbers ---------------------------------------------------------------------------

    def tokens(self, count: int) -> int:
        """First of ``count`` new tokens."""
        first = self._next_token
        self._next_token += count
        return first

    def arrivals(self, count: int) -> int:
        """First of ``count`` new arrival numbers."""
        first = self._next_seq
        self._next_seq += count
        return first

    # blobs -----------------------------------------------------------------------------

    def refer(self, digest: bytes, count: int = 1) -> None:
        """Something refers to the blob, or with a negative count doesn't any more."""
        self._refs[digest] = self._refs.get(digest, 0) + count

    def missing_blob(self, payloads: Iterable[Payload]) -> Blob | None:
        """A blob among the payloads that is not in the store, or has another size there."""
        seen: set[Blob] = set()
        for payload in payloads:
            if payload.__class__ is bytes or payload in seen:
                continue
            assert isinstance(payload, Blob)
            if self.blob_size(payload.digest) != payload.size_bytes:
                return payload
            seen.add(payload)
        return None

    @property
    def has_references(self) -> bool:
        """Whether this transaction refers to blobs, or does so no more."""
        return bool(self._refs)

    def has_new_references(self, digest: bytes) -> bool:
        """Whether this transaction refers to the blob and the file does not know it yet."""
        return digest in self._refs

    def blob_size(self, digest: bytes) -> int | None:
        """Size of a blob in bytes; None when it is not in the store."""
        size: int | None = self.run("SELECT size FROM blobs WHERE digest = ?", (digest,)).get
        return size

    # writing ---------------------------------------------------------------------------

    def write_counters(self) -> None:
        """Write jobs and lanes, before a listing or at the end; ``prepare`` still looks at them."""
        new, changed, counted = [], [], []
        for job in self.dirty_jobs.values():
            if job.is_new:
                new.append((*job.values(), *job.constants()))
            elif job.has_changed:
                changed.append(job.values())
            else:
                counted.append((job.total, *job.counts, job.number))
            job.is_new = job.has_changed = False
        for sql, values in ((_INSERT_JOB, new), (_WRITE_JOB, changed), (_WRITE_COUNTS, counted)):
            if values:
                self.many(sql, values)
        self._new_jobs.clear()
        if self._dirty_lanes:
            lanes = self._dirty_lanes.values()
            self.many(_WRITE_LANE, [(lane.jobs, *lane.counts, lane.number) for lane in lanes])
            self._dirty_lanes.clear()

    def change(self, sql: str, values: list[tuple[Any, ...]]) -> None:
        """Run an UPDATE that has to change exactly one row for each of ``values``."""
        before = self.db.total_changes()
        self.many(sql, values)
        changed = self.db.total_changes() - before
        assert changed == len(values), f"{changed} of {len(values)} rows changed by {sql}"

    def write_references(self, now: float) -> None:
        """Write how often blobs are referred to."""
        if self._refs:
            self.many(
                _WRITE_REFS,
                [(count, now, digest) for digest, count in self._refs.items() if count],
            )
            self._refs.clear()

    def session_name(self, number: int) -> str:
        """Name of the worker whose session this is; empty when it is not known any more."""
        info = self.run("SELECT info FROM sessions WHERE number = ?", (number,)).get
        return "" if info is None else decode_session(info).name

    def record(self, finals: Sequence[FinalTask]) -> None:
        """Write the outcomes of tasks that have just ended."""
        self.many(
            "INSERT INTO results (id, ending, size, payload) VALUES (?, ?, ?, ?)",
            [
                (task, ending, None, payload)
                if payload.__class__ is bytes
                else (task, ending, payload.size_bytes, payload.digest)  # type: ignore[union-attr]
                for task, ending, payload in finals
            ],
        )
