"""The store that SQLite keeps: the contract of ``store.base``, verb by verb.

What the verbs do is in the modules beside it, one for each thing that can
happen to a task; they share the ``Book`` and know nothing of commits. Those are
the business of ``Transactions``.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import apsw

from multihost.core.ids import UID_BYTES, session_of
from multihost.core.job import JobSpec
from multihost.core.state import JobState, TaskState
from multihost.errors import StoreError, StoreFull
from multihost.store.access import AccessKey
from multihost.store.base import (
    FIRST_PAGE,
    NO_CHANGES,
    Added,
    AttemptRow,
    Cancelled,
    Changes,
    JobRow,
    Lane,
    Lease,
    OpenedJob,
    Promotion,
    QueueRow,
    Refusal,
    Reinstated,
    SessionInfo,
    SessionRow,
    Settlement,
    StoredBlob,
    TaskRow,
)
from multihost.store.base import Final as FinalTask
from multihost.store.items import ItemQueueRow, SynchronizerRow, TakerRow
from multihost.store.places import journal_of
from multihost.store.sqlite import (
    access,
    cancel,
    finish,
    items,
    jobs,
    lease,
    progress,
    prune,
    read,
    side,
    submit,
    synchronizers,
)
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.copying import DatabaseCopy
from multihost.store.sqlite.file import DatabaseFile, is_full, translated
from multihost.store.sqlite.journal import DiskFile, Journal, JournalFile
from multihost.store.sqlite.transaction import Transactions
from multihost.store.sqlite.verify import verify
from multihost.wire.act import Confirm, Exchange, Exchanged, Item, Kind, Rejected
from multihost.wire.message import Attempt, Blob, Held, Payload, Role

CACHE_BYTES: Final = 24 << 20
CACHED_JOBS: Final = 4096

P = ParamSpec("P")
R = TypeVar("R")


def _reads(
    method: Callable[Concatenate["SQLiteStore", P], R],
) -> Callable[Concatenate["SQLiteStore", P], R]:
    """A verb that writes no row; errors are said in the words of ``multihost.errors``."""

    @wraps(method)
    def call(self: "SQLiteStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except apsw.Error as error:
            raise self._said(error) from error

    return call


def _verb(
    method: Callable[Concatenate["SQLiteStore", P], R],
) -> Callable[Concatenate["SQLiteStore", P], R]:
    """A verb that does, within a transaction of the database."""

    @wraps(method)
    def call(self: "SQLiteStore", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if not self._transactions.is_entered or self._memtable.is_dirty:
                self._transactions.enter()
            return method(self, *args, **kwargs)
        except apsw.Error as error:
            raise self._said(error) from error

    return call


def open_store(
    path: Path | str,
    *,
    cache_bytes: int = CACHE_BYTES,
    cached_jobs: int = CACHED_JOBS,
    vfs: str | None = None,
    sync_log: Callable[[], None] | None = None,
    lengthens_log: bool = False,
    limit_bytes: int | None = None,
    journal: JournalFile | None = None,
) -> "SQLiteStore":
    """Open the store at ``path``, or make one there; its directory has to exist.

    ``cache_bytes`` bounds the pages, ``cached_jobs`` the jobs kept in memory.
    ``vfs``, ``sync_log`` and ``journal`` put another file system, its ``fsync`` of the
    log and its journal in place of the system's; tests crash them. ``lengthens_log`` takes 16 MiB
    of disk at once for durable commits that are a third quicker. A store that holds
    ``limit_bytes`` refuses jobs, tasks and items, and goes on with what it has. Raises
    StoreLocked, StoreTooNew, StoreCorrupt, StoreFull or StoreError.
    """
    file = DatabaseFile(Path(path), cache_bytes=cache_bytes, vfs=vfs, sync_log=sync_log)
    try:
        store = SQLiteStore(file, cached_jobs, journal or DiskFile(journal_of(file.path)))
    except apsw.Error as error:
        file.close()
        raise translated(error, str(path)) from error
    except BaseException:
        file.close()
        raise
    if lengthens_log:
        file.lengthen_log()
    if limit_bytes is not None:
        store.limit_size(limit_bytes)
    return store


class SQLiteStore:
    """The store in one SQLite file, owned by this process alone.

    The verbs are described in ``store.base.Store``; all but the reading ones
    have to be called between ``begin`` and ``commit`` or ``rollback``.
    """

    uid: bytes
    epoch: int

    def __init__(self, file: DatabaseFile, cached_jobs: int, journal: JournalFile) -> None:
        """Take over an open database and its journal, and begin its next epoch."""
        self.path = file.path
        self._file = file
        self._db = file.db
        self._copy: DatabaseCopy | None = None
        self._begin_epoch()
        self._book = Book(self._db, self.epoch, cached_jobs)
        self._memtable = self._book.items.memtable
        self.woken: set[int] = self._book.woken
        generation = self._db.execute("SELECT value FROM meta WHERE name = 'journal'").get
        self._transactions = Transactions(file, self._book, Journal(journal, self.uid, generation))
        self._book.woken.update(
            lane.number for lane in self._book.lanes.values() if lane.counts[TaskState.QUEUED]
        )
        self._book.wake_at = progress.next_time(self._book)

    def _begin_epoch(self) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        # Here and not in the migration: a process may have died between the two.
        uid = secrets.token_bytes(UID_BYTES)
        first = "INSERT OR IGNORE INTO meta VALUES ('uid', ?), ('epoch', 0), ('journal', 0)"
        db.execute(first, (uid,))
        self.uid = db.execute("SELECT value FROM meta WHERE name = 'uid'").get
        self.epoch = db.execute(
            "UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value"
        ).get
        db.execute("COMMIT")

    def _said(self, error: apsw.Error) -> StoreError | StoreFull | apsw.Error:
        return translated(error, str(self.path), self._db)

    @property
    def wake_at(self) -> float | None:
        """When ``promote`` has work to do."""
        return self._book.wake_at

    # transactions ------------------------------------------------------------------

    # What each exchange calls says its errors itself: six calls more were a tenth of its time.

    def begin(self) -> None:
        """Begin a transaction."""
        try:
            if self._copy is not None and self._copy.is_due:
                self._go_on_copying(self._copy)
            if self._book.has_more_jobs:
                self._book.forget_old_jobs()
            if self._book.limit_bytes is not None:
                self._book.measure()
            self._transactions.begin()
        except apsw.Error as error:
            raise self._said(error) from error

    def prepare(self, now: float) -> Changes:
        """Write the counters, end what has ended; the last call before ``commit``."""
        try:
            if self._transactions.is_for_journal():
                return NO_CHANGES
            return progress.prepare(self._book, now)
        except apsw.Error as error:
            raise self._said(error) from error

    def publish(self) -> None:
        """Write the transaction; ``commit`` follows."""
        try:
            self._transactions.publish()
        except apsw.Error as error:
            raise self._said(error) from error

    def commit(self, *, is_durable: bool) -> None:
        """Commit; ``is_durable``: and wait until it would survive a power cut."""
        try:
            self._transactions.commit(is_durable=is_durable)
        except apsw.Error as error:
            raise self._said(error) from error

    @_reads
    def rollback(self) -> None:
        """Undo the transaction, counters and caches included."""
        self._transactions.rollback()
        self._book.wake_at = progress.next_time(self._book)

    def close(self) -> None:
        """Flush and let go of the files."""
        if self._copy is not None:
            self._copy.abandon()
        try:
            self._transactions.close()
        finally:
            self._file.close()

    @_reads
    def begin_copy(self, path: Path) -> DatabaseCopy:
        """Begin a copy of the database at ``path``; ``begin`` takes a step whenever one is due."""
        assert self._copy is None, "one copy at a time"
        self._copy = DatabaseCopy(self._db, path)
        return self._copy

    def _go_on_copying(self, copy: DatabaseCopy) -> None:
        """Take a step of the copy, to which the database has to have it all."""
        try:
            if not copy.is_unwanted:
                self._transactions.write_down()
        except apsw.Error as error:
            if not is_full(error, self._db):
                raise
            # No room for that; the journal may still have some for whoever comes next.
            self.rollback()
            copy.fail(error, self.path)
        if copy.step():
            self._copy = None

    # jobs and tasks ------------------------------------------------------------------

    @_verb
    def open_job(
        self, uid: bytes, spec: JobSpec, owner: int | None, now: float
    ) -> OpenedJob | Refusal:
        """Create a job, or find the one with this uid, name or unique key."""
        return jobs.open_job(self._book, uid, spec, owner, now)

    @_verb
    def add_tasks(
        self,
        job: int,
        first: int,
        payloads: Sequence[Payload],
        keys: Sequence[str] | None,
        now: float,
    ) -> Added | Refusal:
        """Insert tasks at ``first``, ``first + 1`` …; those that exist are left alone."""
        batch = submit.batch_for(self._book, job, first, payloads, keys)
        return batch if isinstance(batch, Refusal) else submit.add_tasks(self._book, batch, now)

    @_verb
    def seal_job(self, job: int, total: int, now: float) -> Refusal | None:
        """State that the job has exactly ``total`` tasks. Idempotent."""
        return jobs.seal_job(self._book, job, total)

    @_verb
    def lease(self, lanes: Collection[int], limit: int, session: int, now: float) -> list[Lease]:
        """Hand at most ``limit`` ready tasks to ``session``."""
        return lease.lease(self._book, lanes, limit, session, now)

    @_verb
    def finish(
        self, session: int, attempts: Sequence[Attempt], now: float, chance: float
    ) -> Settlement:
        """Record how attempts ended."""
        return finish.finish(self._book, session, attempts, now, chance)

    @_verb
    def release(self, session: int, held: Sequence[Held], now: float) -> list[Held]:
        """Queue again what was handed out but not run."""
        return lease.release(self._book, session, held, now)

    @_verb
    def lose(self, session: int, now: float) -> Settlement:
        """A session is gone: queue its tasks again, or fail those lost too often."""
        return finish.lose(self._book, session, now)

    @_verb
    def reinstate(self, session: int, held: Sequence[Held], now: float) -> Reinstated:
        """Compare what a returning worker holds with the book; the book wins."""
        return lease.reinstate(self._book, session, held, now)

    @_verb
    def cancel(
        self, job: int, indices: Sequence[int] | None, *, only_queued: bool, now: float
    ) -> Cancelled:
        """Cancel tasks of a job (all of it for None, which also seals it)."""
        return cancel.cancel(self._book, job, indices, only_queued=only_queued, now=now)

    @_verb
    def retry(self, job: int, indices: Sequence[int] | None, now: float) -> int:
        """Queue failed or cancelled tasks again with fresh limits."""
        return cancel.retry(self._book, job, indices, now)

    @_verb
    def promote(self, now: float) -> Promotion:
        """Make ready what was due by ``now``, expire what waited too long, set ``wake_at``."""
        return progress.promote(self._book, now)

    @_verb
    def turn_back(self, by_s: float) -> None:
        """The clock was set back: whatever waits for a time waits for one so much earlier."""
        progress.turn_back(self._book, by_s)

    @_reads
    def outcomes(self, job: int, after_index: int, limit: int) -> list[FinalTask]:
        """Ended tasks with an index above ``after_index``, by index."""
        return read.outcomes(self._book, job, after_index, limit)

    @_verb
    def take(self, job: int, upto: int) -> int:
        """Drop ended tasks of a transient job below index ``upto``."""
        return prune.take(self._book, job, upto)

    @_verb
    def disown(self, owner: int, now: float) -> Cancelled:
        """A client is gone for good: cancel the transient jobs that lived with it."""
        return cancel.disown(self._book, owner, now)

    @_verb
    def delete_job(self, job: int) -> Refusal | None:
        """Delete an ended job before its retention is over; BAD_REQUEST when it has not ended."""
        return prune.delete_job(self._book, job)

    @_verb
    def prune(self, now: float, limit: int) -> int:
        """Delete ended jobs past their retention, and what is not used any more."""
        return prune.prune(self._book, now, limit)

    # queues of items -------------------------------------------------------------------

    @_verb
    def open_item_queue(
        self, name: str, limit: int, confirm: Confirm, owner: int | None
    ) -> tuple[ItemQueueRow, bool]:
        """The queue of this name, and whether it is new."""
        return items.open_queue(self._book, name, limit, confirm, owner)

    def item_queue(self, queue: int) -> ItemQueueRow | None:
        """A queue of items by its number."""
        found = self._book.items.queues.get(queue)
        return None if found is None else found.row()

    def find_item_queue(self, name: str) -> ItemQueueRow | None:
        """A queue of items by its name."""
        found = self._book.items.named.get(name)
        return None if found is None else found.row()

    def item_queues(self) -> list[ItemQueueRow]:
        """Every queue of items that is not transient, by name."""
        queues = self._book.items.queues.values()
        return sorted(
            (queue.row() for queue in queues if queue.owner is None), key=lambda row: row.name
        )

    @_verb
    def close_item_queue(self, queue: int) -> None:
        """Take no more items into it."""
        items.close_queue(self._book, queue)

    @_verb
    def drop_item_queue(self, queue: int) -> None:
        """Delete it; it is gone at once, of many items the rows follow in ``prune``."""
        items.drop_queue(self._book, queue)

    def exchange(
        self, taker: int, number: int, exchange: Exchange, now: float, *, overfills: bool = False
    ) -> Exchanged | Rejected:
        """Do an exchange, whole or not at all, never waiting."""
        try:
            return items.exchange(self._book, taker, number, exchange, overfills=overfills)
        except apsw.Error as error:
            raise self._said(error) from error

    @_reads
    def taken(self, taker: int, number: int) -> list[Item]:
        """Items that ``taker`` holds and took in its call ``number``."""
        return items.taken(self._book, taker, number)

    @_verb
    def lose_taker(self, taker: int) -> set[int]:
        """A taker is no more: its items wait again. Queues that got items."""
        return items.lose_taker(self._book, taker)

    @_verb
    def lose_takers(self, session: int) -> set[int]:
        """All takers of a session are no more."""
        return items.lose_takers(self._book, session)

    @_verb
    def drop_transients(self, session: int) -> tuple[list[int], list[int]]:
        """Drop queues and synchronizers that live with a session; their numbers."""
        return synchronizers.drop_transients(self._book, session)

    # synchronizers, takers ---------------------------------------------------------------

    @_verb
    def open_synchronizer(
        self, kind: Kind, name: str, owner: int | None, state: bytes
    ) -> tuple[SynchronizerRow, bool]:
        """The synchronizer of this name, and whether it is new."""
        return synchronizers.open_synchronizer(self._book, kind, name, owner, state)

    @_reads
    def synchronizers(self) -> list[SynchronizerRow]:
        """Every synchronizer."""
        return synchronizers.synchronizers(self._book)

    @_reads
    def save_synchronizer(self, synchronizer: int, state: bytes) -> None:
        """Keep its state."""
        synchronizers.save(self._book, synchronizer, state)

    @_verb
    def drop_synchronizer(self, synchronizer: int) -> None:
        """Delete it."""
        synchronizers.drop(self._book, synchronizer)

    @_reads
    def taker(self, taker: int) -> TakerRow | None:
        """The last call of a taker that was noted."""
        return synchronizers.taker(self._book, taker)

    @_reads
    def takers(self, session: int) -> list[TakerRow]:
        """The last calls of a session's takers."""
        return synchronizers.takers(self._book, session)

    def note_answer(self, taker: int, number: int, answer: bytes) -> None:
        """Keep a call's answer; replaces the last."""
        try:
            synchronizers.note_answer(self._book, taker, number, answer)
        except apsw.Error as error:
            raise self._said(error) from error

    # sessions --------------------------------------------------------------------------

    @_verb
    def open_session(self, info: SessionInfo, now: float) -> int | None:
        """Number of the session with this uid, new or reopened; None: it is another's."""
        return side.open_session(self._book, info, now)

    @_verb
    def close_session(self, session: int, now: float) -> None:
        """The session ended; kept in listings until pruned."""
        side.close_session(self._book, session, now)

    # blobs -----------------------------------------------------------------------------

    @_verb
    def put_blob(self, blob: Blob, data: bytes | None, now: float) -> None:
        """Note a blob; ``data`` None means that a file holds it."""
        side.put_blob(self._book, blob, data, now)

    @_reads
    def blob(self, digest: bytes) -> StoredBlob | None:
        """The blob, or None."""
        return side.read_blob(self._book, digest)

    @_verb
    def unused_blobs(self, before: float, limit: int) -> list[Blob]:
        """Delete and return blobs that nothing refers to and that are older than ``before``."""
        return side.unused_blobs(self._book, before, limit)

    # output ----------------------------------------------------------------------------

    @_verb
    def append_output(
        self, session: int, held: Held, stream: int, data: bytes, limit_bytes: int
    ) -> bool:
        """Keep what a running task printed, if it runs under that lease of ``session``."""
        return side.append_output(self._book, session, held, stream, data, limit_bytes=limit_bytes)

    @_reads
    def output(self, task: int) -> list[tuple[int, bytes]]:
        """What a task printed: (stream, bytes) in order."""
        return side.read_output(self._book, task)

    # queues ----------------------------------------------------------------------------

    @_verb
    def set_queue(self, name: str, *, is_paused: bool | None, limit: int | None) -> None:
        """Pause or resume a queue (None: leave), bound its length (None: leave, 0: no bound)."""
        side.set_queue(self._book, name, is_paused=is_paused, limit=limit)

    # keys ------------------------------------------------------------------------------

    @_verb
    def add_access_key(self, key: AccessKey) -> None:
        """Keep a key; its id is new."""
        access.add(self._book, key)

    @_verb
    def revoke_access_key(self, key: str, now: float) -> bool:
        """The key with this id is not taken any more."""
        return access.revoke(self._book, key, now)

    @_verb
    def drop_access_keys(self, before: float) -> int:
        """Delete those that were revoked, or have expired, before then."""
        return access.drop(self._book, before)

    @_reads
    def access_keys(self) -> list[AccessKey]:
        """Every key, by when it was made, then by id."""
        return access.every(self._book)

    # reading ---------------------------------------------------------------------------

    def lanes(self) -> list[Lane]:
        """Every lane, of paused queues too."""
        return read.lanes(self._book)

    def paused_queues(self) -> frozenset[str]:
        """Names of the queues that hand out nothing at present."""
        return read.paused_queues(self._book)

    @_reads
    def job(self, number: int) -> JobRow | None:
        """A job by its number."""
        return read.job_by_number(self._book, number)

    @_reads
    def find_job(self, name: str) -> JobRow | None:
        """A job by its name."""
        return read.job_by_name(self._book, name)

    @_reads
    def jobs(
        self, *, state: JobState | None = None, before: int | None = None, limit: int = FIRST_PAGE
    ) -> list[JobRow]:
        """Jobs, newest first, with numbers below ``before``."""
        return read.jobs(self._book, state, before, limit)

    def queues(self) -> list[QueueRow]:
        """Every queue, by name."""
        return read.queues(self._book)

    @_reads
    def task(self, task: int) -> TaskRow | None:
        """A task by its number."""
        return read.task(self._book, task)

    @_reads
    def tasks(
        self,
        job: int,
        *,
        state: TaskState | None = None,
        after_index: int = -1,
        limit: int = FIRST_PAGE,
    ) -> list[TaskRow]:
        """Tasks of a job, by index."""
        return read.tasks(self._book, job, state, after_index, limit)

    @_reads
    def attempts(self, task: int) -> list[AttemptRow]:
        """Attempts of a task that did not succeed, oldest first."""
        return read.attempts(self._book, task)

    @_reads
    def sessions(self, role: Role, *, is_open: bool = True) -> list[SessionRow]:
        """Sessions of a role, newest first."""
        return read.sessions(self._book, role, is_open=is_open)

    @_reads
    def limit_size(self, limit_bytes: int) -> None:
        """Refuse what makes the store hold more than about so much."""
        self._book.limit_size(limit_bytes)
        self._book.measure()

    def why_full(self) -> str | None:
        """Why no jobs, tasks and items are taken; None while there is room."""
        return self._book.no_room()

    def why_no_blob(self, session: int, size_bytes: int) -> str | None:
        """Why a client's blob is not taken; None: it is."""
        text = self._book.no_room(size_bytes)
        if text is None or any(session_of(taker) == session for taker in self._book.items.of_taker):
            return None
        return text

    def count_jobs(self) -> int:
        """How many jobs there are; reads them all."""
        count: int = self._db.execute("SELECT count(*) FROM jobs").get
        return count

    @_reads
    def verify(self) -> list[str]:
        """Every broken invariant, in words; empty when all is well."""
        return verify(self._book)
