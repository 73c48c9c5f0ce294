"""A store of plain dicts that obeys the contract of ``store.base`` by brute force.

It is the specification in executable form: it scans where a real store keeps
indices and counters, computes where they remember, and copies everything to
roll back. Real stores are compared with it, verb by verb; whoever doubts what
a verb should do reads it here.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence

from multihost.core.ids import (
    MAX_INDEX,
    UID_BYTES,
    first_token,
    index_of,
    job_of,
    last_task,
    task_id,
)
from multihost.core.job import DAY_S, JobSpec
from multihost.core.outcome import Ending, encode_failure
from multihost.core.retry import Faults
from multihost.core.state import Event, JobState, TaskState, job_state
from multihost.store import failures
from multihost.store.base import (
    FIRST_PAGE,
    Added,
    AttemptRow,
    Cancelled,
    Changes,
    Final,
    JobRow,
    Lane,
    Lease,
    OpenedJob,
    Promotion,
    QueueRow,
    Refusal,
    Reinstated,
    Running,
    SessionInfo,
    SessionRow,
    Settlement,
    StoredBlob,
    TaskRow,
)
from multihost.testing.modeldata import BlobData, Data, Job, Key, Session, Task
from multihost.wire.message import Attempt, Blob, Held, Payload, RefusalCode, Role

_UNFINISHED = (TaskState.BLOCKED, TaskState.QUEUED, TaskState.RUNNING)


class ModelDisk:
    """What survives between two openings of a model."""

    def __init__(self) -> None:
        """An empty disk."""
        self.data = Data()
        self.epoch = 0


class ModelStore:
    """The contract, by brute force; see ``multihost.store.base.Store`` for the verbs."""

    uid = bytes(UID_BYTES)

    def __init__(self, disk: ModelDisk) -> None:
        """Open what is on ``disk``."""
        disk.epoch += 1
        self.epoch = disk.epoch
        self._disk = disk
        self._data = disk.data.copy()
        self._tokens = self._arrivals = first_token(self.epoch)
        self._touched_keys: dict[tuple[str, str], None] = {}
        self._dirty: set[int] = set()
        self.woken = {task.lane for task in self._data.tasks.values() if task.is_ready}
        self.wake_at = self._next_time()

    # transactions ------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction."""
        self._dirty.clear()
        self._references = self._count_references()

    def prepare(self, now: float) -> Changes:
        """End what has ended."""
        ended: dict[int, Job] = {}
        finals: list[Final] = []
        while self._dirty:
            numbers, self._dirty = sorted(self._dirty), set()
            for job in (self._data.jobs[n] for n in numbers if n in self._data.jobs):
                if job.is_doomed:
                    finals += self._cancel_blocked(job)
                if self._look(job, now):
                    ended[job.number] = job
        self._touch_blobs(now)
        return Changes([self._row(job) for job in ended.values()], finals)

    def commit(self, *, is_durable: bool) -> None:
        """Commit."""
        self._disk.data = self._data.copy()

    def rollback(self) -> None:
        """Undo the transaction."""
        self._data = self._disk.data.copy()
        self._dirty.clear()
        self._touched_keys.clear()

    def close(self) -> None:
        """Nothing to let go of."""

    # jobs and tasks ------------------------------------------------------------------

    def open_job(
        self, uid: bytes, spec: JobSpec, owner: int | None, now: float
    ) -> OpenedJob | Refusal:
        """Create a job, or find the one with this uid, name or unique key."""
        found = self._find(uid, spec)
        if isinstance(found, Refusal):
            return found
        if found is not None:
            if found.spec.is_transient:
                found.owner = owner
            return self._opened(found, is_new=False)
        if any(number not in self._data.jobs for number in spec.after):
            return _refuse(RefusalCode.BAD_REQUEST)
        if any(digest not in self._data.blobs for digest in _blobs_of(spec)):
            return _refuse(RefusalCode.BAD_REQUEST)
        self._data.last_job += 1
        lane = self._data.lane(spec.queue, spec.requires.encode())
        job = Job(self._data.last_job, uid, spec, lane, created_at=now)
        job.owner = owner if spec.is_transient else None
        needed = [self._data.jobs[number] for number in spec.after]
        job.needs = {n.number for n in needed if n.state is JobState.OPEN}
        job.is_doomed = any(n.state in (JobState.FAILED, JobState.CANCELLED) for n in needed)
        self._data.jobs[job.number] = job
        return self._opened(job, is_new=True)

    def _find(self, uid: bytes, spec: JobSpec) -> Job | Refusal | None:
        jobs = list(self._data.jobs.values())
        for job in jobs:
            if job.uid == uid:
                return job
        for name, code in (
            ("name", RefusalCode.INPUT_CHANGED),
            ("unique_key", RefusalCode.KEY_CONFLICT),
        ):
            wanted = getattr(spec, name)
            for job in jobs:
                if wanted is None or getattr(job.spec, name) != wanted:
                    continue
                if job.spec.fingerprint != spec.fingerprint:
                    return _refuse(code)
                if (job.spec.name, job.spec.unique_key) != (spec.name, spec.unique_key):
                    return _refuse(RefusalCode.KEY_CONFLICT)
                return job
        return None

    def _opened(self, job: Job, *, is_new: bool) -> OpenedJob:
        row = self._row(job)
        return OpenedJob(job.number, is_new, job.spec, row.count, job.total, job.state)

    def add_tasks(
        self,
        job: int,
        first: int,
        payloads: Sequence[Payload],
        keys: Sequence[str] | None,
        now: float,
    ) -> Added | Refusal:
        """Insert tasks; those that exist are left alone."""
        it = self._data.jobs.get(job)
        if it is None or first < 0 or first + len(payloads) - 1 > MAX_INDEX:
            return _refuse(RefusalCode.BAD_REQUEST)
        if keys is not None and len(keys) != len(payloads):
            return _refuse(RefusalCode.BAD_REQUEST)
        is_compared = it.spec.name is not None or it.spec.unique_key is not None
        new, changed = [], []
        for index, payload in enumerate(payloads, first):
            task = self._data.tasks.get(task_id(job, index))
            if task is not None:
                if is_compared and _digest(task.payload) != _digest(payload):
                    changed.append(index)
            elif index >= it.taken:
                new.append(index)
        if changed:
            is_named = it.spec.name is not None
            code = RefusalCode.INPUT_CHANGED if is_named else RefusalCode.KEY_CONFLICT
            return _refuse(code, changed)
        refusal = self._check_new(it, new, [payloads[index - first] for index in new])
        if refusal is not None:
            return refusal
        arrival = self._arrivals
        self._arrivals += len(payloads)
        for index in new:
            key = None if keys is None else keys[index - first]
            self._insert(it, index, payloads[index - first], key, arrival + index - first, now)
        self._settle_keys(now)
        return Added(len(new))

    def _check_new(self, job: Job, new: list[int], payloads: list[Payload]) -> Refusal | None:
        if not new:
            return None
        count = self._row(job).count + len(new)
        if job.total is not None and (new[-1] >= job.total or count > job.total):
            is_compared = job.spec.name is not None or job.spec.unique_key is not None
            code = RefusalCode.INPUT_CHANGED if is_compared else RefusalCode.BAD_REQUEST
            return _refuse(code, new)
        limit = self._data.queue_limits.get(job.spec.queue)
        row = next(row for row in self.queues() if row.name == job.spec.queue)
        if limit is not None and row.blocked + row.queued + len(new) > limit:
            return _refuse(RefusalCode.QUEUE_FULL)
        if any(isinstance(p, Blob) and p.digest not in self._data.blobs for p in payloads):
            return _refuse(RefusalCode.BAD_REQUEST)
        return None

    def _insert(
        self, job: Job, index: int, payload: Payload, key: str | None, seq: int, now: float
    ) -> None:
        spec = job.spec
        task = Task(task_id(job.number, index), payload, job.lane, -spec.priority, seq)
        task.key = None if key is None else (spec.queue, key)
        task.due = now + spec.delay_s if spec.delay_s else None
        task.expires = None if spec.ttl_s is None else now + spec.ttl_s
        if job.needs or job.is_doomed:
            task.state = TaskState.BLOCKED
        self._data.tasks[task.id] = task
        job.next_index = max(job.next_index, index + 1)
        self._dirty.add(job.number)
        if task.key is not None:
            limits = self._data.keys.setdefault(task.key, Key())
            limits.limit, limits.delay_s = spec.key_limit, spec.key_delay_s
        self._queued(task)
        for at in (task.due, task.expires):
            self._wake_by(at)

    def seal_job(self, job: int, total: int, now: float) -> Refusal | None:
        """State that the job has exactly ``total`` tasks."""
        it = self._data.jobs.get(job)
        if it is None:
            return _refuse(RefusalCode.BAD_REQUEST)
        if it.total == total:
            return None
        if it.total is not None:
            is_compared = it.spec.name is not None or it.spec.unique_key is not None
            code = RefusalCode.INPUT_CHANGED if is_compared else RefusalCode.BAD_REQUEST
            return _refuse(code)
        if total < it.next_index:
            return _refuse(RefusalCode.BAD_REQUEST)
        it.total = total
        self._dirty.add(job)
        return None

    def lease(self, lanes: Collection[int], limit: int, session: int, now: float) -> list[Lease]:
        """Hand at most ``limit`` ready tasks to ``session``."""
        ready = [
            task
            for task in self._data.tasks.values()
            if task.is_ready
            and task.lane in lanes
            and self._data.jobs[job_of(task.id)].spec.queue not in self._data.paused
            and (task.expires is None or task.expires > now)
        ]
        leases = []
        for task in sorted(ready, key=lambda task: task.order)[:limit]:
            task.move(Event.LEASED)
            task.session, task.token = session, self._tokens
            self._tokens += 1
            if task.key is not None:
                key = self._data.keys[task.key]
                key.next_at = now + key.delay_s
            self._touch(task)
            attempt = 1 + task.errors + task.crashes + task.losses
            leases.append(Lease(task.id, task.token, task.payload, attempt))
        self._settle_keys(now)
        return leases

    def finish(
        self, session: int, attempts: Sequence[Attempt], now: float, chance: float
    ) -> Settlement:
        """Record how attempts ended; the successful ones first."""
        settlement = Settlement([], [], 0)
        given = [self._with_result(attempt) for attempt in attempts]
        for attempt in sorted(given, key=lambda attempt: attempt.ending is not Ending.OK):
            task = self._data.tasks.get(attempt.task)
            if task is None or task.state is not TaskState.RUNNING or task.token != attempt.token:
                settlement.stale.append(Held(attempt.task, attempt.token))
            else:
                settlement = self._finish(task, session, attempt, now, chance, settlement)
        self._settle_keys(now)
        return settlement

    def _with_result(self, attempt: Attempt) -> Attempt:
        """The attempt, or if its result never came the failure that this is."""
        payload = attempt.payload
        if not isinstance(payload, Blob) or payload.digest in self._data.blobs:
            return attempt
        ending = Ending.UNRUNNABLE if attempt.ending is Ending.OK else attempt.ending
        return Attempt(attempt.task, attempt.token, ending, failures.result_missing(payload))

    def _finish(
        self,
        task: Task,
        session: int,
        attempt: Attempt,
        now: float,
        chance: float,
        settlement: Settlement,
    ) -> Settlement:
        ending, payload = attempt.ending, attempt.payload
        if ending in (Ending.EXPIRED, Ending.BLOCKED):
            ending = Ending.RAISED
        if ending in (Ending.OK, Ending.CANCELLED):
            event = Event.SUCCEEDED if ending is Ending.OK else Event.CANCELLED
            settlement.finals.append(self._end(task, event, ending, payload))
            return settlement
        spec = self._data.jobs[job_of(task.id)].spec
        failure = failures.read(ending, payload)
        faults = Faults(task.errors, task.crashes, task.losses)
        verdict = failures.verdict(ending, faults, spec, chance)
        task.errors, task.crashes, task.losses = verdict.faults
        if not isinstance(payload, Blob):
            payload = failures.with_certificates(failure, [a.failure for a in task.attempts])
        history = failures.for_history(failure)
        task.attempts.append(AttemptRow(task.id, task.token, ending, session, now, history))
        if verdict.event is Event.FAILED:
            settlement.finals.append(self._end(task, Event.FAILED, ending, payload))
            return settlement
        task.move(verdict.event)
        task.session, task.expires = None, None
        task.due = now + verdict.delay_s if verdict.delay_s > 0 else None
        self._wake_by(task.due)
        self._queued(task)
        return settlement._replace(requeued=settlement.requeued + 1)

    def release(self, session: int, held: Sequence[Held], now: float) -> int:
        """Queue again what was handed out but not run."""
        count = 0
        for task_number, token in ((lease.task, lease.token) for lease in held):
            task = self._data.tasks.get(task_number)
            if task is None or task.state is not TaskState.RUNNING or task.token != token:
                continue
            task.move(Event.RELEASED)
            task.session = None
            self._wake_by(task.expires)
            self._queued(task)
            count += 1
        self._settle_keys(now)
        return count

    def lose(self, session: int, now: float) -> Settlement:
        """A session is gone: queue its tasks again, or fail those lost too often."""
        settlement = Settlement([], [], 0)
        info = self._data.sessions.get(session)
        lost = encode_failure(failures.lost(info.info.name if info else "", session))
        for task in self._held_by(session):
            attempt = Attempt(task.id, task.token, Ending.LOST, lost)
            settlement = self._finish(task, session, attempt, now, 0.0, settlement)
        self._settle_keys(now)
        return settlement

    def reinstate(self, session: int, held: Sequence[Held], now: float) -> Reinstated:
        """Compare what a returning worker holds with the book; the book wins."""
        booked = [Held(task.id, task.token) for task in self._held_by(session)]
        stale = [lease for lease in held if lease not in booked]
        return Reinstated(
            stale, self.release(session, [lease for lease in booked if lease not in held], now)
        )

    def _held_by(self, session: int) -> list[Task]:
        return [
            task
            for task in self._data.in_order()
            if task.state is TaskState.RUNNING and task.session == session
        ]

    def cancel(
        self, job: int, indices: Sequence[int] | None, *, only_queued: bool, now: float
    ) -> Cancelled:
        """Cancel tasks of a job (all of it for None, which also seals it)."""
        it = self._data.jobs.get(job)
        if it is None:
            return Cancelled([], [])
        if indices is None:
            it.total = self._row(it).count
            self._dirty.add(job)
        states = _UNFINISHED[:2] if only_queued else _UNFINISHED
        finals, stopped = [], []
        for task in self._chosen(job, indices):
            if task.state in states:
                if task.state is TaskState.RUNNING:
                    assert task.session is not None
                    stopped.append(Running(task.session, task.id, task.token))
                finals.append(self._end(task, Event.CANCELLED, Ending.CANCELLED, b""))
        self._settle_keys(now)
        return Cancelled(finals, stopped)

    def retry(self, job: int, indices: Sequence[int] | None, now: float) -> int:
        """Queue failed or cancelled tasks again with fresh limits."""
        count = 0
        for task in self._chosen(job, indices):
            if task.state not in (TaskState.FAILED, TaskState.CANCELLED):
                continue
            task.move(Event.RETRIED)
            task.errors = task.crashes = task.losses = 0
            task.due = task.expires = task.result = None
            self._queued(task)
            self._data.jobs[job].state = JobState.OPEN
            self._data.jobs[job].ended_at = None
            count += 1
        self._settle_keys(now)
        return count

    def _chosen(self, job: int, indices: Sequence[int] | None) -> list[Task]:
        return [
            task
            for task in self._data.in_order()
            if job_of(task.id) == job and (indices is None or index_of(task.id) in indices)
        ]

    def promote(self, now: float) -> Promotion:
        """Make ready what was due by ``now``, expire what waited too long, set ``wake_at``."""
        finals = []
        for task in self._data.in_order():
            if task.may_expire and task.expires is not None and task.expires <= now:
                spec = self._data.jobs[job_of(task.id)].spec
                payload = failures.expired(spec)
                finals.append(self._end(task, Event.EXPIRED, Ending.EXPIRED, payload))
        self._settle_keys(now)
        for task in self._data.in_order():
            if task.state is TaskState.QUEUED and task.due is not None and task.due <= now:
                task.due = None
                self._queued(task)
        self._settle_keys(now)
        for name, key in self._data.keys.items():
            if key.wake_at is not None and key.wake_at <= now:
                self._touched_keys[name] = None
        self._settle_keys(now)
        self.wake_at = self._next_time()
        return Promotion(finals)

    def outcomes(self, job: int, after_index: int, limit: int) -> list[Final]:
        """Ended tasks with an index above ``after_index``, by index."""
        ended = [task.result for task in self._of(job, after_index) if task.result is not None]
        return ended[:limit]

    def take(self, job: int, upto: int) -> int:
        """Drop ended tasks of a transient job below index ``upto``."""
        it = self._data.jobs.get(job)
        if it is None or not it.spec.is_transient or upto < 1:
            return 0
        upto = min(upto, it.next_index)
        it.taken = max(it.taken, upto)
        gone = [
            task for task in self._of(job, -1) if task.state.is_final and index_of(task.id) < upto
        ]
        for task in gone:
            it.dropped[task.state] += 1
            del self._data.tasks[task.id]
        return len(gone)

    def disown(self, owner: int, now: float) -> Cancelled:
        """A client is gone for good: cancel the transient jobs that lived with it."""
        both = Cancelled([], [])
        for number, job in sorted(self._data.jobs.items()):
            if job.owner == owner and job.state is JobState.OPEN:
                one = self.cancel(number, None, only_queued=False, now=now)
                both = Cancelled(both.finals + one.finals, both.stopped + one.stopped)
        return both

    def prune(self, now: float, limit: int) -> int:
        """Delete ended jobs past their retention, and what is not used any more."""
        data, gone = self._data, 0
        for number, job in list(data.jobs.items()):
            if job.ended_at is not None and job.ended_at + job.spec.retention_s <= now:
                for task in self._of(number, -1):
                    del data.tasks[task.id]
                del data.jobs[number]
                gone += 1
        used = {job.lane for job in data.jobs.values()}
        gone += data.keep_lanes(used)
        owners = {job.owner for job in data.jobs.values()}
        for number, session in list(data.sessions.items()):
            is_old = session.closed_at is not None and session.closed_at <= now - DAY_S
            if is_old and number not in owners and not self._held_by(number):
                del data.sessions[number]
                gone += 1
        return gone

    # sessions --------------------------------------------------------------------------

    def open_session(self, info: SessionInfo, now: float) -> int:
        """Number of the session with this uid, new or reopened."""
        for number, session in self._data.sessions.items():
            if session.info.uid == info.uid:
                session.info, session.closed_at = info, None
                return number
        self._data.last_session += 1
        self._data.sessions[self._data.last_session] = Session(info, now)
        return self._data.last_session

    def close_session(self, session: int, now: float) -> None:
        """The session ended."""
        it = self._data.sessions.get(session)
        if it is not None and it.closed_at is None:
            it.closed_at = now

    # blobs -----------------------------------------------------------------------------

    def put_blob(self, blob: Blob, data: bytes | None, now: float) -> None:
        """Note a blob."""
        known = self._data.blobs.get(blob.digest)
        if known is None:
            self._data.blobs[blob.digest] = BlobData(blob.size_bytes, data, now)
        else:
            known.touched_at = now

    def blob(self, digest: bytes) -> StoredBlob | None:
        """The blob, or None."""
        it = self._data.blobs.get(digest)
        return None if it is None else StoredBlob(it.size_bytes, it.data)

    def unused_blobs(self, before: float, limit: int) -> list[Blob]:
        """Delete and return blobs that nothing refers to and that are older than ``before``."""
        references = self._count_references()
        unused = [
            Blob(digest, it.size_bytes)
            for digest, it in self._data.blobs.items()
            if digest not in references and it.touched_at < before
        ][:limit]
        for blob in unused:
            del self._data.blobs[blob.digest]
        return unused

    def _count_references(self) -> dict[bytes, int]:
        digests = [digest for job in self._data.jobs.values() for digest in _blobs_of(job.spec)]
        for task in self._data.tasks.values():
            payloads = [] if task.state is TaskState.SUCCEEDED else [task.payload]
            if task.result is not None:
                payloads.append(task.result.payload)
            digests += [payload.digest for payload in payloads if isinstance(payload, Blob)]
        return {digest: digests.count(digest) for digest in digests}

    def _touch_blobs(self, now: float) -> None:
        """A blob that is referred to more or less often than before counts as touched."""
        references = self._count_references()
        for digest, blob in self._data.blobs.items():
            if references.get(digest) != self._references.get(digest):
                blob.touched_at = now

    # output ----------------------------------------------------------------------------

    def append_output(self, task: int, stream: int, data: bytes, limit_bytes: int) -> None:
        """Keep what a running task printed; past ``limit_bytes`` the oldest goes."""
        it = self._data.tasks.get(task)
        if it is None:
            return
        it.output = (*it.output, (stream, data)) if data else it.output
        excess = sum(len(part) for _, part in it.output) - limit_bytes
        while excess > 0:
            (first_stream, part), *rest = it.output
            kept = part[excess:]
            it.output = ((first_stream, kept), *rest) if kept else tuple(rest)
            excess -= len(part) - len(kept)

    def output(self, task: int) -> list[tuple[int, bytes]]:
        """What a task printed."""
        it = self._data.tasks.get(task)
        return [] if it is None else list(it.output)

    # queues ----------------------------------------------------------------------------

    def set_queue(self, name: str, *, is_paused: bool | None, limit: int | None) -> None:
        """Pause or resume a queue, bound its length."""
        self._data.named_queues.add(name)
        if limit is not None:
            self._data.queue_limits[name] = limit
            if not limit:
                del self._data.queue_limits[name]
        if is_paused is not None:
            (self._data.paused.add if is_paused else self._data.paused.discard)(name)
        if is_paused is False:
            self.woken |= {lane.number for lane in self.lanes() if lane.queue == name}

    # reading ---------------------------------------------------------------------------

    def lanes(self) -> list[Lane]:
        """Every lane."""
        return self._data.all_lanes()

    def paused_queues(self) -> frozenset[str]:
        """Names of the queues that hand out nothing at present."""
        return frozenset(self._data.paused)

    def job(self, number: int) -> JobRow | None:
        """A job by its number."""
        it = self._data.jobs.get(number)
        return None if it is None else self._row(it)

    def find_job(self, name: str) -> JobRow | None:
        """A job by its name."""
        found = [job for job in self._data.jobs.values() if job.spec.name == name]
        return self._row(found[0]) if found else None

    def jobs(
        self, *, state: JobState | None = None, before: int | None = None, limit: int = FIRST_PAGE
    ) -> list[JobRow]:
        """Jobs, newest first."""
        rows = [
            self._row(job)
            for number, job in sorted(self._data.jobs.items(), reverse=True)
            if (state is None or job.state is state) and (before is None or number < before)
        ]
        return rows[:limit]

    def _row(self, job: Job) -> JobRow:
        states = [task.state for task in self._of(job.number, -1)]
        counts = [states.count(state) + job.dropped[state] for state in TaskState]
        return JobRow(
            job.number,
            job.uid,
            job.spec,
            job.state,
            job.created_at,
            job.ended_at,
            job.total,
            *counts,  # type: ignore[call-arg]
            job.owner,
        )

    def queues(self) -> list[QueueRow]:
        """Every queue, by name."""
        rows = []
        for name in sorted(self._data.named_queues | {lane.queue for lane in self.lanes()}):
            jobs = [self._row(job) for job in self._data.jobs.values() if job.spec.queue == name]
            counts = [sum(getattr(job, state.name.lower()) for job in jobs) for state in TaskState]
            limit = self._data.queue_limits.get(name)
            rows.append(QueueRow(name, *counts, name in self._data.paused, limit))  # type: ignore[call-arg, arg-type]
        return rows

    def task(self, task: int) -> TaskRow | None:
        """A task by its number."""
        it = self._data.tasks.get(task)
        return None if it is None else it.row()

    def tasks(
        self,
        job: int,
        *,
        state: TaskState | None = None,
        after_index: int = -1,
        limit: int = FIRST_PAGE,
    ) -> list[TaskRow]:
        """Tasks of a job, by index."""
        rows = [task.row() for task in self._of(job, after_index)]
        return [row for row in rows if state is None or row.state is state][:limit]

    def attempts(self, task: int) -> list[AttemptRow]:
        """Attempts of a task that did not succeed, oldest first."""
        it = self._data.tasks.get(task)
        return [] if it is None else list(it.attempts)

    def sessions(self, role: Role, *, is_open: bool = True) -> list[SessionRow]:
        """Sessions of a role, newest first."""
        return [
            SessionRow(number, it.info, it.opened_at, it.closed_at, len(self._held_by(number)))
            for number, it in sorted(self._data.sessions.items(), reverse=True)
            if it.info.role is role and (it.closed_at is None) is is_open
        ]

    def verify(self) -> list[str]:
        """Nothing is kept twice here, so nothing can contradict itself."""
        return []

    # within ------------------------------------------------------------------------------

    def _of(self, job: int, after_index: int) -> Iterator[Task]:
        """Tasks of a job, by index."""
        span = range(task_id(job, after_index + 1), last_task(job) + 1)
        return (task for task in self._data.in_order() if task.id in span)

    def _end(self, task: Task, event: Event, ending: Ending, payload: Payload) -> Final:
        task.move(event)
        task.session = task.due = None
        task.result = Final(task.id, ending, payload)
        self._touch(task)
        return task.result

    def _queued(self, task: Task) -> None:
        """A task is queued (or blocked): whether it is ready depends on its time and key."""
        task.is_parked = task.key is not None
        self._touch(task)
        if task.is_ready:
            self.woken.add(task.lane)

    def _touch(self, task: Task) -> None:
        self._dirty.add(job_of(task.id))
        if task.key is not None:
            self._touched_keys[task.key] = None

    def _wake_by(self, at: float | None) -> None:
        if at is not None and (self.wake_at is None or at < self.wake_at):
            self.wake_at = at

    def _next_time(self) -> float | None:
        times: list[float | None] = [key.wake_at for key in self._data.keys.values()]
        for task in self._data.tasks.values():
            times.append(task.due if task.state is TaskState.QUEUED else None)
            times.append(task.expires if task.may_expire else None)
        return min((at for at in times if at is not None), default=None)

    def _settle_keys(self, now: float) -> None:
        """Of each key that was touched let the best tasks be ready, as many as may be."""
        touched, self._touched_keys = self._touched_keys, {}
        for name in touched:
            key = self._data.keys[name]
            tasks = [task for task in self._data.tasks.values() if task.key == name]
            running = sum(task.state is TaskState.RUNNING for task in tasks)
            waiting = sorted(
                (task for task in tasks if task.state is TaskState.QUEUED and task.due is None),
                key=lambda task: task.order,
            )
            room = len(waiting) if key.limit is None else max(0, key.limit - running)
            if key.delay_s > 0:
                room = min(room, 1 if now >= key.next_at else 0)
            for place, task in enumerate(waiting):
                was_parked, task.is_parked = task.is_parked, place >= room
                if was_parked and not task.is_parked:
                    self.woken.add(task.lane)
            is_late = key.delay_s > 0 and now < key.next_at
            key.wake_at = key.next_at if is_late and len(waiting) > room else None
            self._wake_by(key.wake_at)

    def _look(self, job: Job, now: float) -> bool:
        """Set a job's state by its tasks; whether it has just ended."""
        row = self._row(job)
        unfinished = row.blocked + row.queued + row.running
        if job.total is not None:
            ended = row.succeeded + row.failed + row.cancelled
            unfinished = max(unfinished, job.total - ended)
        before = job.state
        job.state = job_state(
            is_sealed=job.total is not None,
            unfinished=unfinished,
            failed=row.failed,
            cancelled=row.cancelled,
        )
        if job.state is before or job.state is JobState.OPEN:
            return False
        job.ended_at = now
        for other in self._data.jobs.values():
            if job.number in other.needs:
                self._need_ended(job, other, now)
        return True

    def _need_ended(self, needed: Job, job: Job, now: float) -> None:
        job.needs = job.needs - {needed.number}
        self._dirty.add(job.number)
        if needed.state is not JobState.SUCCEEDED:
            job.is_doomed = True
        if job.needs or job.is_doomed:
            return
        for task in self._of(job.number, -1):
            if task.state is TaskState.BLOCKED:
                task.move(Event.DEPENDENCIES_MET)
                if task.due is not None and task.due <= now:
                    task.due = None
                self._wake_by(task.due)
                self._queued(task)
        self._settle_keys(now)

    def _cancel_blocked(self, job: Job) -> list[Final]:
        blocked = [task for task in self._of(job.number, -1) if task.state is TaskState.BLOCKED]
        payload = failures.blocked(job.spec)
        return [
            self._end(task, Event.DEPENDENCY_FAILED, Ending.BLOCKED, payload) for task in blocked
        ]


def _refuse(code: RefusalCode, indices: Sequence[int] = ()) -> Refusal:
    return Refusal(code, f"the model refuses: {code}", tuple(indices))


def _blobs_of(spec: JobSpec) -> list[bytes]:
    initializer = None if spec.context is None else spec.context.initializer
    return [digest for digest in (spec.function, initializer) if digest is not None]


def _digest(payload: Payload) -> bytes:
    return payload.digest if isinstance(payload, Blob) else hashlib.sha256(payload).digest()
