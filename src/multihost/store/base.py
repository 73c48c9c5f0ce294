"""The contract of every store: atomic, batch-shaped verbs named after transitions.

A store is what is true after everything has crashed. Its verbs are plain
blocking calls made by one owner (the server's committer) between ``begin`` and
``commit``; nothing a verb did is acknowledged to anyone before ``commit`` has
returned. A verb either does all it says or answers with a refusal and does
nothing; it raises only for what ends the server (StoreError, a broken
invariant). After an exception the owner calls ``rollback``, and nothing of the
whole transaction has happened.

Time is told (``now``: seconds since the epoch, by the server's one clock) and
so is chance. Leases carry tokens that rise for ever: an outcome counts only if
its task is still running under that very token. Counters of jobs and queues
change in the transaction that changes the rows, so listings never count rows.

The suite in ``multihost.testing.conformance`` says the same in tests; a new
store is done when it passes.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import msgspec

from multihost.core.job import JobSpec
from multihost.core.outcome import Ending
from multihost.core.resources import Requirement
from multihost.core.state import Hold, JobState, TaskState
from multihost.store.access import AccessStore
from multihost.store.items import ItemQueueRow as ItemQueueRow  # noqa: PLC0414 - part of the contract
from multihost.store.items import ItemStore
from multihost.store.items import SynchronizerRow as SynchronizerRow  # noqa: PLC0414 - as above
from multihost.store.items import TakerRow as TakerRow  # noqa: PLC0414 - as above
from multihost.wire.message import Attempt, Blob, Held, Payload, RefusalCode, Role

FIRST_PAGE = 100
"""Rows a listing returns unless asked for another number."""


class Refusal(NamedTuple):
    """Why a verb did nothing."""

    code: RefusalCode
    message: str
    indices: tuple[int, ...] = ()


class OpenedJob(NamedTuple):
    """A job that is now in the store, new or found there."""

    number: int
    is_new: bool
    spec: JobSpec
    """As stored: of the first submit, if it was found."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody wants here
    """Tasks it holds."""
    total: int | None
    """Tasks it will ever hold; None while it is not sealed."""
    state: JobState


class Added(NamedTuple):
    """What became of added tasks."""

    inserted: int
    """The rest was there before, with the same payload."""


class Lease(NamedTuple):
    """A task handed to a worker session."""

    task: int
    token: int
    payload: Payload
    attempt: int
    """1 for the first run; counts errors, crashes and losses before it."""


class Final(NamedTuple):
    """A task that has just reached its final state, and its outcome."""

    task: int
    ending: Ending
    payload: Payload


class Settlement(NamedTuple):
    """What became of a batch of attempts, or of a lost session's tasks."""

    finals: list[Final]
    stale: list[Held]
    """Refused: not running under that token any more. Nothing was changed."""
    requeued: int
    """Tasks that will run again."""


class Running(NamedTuple):
    """A task that runs, and where."""

    session: int
    task: int
    token: int


class Cancelled(NamedTuple):
    """What a cancel did."""

    finals: list[Final]
    stopped: list[Running]
    """Those of ``finals`` that were running: their workers are to be told."""


class Reinstated(NamedTuple):
    """What a worker that came back may go on with."""

    stale: list[Held]
    """Leases it believes to hold and doesn't."""
    released: list[Held]
    """Leases it held by the store's book but never got: queued again."""


class Promotion(NamedTuple):
    """What the passing of time did."""

    finals: list[Final]
    """Expired before they started, or the rest of a big job that was cancelled."""


class Lane(NamedTuple):
    """Tasks of one queue that may run on the same workers."""

    number: int
    queue: str
    requires: Requirement


class Changes(NamedTuple):
    """What the verbs of one transaction changed, for those who wait on it."""

    ended: list["JobRow"]
    """Jobs that ended."""
    finals: list[Final]
    """Tasks that ended because of it (a job they depend on failed)."""


NO_CHANGES = Changes([], [])
"""Of a transaction that changed nothing of the kind; nobody adds to it."""


class JobRow(msgspec.Struct, frozen=True):
    """A job as listings show it."""

    number: int
    uid: bytes
    spec: JobSpec
    state: JobState
    created_at: float
    ended_at: float | None
    total: int | None
    blocked: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    owner: int | None
    """Session of the client that a transient job lives with."""

    @property
    def count(self) -> int:
        """Tasks the job has ever held."""
        return sum(
            (self.blocked, self.queued, self.running, self.succeeded, self.failed, self.cancelled)
        )


class QueueRow(msgspec.Struct, frozen=True):
    """A queue as listings show it."""

    name: str
    blocked: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    is_paused: bool
    limit: int | None
    """Tasks that may wait in it; more are refused with QUEUE_FULL."""


class TaskRow(msgspec.Struct, frozen=True):
    """A task as listings show it."""

    task: int
    state: TaskState
    errors: int
    crashes: int
    losses: int
    session: int | None
    """Of the worker that runs it."""
    due_at: float | None
    """It is not started before; None once that has passed."""
    hold: Hold = Hold.NONE
    """Why it is not ready, while it is queued."""


class AttemptRow(msgspec.Struct, frozen=True):
    """An attempt that did not succeed."""

    task: int
    token: int
    ending: Ending
    session: int | None
    ended_at: float
    failure: bytes
    """Encoded ``core.outcome.Failure``."""


class SessionInfo(msgspec.Struct, frozen=True):
    """Who a session belongs to."""

    uid: bytes
    role: Role
    name: str = ""
    user: str = ""
    host: str = ""
    pid: int = 0
    slots: int = 0
    queues: tuple[str, ...] = ()
    offer: bytes = b""
    """msgpack of ``core.resources.Offer``."""
    key: str = ""
    """Id of the access key it was opened with; empty in stores written before that was noted."""

    def may_reopen(self, earlier: "SessionInfo") -> bool:
        """Whether this is who opened ``earlier``, coming back: of its role, with its key."""
        return self.role is earlier.role and earlier.key in {"", self.key}


class SessionRow(msgspec.Struct, frozen=True):
    """A session as listings show it."""

    number: int
    info: SessionInfo
    opened_at: float
    closed_at: float | None
    running: int


class StoredBlob(NamedTuple):
    """A blob's size, and its bytes when the store itself holds them (else a file does)."""

    size_bytes: int
    data: bytes | None


class Store(ItemStore, AccessStore, Protocol):
    """What is kept. One owner, one transaction at a time."""

    uid: bytes
    """Made with the store, 16 bytes: tells two stores apart."""
    epoch: int
    """Rises each time the store is opened."""

    @property
    def woken(self) -> set[int]:
        """Lanes in which verbs have made tasks ready since the owner last cleared this set.

        May hold a lane too many (after a rollback, say), never one too few; on
        opening it holds every lane with a ready task.
        """
        ...

    @property
    def wake_at(self) -> float | None:
        """When ``promote`` has work to do (same clock as ``now``); verbs may lower it."""
        ...

    # transactions ------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def prepare(self, now: float) -> Changes:
        """Write the counters, end what has ended; the last call before ``commit``."""
        ...

    def publish(self) -> None:
        """Write the transaction: this process may die now, the machine may not yet.

        ``commit`` follows, perhaps for several transactions at once. Raises
        StoreFull, after which ``rollback`` undoes it.
        """
        ...

    def commit(self, *, is_durable: bool) -> None:
        """Publish, if that was not done, and commit all that was published.

        ``is_durable``: the machine may lose power after this returns. May be
        called from another thread than the verbs, never at the same time.
        Raises StoreError; then the outcome is unknown, and the owner stops.
        """
        ...

    def rollback(self) -> None:
        """Undo the transaction, counters and caches included."""
        ...

    def close(self) -> None:
        """Flush and let go of the files."""
        ...

    # jobs and tasks ------------------------------------------------------------------

    def open_job(
        self, uid: bytes, spec: JobSpec, owner: int | None, now: float
    ) -> OpenedJob | Refusal:
        """Create a job, or find the one with this uid, name or unique key.

        KEY_CONFLICT when a unique key, INPUT_CHANGED when a name is in use for
        another function (fingerprints differ); KEY_CONFLICT also when only one
        of name and key is that of the job found. BAD_REQUEST when ``after``
        names a job that does not exist, or the function's blob or the
        context's is not in the store. A found transient job passes to ``owner``.
        """
        ...

    def add_tasks(
        self,
        job: int,
        first: int,
        payloads: Sequence[Payload],
        keys: Sequence[str] | None,
        now: float,
    ) -> Added | Refusal:
        """Insert tasks at ``first``, ``first + 1`` …; those that exist are left alone.

        Of a job with a name or a unique key the payloads are compared:
        INPUT_CHANGED (without a name: KEY_CONFLICT), with indices, when one
        exists with another payload; INPUT_CHANGED too when the job is sealed
        below these indices, which for other jobs is a BAD_REQUEST, as is a job
        that does not exist or a blob that is not in the store in that size.
        QUEUE_FULL when the queue's limit would be passed. What was taken of a
        transient job counts as existing.

        Of a key's queued tasks those that may be leased are the best by
        priority and arrival, as many as its limits leave room for; the limits
        are those of the latest submit for that key in that queue.
        """
        ...

    def seal_job(self, job: int, total: int, now: float) -> Refusal | None:
        """State that the job has exactly ``total`` tasks. Idempotent.

        Refused when it was sealed with another total or holds a task beyond it.
        """
        ...

    def lease(self, lanes: Collection[int], limit: int, session: int, now: float) -> list[Lease]:
        """Hand at most ``limit`` ready tasks to ``session``.

        Best priority first, then first come first served, across all ``lanes``.
        """
        ...

    def finish(
        self, session: int, attempts: Sequence[Attempt], now: float, chance: float
    ) -> Settlement:
        """Record how attempts ended; ``chance`` in [0, 1) spreads retries.

        An attempt whose token is not the running one, or whose lease is another
        session's, is stale and changes nothing; of two for the same lease one
        counts, the successful one if they differ. A blob that is not in the store
        makes the attempt a failure.
        """
        ...

    def release(self, session: int, held: Sequence[Held], now: float) -> list[Held]:
        """Queue again what ``session`` got but did not run; no fault is counted.

        What was queued: nothing happens to what is not its any more.
        """
        ...

    def lose(self, session: int, now: float) -> Settlement:
        """A session is gone: queue its tasks again, or fail those lost too often."""
        ...

    def reinstate(self, session: int, held: Sequence[Held], now: float) -> Reinstated:
        """Compare what a returning worker holds with the book; the book wins."""
        ...

    def cancel(
        self, job: int, indices: Sequence[int] | None, *, only_queued: bool, now: float
    ) -> Cancelled:
        """Cancel tasks of a job (all of it for None, which also seals it).

        Of a job with very many waiting tasks the first end here and the rest in
        ``promote``, whose time is then at once; none of them is leased any more.
        """
        ...

    def retry(self, job: int, indices: Sequence[int] | None, now: float) -> int:
        """Queue failed or cancelled tasks again with fresh limits. How many."""
        ...

    def promote(self, now: float) -> Promotion:
        """Make ready what was due by ``now``, expire what waited too long, set ``wake_at``.

        Does as much as one transaction should; ``wake_at`` says when to go on.
        """
        ...

    def turn_back(self, by_s: float) -> None:
        """The clock was set back: whatever waits for a time waits for one so much earlier."""
        ...

    def outcomes(self, job: int, after_index: int, limit: int) -> list[Final]:
        """Ended tasks with an index above ``after_index``, by index."""
        ...

    def take(self, job: int, upto: int) -> int:
        """Drop ended tasks of a transient job below index ``upto``. How many.

        As many as one transaction should; the job's counters go on counting them.
        """
        ...

    def disown(self, owner: int, now: float) -> Cancelled:
        """A client is gone for good: cancel the transient jobs that lived with it."""
        ...

    def delete_job(self, job: int) -> Refusal | None:
        """Delete an ended job before its retention is over; its tasks follow with ``prune``.

        BAD_REQUEST when it has not ended or does not exist.
        """
        ...

    def prune(self, now: float, limit: int) -> int:
        """Delete ended jobs past their retention, unused lanes, queues, keys and old sessions.

        Deletes at most about ``limit`` rows, so that nobody waits long; 0 when
        nothing is left to do. A pruned job is gone at once, its tasks follow.
        Blobs go with ``unused_blobs``, since their files have to follow.
        """
        ...

    # sessions --------------------------------------------------------------------------

    def open_session(self, info: SessionInfo, now: float) -> int | None:
        """Number of the session with this uid, new or reopened, with ``info`` as given.

        None: there is one, and it is not ``info``'s to come back to.
        """
        ...

    def close_session(self, session: int, now: float) -> None:
        """The session ended; kept in listings until pruned."""
        ...

    # blobs -----------------------------------------------------------------------------

    def put_blob(self, blob: Blob, data: bytes | None, now: float) -> None:
        """Note a blob; ``data`` None means that a file holds it."""
        ...

    def blob(self, digest: bytes) -> StoredBlob | None:
        """The blob, or None."""
        ...

    def why_no_blob(self, session: int, size_bytes: int) -> str | None:
        """Why a client's blob of so many bytes is not taken, where the size is limited.

        None: it is, since there is room, or since ``session`` holds items: who works the store
        off by putting something for them may.
        """
        ...

    def unused_blobs(self, before: float, limit: int) -> list[Blob]:
        """Delete and return blobs that nothing refers to and that are older than ``before``.

        A blob's age begins anew when it is put again, and when something begins
        or ceases to refer to it. The caller deletes their files after the commit.
        """
        ...

    # output ----------------------------------------------------------------------------

    def append_output(
        self, session: int, held: Held, stream: int, data: bytes, limit_bytes: int
    ) -> bool:
        """Keep what a running task printed; past ``limit_bytes`` the oldest goes.

        False when it does not run under that lease of ``session``: nothing is kept.
        """
        ...

    def output(self, task: int) -> list[tuple[int, bytes]]:
        """What a task printed: (stream, bytes) in order."""
        ...

    # queues ----------------------------------------------------------------------------

    def set_queue(self, name: str, *, is_paused: bool | None, limit: int | None) -> None:
        """Pause or resume a queue (None: leave), bound its length (None: leave, 0: no bound)."""
        ...

    # reading ---------------------------------------------------------------------------

    def lanes(self) -> list[Lane]:
        """Every lane, of paused queues too."""
        ...

    def paused_queues(self) -> frozenset[str]:
        """Names of the queues that hand out nothing at present."""
        ...

    def job(self, number: int) -> JobRow | None:
        """A job by its number."""
        ...

    def find_job(self, name: str) -> JobRow | None:
        """A job by its name."""
        ...

    def jobs(
        self, *, state: JobState | None = None, before: int | None = None, limit: int = FIRST_PAGE
    ) -> list[JobRow]:
        """Jobs, newest first, with numbers below ``before``."""
        ...

    def queues(self) -> list[QueueRow]:
        """Every queue, by name."""
        ...

    def task(self, task: int) -> TaskRow | None:
        """A task by its number."""
        ...

    def tasks(
        self,
        job: int,
        *,
        state: TaskState | None = None,
        after_index: int = -1,
        limit: int = FIRST_PAGE,
    ) -> list[TaskRow]:
        """Tasks of a job, by index."""
        ...

    def attempts(self, task: int) -> list[AttemptRow]:
        """Attempts of a task that did not succeed, oldest first."""
        ...

    def sessions(self, role: Role, *, is_open: bool = True) -> list[SessionRow]:
        """Sessions of a role, newest first."""
        ...

    def verify(self) -> list[str]:
        """Every broken invariant, in words; empty when all is well. Slow: reads all rows.

        To be called between transactions.
        """
        ...
