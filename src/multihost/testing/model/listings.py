"""The model's reading verbs: everything is counted when it is asked for."""

from multihost.core.state import JobState, TaskState
from multihost.store.base import (
    FIRST_PAGE,
    AttemptRow,
    Final,
    JobRow,
    Lane,
    QueueRow,
    SessionRow,
    StoredBlob,
    TaskRow,
)
from multihost.testing.model.ground import Ground
from multihost.wire.message import Role


class Listings(Ground):
    """What people and pages see."""

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

    def queues(self) -> list[QueueRow]:
        """Every queue, by name."""
        rows = []
        for name in sorted(self._data.named_queues | {lane.queue for lane in self.lanes()}):
            jobs = [self._row(job) for job in self._data.jobs.values() if job.spec.queue == name]
            counts = [sum(getattr(job, state.name.lower()) for job in jobs) for state in TaskState]
            limit = self._data.queue_limits.get(name)
            rows.append(QueueRow(name, *counts, name in self._data.paused, limit))  # type: ignore[call-arg]
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

    def outcomes(self, job: int, after_index: int, limit: int) -> list[Final]:
        """Ended tasks with an index above ``after_index``, by index."""
        ended = [task.result for task in self._of(job, after_index) if task.result is not None]
        return ended[:limit]

    def output(self, task: int) -> list[tuple[int, bytes]]:
        """What a task printed."""
        it = self._data.tasks.get(task)
        return [] if it is None else list(it.output)

    def sessions(self, role: Role, *, is_open: bool = True) -> list[SessionRow]:
        """Sessions of a role, newest first."""
        return [
            SessionRow(number, it.info, it.opened_at, it.closed_at, len(self._held_by(number)))
            for number, it in sorted(self._data.sessions.items(), reverse=True)
            if it.info.role is role and (it.closed_at is None) is is_open
        ]

    def blob(self, digest: bytes) -> StoredBlob | None:
        """The blob, or None."""
        it = self._data.blobs.get(digest)
        return None if it is None else StoredBlob(it.size_bytes, it.data)

    def verify(self) -> list[str]:
        """Nothing is kept twice here, so nothing can contradict itself."""
        return []
