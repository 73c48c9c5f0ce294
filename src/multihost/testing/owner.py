"""Driving a store in tests: transactions, a clock that is told, short words for common steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from multihost.core.ids import make_uid
from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending, Failure, decode_failure, encode_failure
from multihost.store.base import (
    Added,
    Changes,
    Final,
    Lease,
    OpenedJob,
    Refusal,
    SessionInfo,
    Settlement,
    Store,
)
from multihost.wire.message import Attempt, Held, Payload, Role

START = 1_800_000_000.0


def make_spec(**options: Any) -> JobSpec:
    """A job of style COMMAND, which needs no function's blob, with these options."""
    return JobSpec(**{"style": Style.COMMAND, **options})


def failure_bytes(ending: Ending = Ending.RAISED, message: str = "boom", **more: Any) -> bytes:
    """What a worker sends of an attempt that did not succeed."""
    return encode_failure(Failure(ending, message=message, **more))


def failure_of(final: Final) -> Failure:
    """The failure that ended a task, which must not be a blob."""
    assert isinstance(final.payload, bytes), final
    return decode_failure(final.payload)


class Owner:
    """The one owner of a store: opens it, keeps its transactions, and checks it after each.

    Every verb runs in a transaction of its own unless it is called on
    ``store`` within ``transaction()``.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """Open the store with ``open_store``, which ``reopen`` calls again."""
        self._open_store = open_store
        self.store = open_store()
        self.now = START
        self.changes = Changes([], [])
        """Of the last transaction."""
        self._uids = 0

    @contextmanager
    def transaction(self, *, is_durable: bool = False) -> Iterator[Store]:
        """Begin; at the end prepare and commit, or roll back if something was raised."""
        self.store.begin()
        try:
            yield self.store
            changes = self.store.prepare(self.now)
        except BaseException:
            self.store.rollback()
            raise
        self.store.commit(is_durable=is_durable)
        self.changes = changes
        broken = self.store.verify()
        assert not broken, broken

    def do(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Run one verb in a transaction of its own."""
        with self.transaction() as store:
            return getattr(store, verb)(*args, **kwargs)

    def reopen(self) -> None:
        """Close the store and open it again, as a restarted server does."""
        self.store.close()
        self.store = self._open_store()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    # what tests do all the time --------------------------------------------------------

    def uid(self) -> bytes:
        """Another uid."""
        self._uids += 1
        return make_uid(self._uids, self._uids.to_bytes(10, "big"))

    def worker(self, name: str = "w-1", uid: bytes | None = None) -> int:
        """Session of a worker."""
        info = SessionInfo(uid or self.uid(), Role.WORKER, name=name)
        number: int = self.do("open_session", info, self.now)
        return number

    def client(self, uid: bytes | None = None) -> int:
        """Session of a client."""
        number: int = self.do("open_session", SessionInfo(uid or self.uid(), Role.CLIENT), self.now)
        return number

    def open(self, uid: bytes | None = None, owner: int | None = None, **options: Any) -> OpenedJob:
        """Open a job, which must not be refused."""
        opened = self.do("open_job", uid or self.uid(), make_spec(**options), owner, self.now)
        assert isinstance(opened, OpenedJob), opened
        return opened

    def add(
        self,
        job: int,
        payloads: Sequence[Payload] | int,
        *,
        first: int = 0,
        keys: Sequence[str] | None = None,
    ) -> Added | Refusal:
        """Add tasks: their payloads, or how many."""
        if isinstance(payloads, int):
            payloads = [b"payload %d" % (first + n) for n in range(payloads)]
        result: Added | Refusal = self.do("add_tasks", job, first, payloads, keys, self.now)
        return result

    def submit(
        self,
        payloads: Sequence[Payload] | int = 1,
        *,
        keys: Sequence[str] | None = None,
        owner: int | None = None,
        **options: Any,
    ) -> int:
        """Open a job, add its tasks and seal it; its number."""
        job = self.open(owner=owner, **options)
        added = self.add(job.number, payloads, keys=keys)
        assert isinstance(added, Added), added
        self.seal(job.number, added.inserted)
        return job.number

    def seal(self, job: int, total: int) -> None:
        """Seal a job, which must not be refused."""
        refusal = self.do("seal_job", job, total, self.now)
        assert refusal is None, refusal

    def lanes(self, queue: str | None = None) -> list[int]:
        """Numbers of all lanes, or of a queue's."""
        return [lane.number for lane in self.store.lanes() if queue in (None, lane.queue)]

    def lease(self, session: int, limit: int = 100, queue: str | None = None) -> list[Lease]:
        """Lease whatever is ready."""
        leases: list[Lease] = self.do("lease", self.lanes(queue), limit, session, self.now)
        return leases

    def finish(
        self,
        session: int,
        leases: Sequence[Lease | Held],
        ending: Ending = Ending.OK,
        payload: Payload | None = None,
        chance: float = 0.5,
    ) -> Settlement:
        """End attempts, all alike."""
        if payload is None:
            payload = b"result" if ending is Ending.OK else failure_bytes(ending)
        attempts = [Attempt(lease.task, lease.token, ending, payload) for lease in leases]
        settlement: Settlement = self.do("finish", session, attempts, self.now, chance)
        return settlement

    def prints(
        self, session: int, lease: Lease | Held, data: bytes, *, stream: int = 1, limit: int = 100
    ) -> bool:
        """A task prints something; whether it is kept."""
        held = Held(lease.task, lease.token)
        is_kept: bool = self.do("append_output", session, held, stream, data, limit)
        return is_kept

    def promote(self, after_s: float = 0.0) -> Any:
        """Let time pass and look what that does."""
        self.now += after_s
        return self.do("promote", self.now)
