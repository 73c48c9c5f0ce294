"""The rows of the model: plain objects in plain dicts, copied to roll back."""

from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field

from multihost.core.job import JobSpec
from multihost.core.resources import Requirement
from multihost.core.state import Event, Hold, JobState, TaskState, after
from multihost.store.access import AccessKey
from multihost.store.base import (
    AttemptRow,
    Final,
    ItemQueueRow,
    Lane,
    SessionInfo,
    SynchronizerRow,
    TakerRow,
    TaskRow,
)
from multihost.wire.act import Confirm
from multihost.wire.message import Payload


@dataclass(slots=True)
class Task:
    """A task; what it printed and how it went wrong are kept with it."""

    id: int
    payload: Payload
    lane: int
    rank: int
    seq: int
    state: TaskState = TaskState.QUEUED
    due: float | None = None
    expires: float | None = None
    key: tuple[str, str] | None = None
    is_parked: bool = False
    """Its key has no room for it."""
    session: int | None = None
    token: int = 0
    errors: int = 0
    crashes: int = 0
    losses: int = 0
    result: Final | None = None
    attempts: list[AttemptRow] = field(default_factory=list)
    output: tuple[tuple[int, bytes], ...] = ()

    @property
    def hold(self) -> Hold:
        """Why it is not ready, while it is queued."""
        if self.state is not TaskState.QUEUED:
            return Hold.NONE
        if self.due is not None:
            return Hold.TIME
        return Hold.KEY if self.is_parked else Hold.NONE

    @property
    def is_ready(self) -> bool:
        """Whether it may be leased."""
        return self.state is TaskState.QUEUED and self.hold is Hold.NONE

    @property
    def may_expire(self) -> bool:
        """Whether its time to live still counts."""
        return self.state in (TaskState.BLOCKED, TaskState.QUEUED)

    @property
    def order(self) -> tuple[int, int]:
        """Best priority first, then first come first served."""
        return self.rank, self.seq

    def is_run_by(self, session: int, token: int) -> bool:
        """Whether it runs under that very lease."""
        return self.state is TaskState.RUNNING and (self.session, self.token) == (session, token)

    def move(self, event: Event) -> None:
        """Go to the state that follows on ``event``; raises if the table has none."""
        self.state = after(self.state, event)

    def row(self) -> TaskRow:
        """The task as listings show it."""
        return TaskRow(
            self.id,
            self.state,
            self.errors,
            self.crashes,
            self.losses,
            self.session,
            self.due,
            self.hold,
        )

    def copy(self) -> "Task":
        """The task as it is now."""
        twin = copy(self)
        twin.attempts = list(self.attempts)
        return twin


@dataclass(slots=True)
class Job:
    """A job; its counters are its tasks, and those that were taken."""

    number: int
    uid: bytes
    spec: JobSpec
    lane: int
    created_at: float
    state: JobState = JobState.OPEN
    ended_at: float | None = None
    total: int | None = None
    owner: int | None = None
    needs: set[int] = field(default_factory=set)
    is_doomed: bool = False
    """A job that had to succeed first did not."""
    next_index: int = 0
    taken: int = 0
    dropped: Counter[TaskState] = field(default_factory=Counter)

    def copy(self) -> "Job":
        """The job as it is now."""
        twin = copy(self)
        twin.needs, twin.dropped = set(self.needs), Counter(self.dropped)
        return twin


@dataclass(slots=True)
class Key:
    """The limits of a key, and when its next task may start."""

    limit: int | None = None
    delay_s: float = 0.0
    next_at: float = 0.0
    wake_at: float | None = None


@dataclass(slots=True)
class Session:
    """A session."""

    info: SessionInfo
    opened_at: float
    closed_at: float | None = None


@dataclass(slots=True)
class BlobData:
    """A blob."""

    size_bytes: int
    data: bytes | None
    touched_at: float


@dataclass(frozen=True, slots=True)
class HeldItem:
    """An item, waiting or held."""

    number: int
    payload: Payload
    attempt: int = 0
    holder: int = 0
    call: int = 0


@dataclass(slots=True)
class ItemQueue:
    """A queue of items."""

    number: int
    name: str
    limit: int
    confirm: Confirm
    owner: int | None
    is_closed: bool = False
    unfinished: int = 0
    put: int = 0
    confirmed: int = 0
    waiting: list[HeldItem] = field(default_factory=list)
    held: dict[int, HeldItem] = field(default_factory=dict)

    def give_back(self, number: int) -> None:
        """An item comes first again, in the order in which items were put."""
        self.waiting.append(self.held.pop(number))
        self.waiting.sort(key=lambda item: item.number)

    def row(self) -> ItemQueueRow:
        """The queue as listings show it."""
        counts = (len(self.waiting), len(self.held), self.unfinished, self.put, self.confirmed)
        return ItemQueueRow(
            self.number, self.name, self.limit, self.confirm, self.owner, self.is_closed, *counts
        )

    def copy(self) -> "ItemQueue":
        """The queue as it is now."""
        twin = copy(self)
        twin.waiting, twin.held = list(self.waiting), dict(self.held)
        return twin


class Data:
    """Everything that a model keeps."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.jobs: dict[int, Job] = {}
        self.tasks: dict[int, Task] = {}
        self.keys: dict[tuple[str, str], Key] = {}
        self.sessions: dict[int, Session] = {}
        self.blobs: dict[bytes, BlobData] = {}
        self.named_queues: set[str] = set()
        self.queue_limits: dict[str, int] = {}
        self.paused: set[str] = set()
        self.last_job = 0
        self.last_session = 0
        self.item_queues: dict[int, ItemQueue] = {}
        self.synchronizers: dict[int, SynchronizerRow] = {}
        self.answers: dict[int, TakerRow] = {}
        self.access_keys: dict[str, AccessKey] = {}
        self.last_item_queue = 0
        self.last_synchronizer = 0
        self._lanes: dict[tuple[str, str], int] = {}
        self._last_lane = 0

    def copy(self) -> "Data":
        """Everything as it is now."""
        twin = copy(self)
        twin.jobs = {number: job.copy() for number, job in self.jobs.items()}
        twin.tasks = {number: task.copy() for number, task in self.tasks.items()}
        twin.keys = {name: copy(key) for name, key in self.keys.items()}
        twin.sessions = {number: copy(session) for number, session in self.sessions.items()}
        twin.blobs = {digest: copy(blob) for digest, blob in self.blobs.items()}
        twin.named_queues = set(self.named_queues)
        twin.queue_limits = dict(self.queue_limits)
        twin.paused = set(self.paused)
        twin.item_queues = {number: queue.copy() for number, queue in self.item_queues.items()}
        twin.synchronizers = dict(self.synchronizers)
        twin.answers = dict(self.answers)
        twin.access_keys = dict(self.access_keys)
        twin._lanes = dict(self._lanes)
        return twin

    def in_order(self) -> list[Task]:
        """All tasks, by number."""
        return [self.tasks[number] for number in sorted(self.tasks)]

    def lane(self, queue: str, requires: str) -> int:
        """Number of the lane, made when first needed."""
        if (queue, requires) not in self._lanes:
            self._last_lane += 1
            self._lanes[queue, requires] = self._last_lane
        return self._lanes[queue, requires]

    def all_lanes(self) -> list[Lane]:
        """Every lane."""
        return [
            Lane(number, queue, Requirement.decode(requires))
            for (queue, requires), number in self._lanes.items()
        ]

    def keep_lanes(self, used: Iterable[int]) -> int:
        """Forget the lanes that are not used, and queues that are nothing without; how many."""
        before = len(self._lanes)
        self._lanes = {name: lane for name, lane in self._lanes.items() if lane in used}
        busy = self.paused | self.queue_limits.keys() | {queue for queue, _ in self._lanes}
        self.named_queues &= busy
        return before - len(self._lanes)
