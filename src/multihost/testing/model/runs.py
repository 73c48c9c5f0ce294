"""The model's verbs for what runs: leases, outcomes, losses, decisions, time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from multihost.core.ids import (
    index_of,
    job_of,
)
from multihost.core.outcome import Ending, encode_failure
from multihost.core.retry import Faults
from multihost.core.state import Event, JobState, TaskState
from multihost.store import failures
from multihost.store.base import (
    AttemptRow,
    Cancelled,
    Final,
    Lease,
    Promotion,
    Reinstated,
    Running,
    Settlement,
)
from multihost.testing.model.data import Task
from multihost.testing.model.ground import Ground
from multihost.wire.message import Attempt, Blob, Held

_UNFINISHED = (TaskState.BLOCKED, TaskState.QUEUED, TaskState.RUNNING)


@dataclass
class _Tally:
    """What a batch of attempts has come to so far."""

    session: int
    now: float
    chance: float = 0.0
    finals: list[Final] = field(default_factory=list)
    stale: list[Held] = field(default_factory=list)
    requeued: int = 0


class Runs(Ground):
    """From ready to ended, and back."""

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
        tally = _Tally(session, now, chance)
        given = [self._with_result(attempt) for attempt in attempts]
        for attempt in sorted(given, key=lambda attempt: attempt.ending is not Ending.OK):
            task = self._data.tasks.get(attempt.task)
            if task is None or not task.is_run_by(session, attempt.token):
                tally.stale.append(Held(attempt.task, attempt.token))
            else:
                self._finish(task, attempt, tally)
        self._settle_keys(now)
        return Settlement(tally.finals, tally.stale, tally.requeued)

    def _with_result(self, attempt: Attempt) -> Attempt:
        """The attempt, or if its result never came the failure that this is."""
        if not self._is_missing(attempt.payload):
            return attempt
        ending = Ending.UNRUNNABLE if attempt.ending is Ending.OK else attempt.ending
        return Attempt(attempt.task, attempt.token, ending, failures.result_missing())

    def _finish(self, task: Task, attempt: Attempt, tally: "_Tally") -> None:
        ending, payload = attempt.ending, attempt.payload
        if ending in (Ending.EXPIRED, Ending.BLOCKED):
            ending = Ending.RAISED
        if ending in (Ending.OK, Ending.CANCELLED):
            event = Event.SUCCEEDED if ending is Ending.OK else Event.CANCELLED
            tally.finals.append(self._end(task, event, ending, payload))
            return
        failure = failures.read(ending, payload)
        if not isinstance(payload, Blob):
            payload = failures.with_certificates(failure, [a.failure for a in task.attempts])
        history = failures.for_history(failure)
        task.attempts.append(
            AttemptRow(task.id, task.token, ending, tally.session, tally.now, history)
        )
        faults = Faults(task.errors, task.crashes, task.losses)
        spec = self._data.jobs[job_of(task.id)].spec
        verdict = failures.verdict(ending, faults, spec, tally.chance)
        task.errors, task.crashes, task.losses = verdict.faults
        if verdict.event is Event.FAILED:
            tally.finals.append(self._end(task, Event.FAILED, ending, payload))
            return
        task.move(verdict.event)
        task.session, task.expires = None, None
        task.due = tally.now + verdict.delay_s if verdict.delay_s > 0 else None
        self._wake_by(task.due)
        self._queued(task)
        tally.requeued += 1

    def release(self, session: int, held: Sequence[Held], now: float) -> list[Held]:
        """Queue again what was handed out but not run."""
        released = []
        for lease in held:
            task = self._data.tasks.get(lease.task)
            if task is None or not task.is_run_by(session, lease.token):
                continue
            task.move(Event.RELEASED)
            task.session = None
            self._wake_by(task.expires)
            self._queued(task)
            released.append(lease)
        self._settle_keys(now)
        return released

    def lose(self, session: int, now: float) -> Settlement:
        """A session is gone: queue its tasks again, or fail those lost too often."""
        tally = _Tally(session, now)
        known = self._data.sessions.get(session)
        lost = encode_failure(failures.lost(known.info.name if known else "", session))
        for task in self._held_by(session):
            self._finish(task, Attempt(task.id, task.token, Ending.LOST, lost), tally)
        self._settle_keys(now)
        return Settlement(tally.finals, tally.stale, tally.requeued)

    def reinstate(self, session: int, held: Sequence[Held], now: float) -> Reinstated:
        """Compare what a returning worker holds with the book; the book wins."""
        booked = [Held(task.id, task.token) for task in self._held_by(session)]
        stale = [lease for lease in held if lease not in booked]
        unknown = [lease for lease in booked if lease not in held]
        self.release(session, unknown, now)
        return Reinstated(stale, sorted(unknown, key=lambda lease: lease.task))

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

    def disown(self, owner: int, now: float) -> Cancelled:
        """A client is gone for good: cancel the transient jobs that lived with it."""
        both = Cancelled([], [])
        for number, job in sorted(self._data.jobs.items()):
            if job.owner == owner and job.state is JobState.OPEN:
                one = self.cancel(number, None, only_queued=False, now=now)
                both = Cancelled(both.finals + one.finals, both.stopped + one.stopped)
        return both

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

    def turn_back(self, by_s: float) -> None:
        """The clock was set back."""
        for task in self._data.tasks.values():
            task.due = None if task.due is None else task.due - by_s
            task.expires = None if task.expires is None else task.expires - by_s
        for key in self._data.keys.values():
            key.next_at -= by_s
            key.wake_at = None if key.wake_at is None else key.wake_at - by_s
        self.wake_at = self._next_time()
