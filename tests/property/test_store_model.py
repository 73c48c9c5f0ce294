"""Random verbs on SQLite and on the model agree, whatever is rolled back, reopened or killed.

The process is killed at any write of a commit or of opening; or the power
fails, and of what was not synced any part is lost. Afterwards the store must
be in the state before or after the commit that was cut, never in a third.

``MULTIHOST_PROPERTY_EXAMPLES`` sets how many runs are made (default: a few
seconds' worth).
"""

# ruff: noqa: FBT001 - hypothesis calls rules by keyword

import contextlib
import itertools
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from multihost.core.job import Context
from multihost.core.outcome import Certificate, Ending
from multihost.core.resources import Requirement
from multihost.core.retry import Backoff, Limits
from multihost.core.state import TaskState
from multihost.errors import StoreError
from multihost.store.base import (
    Cancelled,
    Changes,
    Lease,
    OpenedJob,
    Promotion,
    Refusal,
    SessionInfo,
    Settlement,
    Store,
)
from multihost.store.sqlite import SQLiteStore, open_store
from multihost.testing.disk import DiedError, MemoryDisk
from multihost.testing.model import ModelDisk, ModelStore
from multihost.testing.model.data import Data
from multihost.testing.owner import START, failure_bytes, make_spec
from multihost.wire.message import Attempt, Blob, Held, Payload, Role

pytestmark = pytest.mark.timeout(300)

EXAMPLES = int(os.environ.get("MULTIHOST_PROPERTY_EXAMPLES", "100"))
STEPS = 100

BLOBS = [Blob(bytes([n]) * 32, size) for n, size in ((1, 4), (2, 3000), (3, 1 << 20))]
PAYLOADS: list[Payload] = [b"", b"a", b"b" * 40, b"c" * 1500, *BLOBS]
QUEUES = ["default", "other"]
REQUIREMENTS = [Requirement(), Requirement(tags=("gpu",))]
KEYS = ["k", "l"]
SIZES = st.integers(0, 5)
BIT = st.booleans()
names = st.sampled_from([None, None, None, "n", "m"])
seconds = st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0])
specs = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "unique_key": names,
        "fingerprint": st.sampled_from([None, b"f"]),
        "queue": st.sampled_from(QUEUES),
        "requires": st.sampled_from(REQUIREMENTS),
        "priority": st.integers(-1, 1),
        "delay_s": seconds,
        "ttl_s": st.sampled_from([None, None, 1.0, 5.0]),
        "limits": st.builds(Limits, st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)),
        "backoff": seconds.map(Backoff),
        "key_limit": st.sampled_from([None, 1, 2]),
        "key_delay_s": seconds,
        "is_transient": BIT,
        "retention_s": st.sampled_from([0.0, 5.0, 5.0]),
        "function": st.sampled_from([None, BLOBS[0].digest, BLOBS[1].digest]),
        "context": st.sampled_from([None, Context("c", initializer=BLOBS[0].digest)]),
    },
)
endings = st.sampled_from([*Ending, Ending.OK, Ending.RAISED, Ending.CRASHED])
five_keys = st.none() | st.lists(st.sampled_from(KEYS), min_size=5, max_size=5)
fault_numbers = st.integers(0, 40)
machines = itertools.count()


class StoreMachine(RuleBasedStateMachine):
    """SQLite on a disk in memory, and the model; a transaction is always open."""

    @initialize(cached_jobs=st.sampled_from([0, 2, 4096]))
    def start(self, cached_jobs: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "store"
        self.cached_jobs = cached_jobs
        self.disk = MemoryDisk(f"machine-{next(machines)}")
        self.model_disk = ModelDisk()
        self.now = START
        self.uids: list[bytes] = []
        self.sessions: list[int] = []
        self.leases: list[Lease] = []
        self.may_be: list[Data] = []
        """States that a power loss may bring back, oldest first."""
        self.highest_token = 0
        self.open_both()
        for blob in BLOBS:
            self.both("put_blob", blob, b"data", self.now)
        for number in range(2):  # workers that may speak of each other's tasks from the beginning
            info = SessionInfo(bytes([8 + number]) * 16, Role.WORKER)
            self.sessions.append(self.both("open_session", info, self.now))

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.revive()
            self.store.close()
            self.disk.close()
            self.directory.cleanup()

    # both stores -----------------------------------------------------------------------

    def open_sqlite(self) -> SQLiteStore:
        return open_store(
            self.path,
            cached_jobs=self.cached_jobs,
            vfs=self.disk.vfs,
            sync_log=lambda: self.disk.sync(f"{self.path}-wal"),
            journal=self.disk.file(f"{self.path}-items"),
        )

    def open_both(self) -> None:
        self.store = self.open_sqlite()
        self.model_disk.epoch = self.store.epoch - 1
        self.model = ModelStore(self.model_disk)
        # Opening makes everything durable.
        self.may_be = [self.model_disk.data.copy()]
        self.begin()

    def begin(self) -> None:
        self.store.begin()
        self.model.begin()

    def both(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Run a verb on both; what the model answered."""
        expected = getattr(self.model, verb)(*args, **kwargs)
        got = getattr(self.store, verb)(*args, **kwargs)
        assert comparable(got) == comparable(expected), verb
        return expected

    def view(self, store: Store) -> dict[str, Any]:
        """All that can be seen of a store."""
        jobs = store.jobs(limit=10_000)
        tasks = [task for job in jobs for task in store.tasks(job.number, limit=10_000)]
        return {
            "jobs": jobs,
            "queues": store.queues(),
            "paused": store.paused_queues(),
            "lanes": {(lane.queue, lane.requires) for lane in store.lanes()},
            "tasks": tasks,
            "outcomes": [store.outcomes(job.number, -1, 10_000) for job in jobs],
            "attempts": [store.attempts(task.task) for task in tasks],
            "output": [joined(store.output(task.task)) for task in tasks],
            "workers": [store.sessions(Role.WORKER, is_open=is_open) for is_open in (True, False)],
            "clients": [store.sessions(Role.CLIENT, is_open=is_open) for is_open in (True, False)],
            "blobs": [store.blob(blob.digest) for blob in BLOBS],
        }

    def hidden(self, store: Store) -> Any:
        """What no verb shows, yet tells apart two states that a crash may leave.

        To be asked of stores that were just opened: it may roll back, which
        reads again what memory has wrong.
        """
        if isinstance(store, SQLiteStore):
            ages = store._db.execute("SELECT digest, touched_at FROM blobs WHERE refs = 0")
            return sorted(ages)
        assert isinstance(store, ModelStore)
        used = store._count_references()
        blobs = store._data.blobs.items()
        return sorted((digest, it.touched_at) for digest, it in blobs if digest not in used)

    def check(self) -> None:
        """Between transactions: both look the same, and SQLite finds nothing wrong with itself."""
        assert self.store.verify() == []
        assert self.view(self.store) == self.view(self.model)
        self.check_wakes()

    def check_wakes(self) -> None:
        """SQLite may wake somebody too early or too often, never too late or not at all."""
        due = self.model._next_time()
        if due is not None:
            assert self.store.wake_at is not None
            assert self.store.wake_at <= due
        ready = {task.lane for task in self.model._data.tasks.values() if task.is_ready}
        woken = {self.lane_name(self.model, n) for n in self.model.woken & ready}
        assert woken <= {self.lane_name(self.store, n) for n in self.store.woken}

    def lane_name(self, store: Store, number: int) -> tuple[str, Requirement] | None:
        for lane in store.lanes():
            if lane.number == number:
                return lane.queue, lane.requires
        return None

    # transactions ----------------------------------------------------------------------

    @rule(is_durable=BIT)
    def commit(self, is_durable: bool) -> None:
        expected = self.model.prepare(self.now)
        got = self.store.prepare(self.now)
        assert comparable(got) == comparable(expected)
        self.store.commit(is_durable=is_durable)
        self.committed(is_durable=is_durable)
        self.check()
        self.begin()

    def committed(self, *, is_durable: bool) -> None:
        self.model.commit(is_durable=is_durable)
        if is_durable:
            self.may_be.clear()
        self.may_be.append(self.model_disk.data.copy())

    @rule()
    def roll_back(self) -> None:
        self.model.rollback()
        self.store.rollback()
        self.check()
        self.begin()

    def reopen(self) -> None:
        self.store.close()
        self.open_both()
        self.store.rollback()
        self.check()
        self.begin()

    # death -----------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(
            ["kill in commit"] * 3
            + ["power cut in commit"] * 2
            + ["power cut", "kill while opening", "power cut while opening", "restart"]
        ),
        writes=fault_numbers,
        torn=st.sampled_from([0, 24, 700]),
        is_durable=BIT,
        seed=st.integers(0, 99),
    )
    def disaster(self, what: str, writes: int, torn: int, is_durable: bool, seed: int) -> None:
        """The process dies, or the power fails: now, at a write of a commit, or of opening."""
        if what == "restart":
            self.reopen()
            return
        before = self.model_disk.data.copy()
        if what.endswith("in commit"):
            self.cut_commit(writes, torn, is_durable=is_durable)
        else:
            self.abandon()
        if what.endswith("while opening"):
            self.cut_opening(writes // 2)
        if what.startswith("power cut"):
            self.lose_power(seed)
        else:
            self.disk.revive()
            self.resurrect([before, self.model_disk.data])

    def cut_commit(self, writes: int, torn: int, *, is_durable: bool) -> None:
        """Commit and die within so many writes; the model has both outcomes in ``may_be``."""
        self.model.prepare(self.now)
        self.store.prepare(self.now)
        self.disk.faults.writes_left = writes
        self.disk.faults.torn_bytes = torn
        try:
            self.store.commit(is_durable=is_durable)
        except (DiedError, StoreError):
            self.committed(is_durable=False)
        else:
            self.committed(is_durable=is_durable)
        self.abandon()

    def cut_opening(self, writes: int) -> None:
        """Open and die within so many writes: recovery and the next epoch are cut, too."""
        self.disk.revive()
        self.disk.faults.writes_left = writes
        with contextlib.suppress(DiedError, StoreError):
            self.store = self.open_sqlite()
        self.abandon()

    def abandon(self) -> None:
        """The process is gone: nothing it still does reaches the disk."""
        self.disk.kill()
        with contextlib.suppress(DiedError, StoreError):
            self.store.close()

    def lose_power(self, seed: int) -> None:
        chance = random.Random(seed)
        kept = chance.choice([0.0, 0.5, 0.9, 1.0])
        self.disk.lose_power(lambda _: chance.random() < kept)
        self.resurrect(self.may_be)

    def resurrect(self, candidates: Sequence[Data]) -> None:
        """A new process finds one of these states, the newest that fits."""
        self.store = self.open_sqlite()
        assert self.store.verify() == []
        found = self.view(self.store), self.hidden(self.store)
        for data in reversed(candidates):
            self.model_disk.data = data.copy()
            self.model_disk.epoch = self.store.epoch - 1
            self.model = ModelStore(self.model_disk)
            if (self.view(self.model), self.hidden(self.model)) == found:
                break
        else:
            raise AssertionError(f"{found} is none of {len(candidates)} states")
        self.may_be = [self.model_disk.data.copy()]
        self.check_wakes()
        self.begin()

    # jobs ------------------------------------------------------------------------------

    def job_number(self, choice: int) -> int:
        jobs = sorted(self.model._data.jobs) or [99]
        return jobs[choice % len(jobs)]

    @rule(spec=specs, uid=st.integers(0, 30), after=st.lists(SIZES, max_size=2), owner=SIZES)
    def open_job(self, spec: dict[str, Any], uid: int, after: list[int], owner: int) -> None:
        after_jobs = tuple(self.job_number(choice) for choice in after)
        needs = after_jobs if uid % 3 == 0 else ()
        # A function's blob has to be there, so mostly put it first.
        if spec.get("function") and uid % 4:
            blob = next(blob for blob in BLOBS if blob.digest == spec["function"])
            self.both("put_blob", blob, b"data", self.now)
        if spec.get("context"):
            self.both("put_blob", BLOBS[0], b"data", self.now)
        session = self.session(owner)
        self.both(
            "open_job", uid.to_bytes(16, "big"), make_spec(**spec, after=needs), session, self.now
        )

    @rule(
        choice=SIZES,
        first=st.integers(0, 4),
        payloads=st.lists(st.sampled_from(PAYLOADS), max_size=5),
        keys=five_keys,
    )
    def add_tasks(
        self, choice: int, first: int, payloads: list[Payload], keys: list[str] | None
    ) -> None:
        given = None if keys is None else keys[: len(payloads)]
        self.both("add_tasks", self.job_number(choice), first, payloads, given, self.now)

    @rule(spec=specs, count=st.integers(1, 5), keys=five_keys)
    def submit(self, spec: dict[str, Any], count: int, keys: list[str] | None) -> None:
        """A whole job at once, so that there is something to run."""
        options = {"limits": Limits(2, 2, 2), **spec}
        uid = random.Random(len(self.uids)).randbytes(16)
        self.uids.append(uid)
        opened = self.both("open_job", uid, make_spec(**options), self.session(0), self.now)
        if not isinstance(opened, OpenedJob):
            return
        given = None if keys is None else keys[:count]
        payloads = PAYLOADS[count % 3 :][:count]
        self.both("add_tasks", opened.number, 0, payloads, given, self.now)
        self.both("seal_job", opened.number, count, self.now)

    @rule(spec=specs, count=st.integers(1, 5), keys=five_keys, session=SIZES)
    def submit_and_lease(
        self, spec: dict[str, Any], count: int, keys: list[str] | None, session: int
    ) -> None:
        self.submit(spec, count, keys)
        self.lease_all(session)

    @rule(choice=SIZES, total=st.integers(0, 6))
    def seal_job(self, choice: int, total: int) -> None:
        self.both("seal_job", self.job_number(choice), total, self.now)

    # work ------------------------------------------------------------------------------

    def session(self, choice: int) -> int:
        return self.sessions[choice % len(self.sessions)] if self.sessions else 1

    @rule(limit=st.integers(0, 6), lanes=st.integers(1, 15), session=SIZES)
    def lease(self, limit: int, lanes: int, session: int) -> None:
        wanted = {
            name
            for bit, name in enumerate(itertools.product(QUEUES, REQUIREMENTS))
            if lanes >> bit & 1
        }
        numbers = [
            {lane.number for lane in store.lanes() if (lane.queue, lane.requires) in wanted}
            for store in (self.model, self.store)
        ]
        expected = self.model.lease(numbers[0], limit, self.session(session), self.now)
        assert self.store.lease(numbers[1], limit, self.session(session), self.now) == expected
        for lease in expected:
            assert lease.token > self.highest_token
            self.highest_token = lease.token
        self.leases = (self.leases + expected)[-12:]
        if limit == 0:
            # The hub has looked everywhere.
            self.check_wakes()
            self.store.woken.clear()
            self.model.woken.clear()

    @rule(session=SIZES)
    def lease_all(self, session: int) -> None:
        self.lease(10, 15, session)

    @rule(session=SIZES, how_many=st.integers(1, 12))
    def lease_and_finish(self, session: int, how_many: int) -> None:
        self.lease(10, 15, session)
        self.finish_well(how_many)

    @rule(
        chosen=st.lists(
            st.tuples(SIZES, endings, st.sampled_from(PAYLOADS)),
            min_size=1,
            max_size=5,
        ),
        session=st.none() | st.none() | SIZES,
        chance=st.sampled_from([0.0, 0.5]),
        future=st.sampled_from([0, 0, 0, 1]),
    )
    def finish(
        self,
        chosen: list[tuple[int, Ending, Payload]],
        session: int | None,
        chance: float,
        future: int,
    ) -> None:
        """Attempts of the workers whose they are; or of one that says so of all."""
        attempts = []
        for choice, ending, payload in chosen:
            if not (held := self.held([choice])):
                break
            lease = held[0]
            given = payload
            if ending is Ending.CRASHED:
                given = failure_bytes(ending, certificates=(Certificate(pid=choice),))
            attempts.append(Attempt(lease.task, lease.token + future, ending, given))
        if session is not None:
            self.both("finish", self.session(session), attempts, self.now, chance)
            return
        for number, its in self.by_holder(attempts):
            self.both("finish", number, its, self.now, chance)

    @rule(how_many=st.integers(1, 12))
    def finish_well(self, how_many: int) -> None:
        attempts = [
            Attempt(lease.task, lease.token, Ending.OK, b"result")
            for lease in self.held(list(range(how_many)))
        ]
        for number, its in self.by_holder(attempts):
            self.both("finish", number, its, self.now, 0.5)

    def holder(self, task: int) -> int:
        """The session that runs it; any other, if none does."""
        it = self.model._data.tasks.get(task)
        return self.session(0) if it is None or it.session is None else it.session

    def by_holder(self, leases: list[Any]) -> list[tuple[int, list[Any]]]:
        """Attempts or leases by whose they are."""
        its: dict[int, list[Any]] = {}
        for lease in leases:
            its.setdefault(self.holder(lease.task), []).append(lease)
        return list(its.items())

    def running(self) -> list[tuple[int, int]]:
        tasks = self.model._data.in_order()
        return [(task.id, task.token) for task in tasks if task.state is TaskState.RUNNING]

    def held(self, choices: list[int]) -> list[Held]:
        """Leases, most of which still stand."""
        running = [Held(task, token) for task, token in self.running()]
        pool = running + [Held(lease.task, lease.token) for lease in self.leases[-2:]]
        return [pool[choice % len(pool)] for choice in choices if pool]

    @rule(
        verb=st.sampled_from(["release", "reinstate"]),
        choices=st.lists(st.integers(0, 12), max_size=5),
        session=st.none() | SIZES,
    )
    def give_back(self, verb: str, choices: list[int], session: int | None) -> None:
        held = self.held(choices)
        if session is None:
            for number, its in self.by_holder(held):
                self.both(verb, number, its, self.now)
        else:
            self.both(verb, self.session(session), held, self.now)

    @rule(choice=st.integers(0, 12))
    def meddle(self, choice: int) -> None:
        """A worker says everything there is to say of a task that another one runs."""
        self.lease_all(0)
        for held in self.held([choice]):
            rogue = next(each for each in self.sessions if each != self.holder(held.task))
            attempt = Attempt(held.task, held.token, Ending.OK, b"forged")
            self.both("append_output", rogue, held, 1, b"forged", 12)
            self.both("release", rogue, [held], self.now)
            self.both("finish", rogue, [attempt], self.now, 0.5)

    @rule(verb=st.sampled_from(["lose", "lose", "disown"]), session=SIZES)
    def vanish(self, verb: str, session: int) -> None:
        self.both(verb, self.session(session), self.now)

    @rule(choice=SIZES, indices=st.none() | st.lists(SIZES, max_size=3), only_queued=BIT)
    def cancel(self, choice: int, indices: list[int] | None, only_queued: bool) -> None:
        number = self.job_number(choice)
        self.both("cancel", number, indices, only_queued=only_queued, now=self.now)

    @rule(indices=st.none() | st.lists(SIZES, max_size=3))
    def retry(self, indices: list[int] | None) -> None:
        for number in sorted(self.model._data.jobs):
            self.both("retry", number, indices, self.now)

    @rule(after_s=st.sampled_from([0.0, 1.0, 4.0, 5.0]), promotes=BIT)
    def pass_time(self, after_s: float, promotes: bool) -> None:
        self.now += after_s
        if promotes:
            self.both("promote", self.now)
            assert self.store.wake_at == self.model.wake_at

    @rule(by_s=st.sampled_from([4.0, 3600.0]))
    def set_clock_back(self, by_s: float) -> None:
        self.now -= by_s
        self.both("turn_back", by_s)
        assert self.store.wake_at == self.model.wake_at

    @rule(upto=st.integers(1, 6))
    def take(self, upto: int) -> None:
        for number in sorted(self.model._data.jobs):
            self.both("take", number, upto)

    @rule(after_s=st.sampled_from([0.0, 0.0, 100_000.0]), limit=st.sampled_from([1, 3, 1000]))
    def prune(self, after_s: float, limit: int) -> None:
        self.now += after_s
        for store in (self.model, self.store):
            while store.prune(self.now, limit):
                pass

    @rule(choice=SIZES)
    def delete(self, choice: int) -> None:
        self.both("delete_job", self.job_number(choice))
        self.prune(0.0, 3)  # its tasks and what they refer to

    # beside ----------------------------------------------------------------------------

    @rule(
        number=st.integers(0, 3),
        role=st.sampled_from(list(Role)),
        key=st.sampled_from(["", "k", "k", "l"]),
        closes=BIT,
    )
    def open_or_close_session(self, number: int, role: Role, key: str, closes: bool) -> None:
        if closes:
            self.both("close_session", self.session(number), self.now)
            return
        info = SessionInfo(bytes([number]) * 16, role, name=f"w-{number}", key=key)
        session = self.both("open_session", info, self.now)
        if session is not None and session not in self.sessions:
            self.sessions.append(session)

    @rule(blob=st.sampled_from(BLOBS), is_inline=BIT, before_s=st.none() | seconds)
    def put_or_drop_blobs(self, blob: Blob, is_inline: bool, before_s: float | None) -> None:
        if before_s is None:
            self.both("put_blob", blob, b"data" if is_inline else None, self.now)
            return
        # What the same transaction did to references is decided at its end.
        self.commit(is_durable=False)
        self.both("unused_blobs", self.now - before_s, 100)

    @rule(
        choice=st.integers(0, 12),
        session=st.none() | st.none() | SIZES,
        stream=st.integers(1, 2),
        data=st.binary(max_size=9),
    )
    def append_output(self, choice: int, session: int | None, stream: int, data: bytes) -> None:
        for held in self.held([choice]):
            number = self.holder(held.task) if session is None else self.session(session)
            self.both("append_output", number, held, stream, data, 12)

    @rule(
        name=st.sampled_from([*QUEUES, "empty"]),
        is_paused=st.sampled_from([None, None, True, False, False]),
        limit=st.sampled_from([None, None, 0, 3]),
    )
    def set_queue(self, name: str, is_paused: bool | None, limit: int | None) -> None:
        self.both("set_queue", name, is_paused=is_paused, limit=limit)

    @invariant()
    def listings_within_the_transaction_agree(self) -> None:
        if not hasattr(self, "store"):
            return
        # Whether a job has ended is decided at the end of the transaction.
        for mine, theirs in zip(self.store.jobs(), self.model.jobs(), strict=True):
            assert mine == theirs


def comparable(result: Any) -> Any:
    """What a verb answered, without words and without the order that does not matter."""
    if isinstance(result, Refusal):
        return result.code, result.indices
    if isinstance(result, (Settlement, Cancelled, Changes, Promotion)):
        return {
            field: sorted(value, key=repr) if isinstance(value, list) else value
            for field, value in result._asdict().items()
        }
    if isinstance(result, list) and result and isinstance(result[0], Blob):
        return sorted(result, key=repr)
    return result


def joined(parts: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Output by stream, however it was cut into parts."""
    groups = itertools.groupby(parts, key=lambda part: part[0])
    return [(stream, b"".join(data for _, data in group)) for stream, group in groups]


def test_sqlite_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
