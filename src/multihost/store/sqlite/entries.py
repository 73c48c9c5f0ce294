"""What the book's pages say: a job, a lane, a queue, as they are kept in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Final, NamedTuple

import msgspec

from multihost.core.job import JobSpec
from multihost.core.state import JobState, TaskState
from multihost.store.base import JobRow, SessionInfo

DOOMED: Final = -1
"""In place of the number of needed jobs: one of them did not succeed."""
ROW_PAYLOAD_BYTES: Final = 1024
"""Payloads above this size lie in a table of their own, so that a task's row stays small."""
IN_PAYLOADS: Final = -1
"""In ``tasks.size``: the payload is in ``payloads``."""
DIGEST_ONLY: Final = -2
"""In ``tasks.size``: the payload was dropped, ``args`` is its digest."""

encode = msgspec.msgpack.Encoder().encode
decode_spec = msgspec.msgpack.Decoder(JobSpec).decode
decode_session = msgspec.msgpack.Decoder(SessionInfo).decode


class Traits(IntFlag):
    """What a job's tasks have ever had, so that deleting them looks only for that."""

    NONE = 0
    KEYS = 1
    BLOBS = 2


def by_state(counts: Sequence[int]) -> tuple[int, int, int, int, int, int]:
    """Counters in the order of TaskState, as many as there are states."""
    blocked, queued, running, succeeded, failed, cancelled = counts
    return blocked, queued, running, succeeded, failed, cancelled


Run = tuple[int, int, int | None, int | None]
"""A running task: its token, its worker's session, its key, the ``size`` of its payload."""


@dataclass(slots=True)
class Job:
    """A job as the store knows it; ``counts`` are by TaskState.

    Whoever changes more than ``counts`` and ``total`` hands it to ``Book.touch``.
    """

    number: int
    uid: bytes
    spec: JobSpec
    state: JobState
    lane: "LaneBook"
    total: int | None
    counts: list[int]
    needs: int
    taken: int
    dropped: int
    traits: int
    owner: int | None
    created_at: float
    ended_at: float | None
    next_index: int = 0
    """No task has this index or a larger one."""
    is_new: bool = False
    """It has no row yet."""
    has_changed: bool = False
    """More than its counters has to be written."""

    @property
    def count(self) -> int:
        """Tasks the job has ever held."""
        return sum(self.counts)

    @property
    def is_compared(self) -> bool:
        """Whether a repeated submit has to bring the same payloads."""
        return self.spec.name is not None or self.spec.unique_key is not None

    def values(self) -> tuple[Any, ...]:
        """What of its row may change, as ``_INSERT_JOB`` and ``_WRITE_JOB`` take it."""
        prune_at = None if self.ended_at is None else self.ended_at + self.spec.retention_s
        return (
            self.total,
            *self.counts,
            self.state,
            self.needs,
            self.taken,
            self.dropped,
            self.traits,
            self.owner,
            self.ended_at,
            prune_at,
            self.number,
        )

    def constants(self) -> tuple[Any, ...]:
        """The rest of its row."""
        names = (self.spec.name, self.spec.unique_key)
        return (self.uid, *names, self.lane.number, self.created_at, encode(self.spec))

    def row(self) -> JobRow:
        """The job as listings show it."""
        return JobRow(
            self.number,
            self.uid,
            self.spec,
            self.state,
            self.created_at,
            self.ended_at,
            self.total,
            *by_state(self.counts),
            self.owner,
        )


@dataclass(slots=True)
class LaneBook:
    """A lane and the counters of its tasks, by TaskState."""

    number: int
    queue: str
    requires: str
    jobs: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(TaskState))


@dataclass(slots=True)
class QueueBook:
    """A queue's settings and its lanes."""

    name: str
    is_paused: bool = False
    limit: int | None = None
    lanes: list[LaneBook] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Tasks that wait in it."""
        return sum(
            lane.counts[TaskState.BLOCKED] + lane.counts[TaskState.QUEUED] for lane in self.lanes
        )


class Settling(NamedTuple):
    """What is still to be done to the waiting tasks of a job; see ``settling``."""

    what: int
    cursor: int
    """Task from which on it is to be done."""
    is_saved: bool = True
    """It has a row."""


@dataclass(slots=True)
class KeyChange:
    """What a verb has changed for one key, until ``settle_keys`` acts on it."""

    ready: int = 0
    running: int = 0
    refs: int = 0
    has_started: bool = False
