"""Processes beside the slots: on which worker each runs, and its pid.

Kept in memory only: after a restart of the server the workers come back and
say what they run. A process takes no slot, so all that bounds how many a
worker gets is its own limit, and the lightest-laden one gets the next.
"""

from collections import Counter
from dataclasses import dataclass

from multihost.core.ids import index_of, job_of
from multihost.core.resources import Offer
from multihost.wire import message as m


@dataclass(slots=True)
class Process:
    """A task of style PROCESS under a lease."""

    session: int
    """Of the worker."""
    token: int
    pid: int | None = None
    """Once the worker has said so."""
    host: str = ""
    worker: str = ""
    starter: int | None = None
    """Session of the client that started it, once that is told of its pid."""


class Processes:
    """Which worker runs which process.

    Invariant: a process is here from its lease until its worker let go of it.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._by_task: dict[int, Process] = {}
        self._counts: Counter[int] = Counter()
        self._signals: dict[int, list[int]] = {}

    def __contains__(self, task: object) -> bool:
        """Whether a task is a process that some worker has."""
        return task in self._by_task

    def leased(self, task: int, token: int, session: int) -> None:
        """A worker has it; told again when the worker comes back."""
        known = self._by_task.get(task)
        if known is not None and (known.token, known.session) == (token, session):
            return
        signals = self.take_signals(task)
        if known is not None:
            self._counts[known.session] -= 1
        self._by_task[task] = Process(session, token)
        if signals:
            self._signals[task] = signals
        self._counts[session] += 1

    def began(self, message: m.Began, session: int, host: str, worker: str) -> Process | None:
        """Its worker has started it; None when that lease is over, or another's."""
        process = self._by_task.get(message.task)
        if process is None or (process.token, process.session) != (message.token, session):
            return None
        process.pid, process.host, process.worker = message.pid, host, worker
        return process

    @property
    def knows_any(self) -> bool:
        """Whether there is a process, or a signal for one."""
        return bool(self._by_task or self._signals)

    def find(self, task: int) -> Process | None:
        """The process, if it has not ended."""
        return self._by_task.get(task)

    def keep_signal(self, task: int, number: int) -> None:
        """Its worker is away just now, or has not started it yet."""
        self._signals.setdefault(task, []).append(number)

    def take_signals(self, task: int) -> list[int]:
        """Signals that it is still to be sent."""
        return self._signals.pop(task, [])

    def let_go(self, task: int, token: int, session: int) -> bool:
        """That lease of it is over; whether the task is a process that some worker has."""
        process = self._by_task.get(task)
        if process is None:
            self._signals.pop(task, None)
            return False
        if (process.token, process.session) == (token, session):
            self._signals.pop(task, None)
            del self._by_task[task]
            self._counts[session] -= 1
        return True

    def forget(self, session: int) -> None:
        """A worker's session has ended."""
        for task in [task for task, p in self._by_task.items() if p.session == session]:
            del self._by_task[task]
            self._signals.pop(task, None)
        self._counts.pop(session, None)

    def told(self, job: int) -> list[tuple[int, Process]]:
        """Index and process of those of a job whose pid is known."""
        return [
            (index_of(task), process)
            for task, process in self._by_task.items()
            if job_of(task) == job and process.pid is not None
        ]

    def started_by(self, session: int) -> list[tuple[int, Process]]:
        """Task and process of all that a client has started."""
        return [
            (task, process) for task, process in self._by_task.items() if process.starter == session
        ]

    def burden(self, session: int, held: int, slots: int, offer: Offer) -> tuple[bool, float]:
        """By this the best worker for the next one is the smallest: is it full, how laden is it."""
        count = self._counts[session]
        return count >= offer.processes, (count + held) / max(1, slots)
