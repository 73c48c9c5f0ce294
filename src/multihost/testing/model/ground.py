"""The ground the model's verbs stand on: its data, transactions, and what follows by itself."""

from collections.abc import Iterator

from multihost.core.ids import (
    UID_BYTES,
    first_token,
    job_of,
    last_task,
    task_id,
)
from multihost.core.job import blobs_of
from multihost.core.outcome import Ending
from multihost.core.state import Event, JobState, TaskState, job_state
from multihost.store import failures
from multihost.store.base import (
    Changes,
    Final,
    JobRow,
)
from multihost.testing.model.data import Data, Job, Task
from multihost.wire.message import Blob, Payload


class ModelDisk:
    """What survives between two openings of a model."""

    def __init__(self) -> None:
        """An empty disk."""
        self.data = Data()
        self.epoch = 0


class Ground:
    """Data of the last commit, data of this transaction, and how keys, jobs and blobs follow."""

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

    def publish(self) -> None:
        """Commit: this disk never waits."""
        self.commit(is_durable=True)

    def commit(self, *, is_durable: bool) -> None:
        """Commit."""
        self._disk.data = self._data.copy()

    def rollback(self) -> None:
        """Undo the transaction."""
        self._data = self._disk.data.copy()
        self._dirty.clear()
        self._touched_keys.clear()
        self.wake_at = self._next_time()

    def close(self) -> None:
        """Nothing to let go of."""

    # what the verbs share -----------------------------------------------------------------

    def _of(self, job: int, after_index: int) -> Iterator[Task]:
        """Tasks of a job, by index."""
        span = range(task_id(job, after_index + 1), last_task(job) + 1)
        return (task for task in self._data.in_order() if task.id in span)

    def _held_by(self, session: int) -> list[Task]:
        return [
            task
            for task in self._data.in_order()
            if task.state is TaskState.RUNNING and task.session == session
        ]

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

    def _is_missing(self, payload: Payload) -> bool:
        """Whether it is a blob that is not in the store, or has another size there."""
        if not isinstance(payload, Blob):
            return False
        known = self._data.blobs.get(payload.digest)
        return known is None or known.size_bytes != payload.size_bytes

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

    # what follows by itself ---------------------------------------------------------------

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

    def _count_references(self) -> dict[bytes, int]:
        digests = [digest for job in self._data.jobs.values() for digest in blobs_of(job.spec)]
        for task in self._data.tasks.values():
            payloads = [] if task.state is TaskState.SUCCEEDED else [task.payload]
            if task.result is not None:
                payloads.append(task.result.payload)
            digests += [payload.digest for payload in payloads if isinstance(payload, Blob)]
        for queue in self._data.item_queues.values():
            items = (*queue.waiting, *queue.held.values())
            digests += [item.payload.digest for item in items if isinstance(item.payload, Blob)]
        return {digest: digests.count(digest) for digest in digests}

    def _touch_blobs(self, now: float) -> None:
        """A blob that is referred to more or less often than before counts as touched."""
        references = self._count_references()
        for digest, blob in self._data.blobs.items():
            if references.get(digest) != self._references.get(digest):
                blob.touched_at = now
