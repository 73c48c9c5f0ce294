"""The model's verbs for submitting."""

from collections.abc import Sequence

from multihost.core.digest import digest_of
from multihost.core.ids import (
    MAX_INDEX,
    index_of,
    task_id,
)
from multihost.core.job import JobSpec, blobs_of
from multihost.core.state import JobState, TaskState
from multihost.store.base import (
    Added,
    OpenedJob,
    Refusal,
)
from multihost.testing.model.data import Job, Key, Task
from multihost.testing.model.listings import Listings
from multihost.wire.message import Blob, Payload, RefusalCode


class Submits(Listings):
    """Open, add, seal."""

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
        if any(digest not in self._data.blobs for digest in blobs_of(spec)):
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
        arrival = self._arrivals - first
        self._arrivals += len(payloads)
        for index in new:
            number, payload = task_id(job, index), payloads[index - first]
            task = Task(number, payload, it.lane, -it.spec.priority, arrival + index)
            task.key = None if keys is None else (it.spec.queue, keys[index - first])
            self._insert(it, task, now)
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
        if any(self._is_missing(payload) for payload in payloads):
            return _refuse(RefusalCode.BAD_REQUEST)
        return None

    def _insert(self, job: Job, task: Task, now: float) -> None:
        spec = job.spec
        task.due = now + spec.delay_s if spec.delay_s else None
        task.expires = None if spec.ttl_s is None else now + spec.ttl_s
        if job.needs or job.is_doomed:
            task.state = TaskState.BLOCKED
        self._data.tasks[task.id] = task
        job.next_index = max(job.next_index, index_of(task.id) + 1)
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
        if not it.next_index <= total <= MAX_INDEX + 1:
            return _refuse(RefusalCode.BAD_REQUEST)
        it.total = total
        self._dirty.add(job)
        return None


def _refuse(code: RefusalCode, indices: Sequence[int] = ()) -> Refusal:
    return Refusal(code, f"the model refuses: {code}", tuple(indices))


def _digest(payload: Payload) -> bytes:
    return payload.digest if isinstance(payload, Blob) else digest_of(payload)
