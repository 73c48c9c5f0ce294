"""What the store's verbs cost, in us a task or item: ``python tests/bench/store.py [DIRECTORY]``.

Nothing else runs: no event loop, no network. Payloads have 60 bytes, results
20. The verbs are shown in time that passed, so others on the machine are in
it; the whole also in time of the processor. A durable commit waits for the disk.
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from multihost.core.ids import make_uid, taker_id
from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending
from multihost.store.base import Lease, OpenedJob, SessionInfo, Store
from multihost.store.sqlite import open_store
from multihost.wire.act import Confirm, Exchange, Exchanged, Put
from multihost.wire.message import Attempt, Role

NOW = 1_800_000_000.0
PAYLOAD, RESULT = b"x" * 60, b"y" * 20
SPEC = JobSpec(style=Style.COMMAND, label="bench")
TRANSIENT = JobSpec(style=Style.COMMAND, label="bench", is_transient=True)
ROUNDS = 5
TASKS = 20_000
BACKLOG = 200_000
CPU = "processor"


class Meter:
    """Seconds by verb, and of the processor."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began_cpu_s = time.process_time()

    def per_task(self, tasks: int) -> dict[str, float]:
        """Microseconds a task."""
        seconds = {**self.seconds, CPU: time.process_time() - self._began_cpu_s}
        return {name: s / tasks * 1e6 for name, s in seconds.items()}

    def __call__(self, name: str, verb: Callable, *args, **kwargs):  # type: ignore[no-untyped-def]
        began = time.perf_counter()
        result = verb(*args, **kwargs)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        return result


class Bench:
    """A store with a worker's session."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._count = 0
        store.begin()
        self.worker = store.open_session(SessionInfo(b"w" * 16, Role.WORKER), NOW)
        self.client = store.open_session(SessionInfo(b"c" * 16, Role.CLIENT), NOW)
        self.commit()

    def commit(self, *, is_durable: bool = False) -> None:
        self.store.prepare(NOW)
        self.store.commit(is_durable=is_durable)

    def open(self, spec: JobSpec = SPEC) -> OpenedJob:
        self._count += 1
        uid = make_uid(self._count, self._count.to_bytes(10, "big"))
        owner = self.client if spec.is_transient else None
        opened = self.store.open_job(uid, spec, owner, NOW)
        assert isinstance(opened, OpenedJob)
        return opened

    def batches(self, size: int, spec: JobSpec, tasks: int) -> dict[str, float]:
        """Whole lives of ``tasks`` tasks of one job, ``size`` in a transaction; µs a task."""
        store, meter = self.store, Meter()
        store.begin()
        job = self.open(spec)
        self.commit()
        payloads = [PAYLOAD] * size
        for first in range(0, tasks, size):
            meter("begin+commit", store.begin)
            meter("add", store.add_tasks, job.number, first, payloads, None, NOW)
            leases = meter("lease", store.lease, store.woken, size, self.worker, NOW)
            attempts = outcomes(leases)
            meter("finish", store.finish, self.worker, attempts, NOW, 0.5)
            if spec.is_transient:
                meter("take", store.take, job.number, first + size)
            meter("prepare", store.prepare, NOW)
            meter("begin+commit", store.commit, is_durable=False)
        return meter.per_task(tasks)

    def singles(self, jobs: int) -> dict[str, float]:
        """Jobs of one task, submitted and leased in one transaction, finished in the next."""
        store, meter = self.store, Meter()
        for _ in range(jobs):
            meter("begin+commit", store.begin)
            job = meter("open", self.open)
            meter("add", store.add_tasks, job.number, 0, [PAYLOAD], None, NOW)
            meter("seal", store.seal_job, job.number, 1, NOW)
            leases = meter("lease", store.lease, store.woken, 1, self.worker, NOW)
            meter("prepare", store.prepare, NOW)
            meter("begin+commit", store.commit, is_durable=False)
            meter("begin+commit", store.begin)
            meter("finish", store.finish, self.worker, outcomes(leases), NOW, 0.5)
            meter("prepare", store.prepare, NOW)
            meter("begin+commit", store.commit, is_durable=False)
        return meter.per_task(jobs)

    def lone_tasks(self, tasks: int, *, is_durable: bool) -> dict[str, float]:
        """Tasks of one job, one at a time: submit and lease, then the outcome."""
        store, meter = self.store, Meter()
        store.begin()
        job = self.open(SPEC)
        self.commit()
        for index in range(tasks):
            meter("begin", store.begin)
            meter("add", store.add_tasks, job.number, index, [PAYLOAD], None, NOW)
            leases = meter("lease", store.lease, store.woken, 1, self.worker, NOW)
            meter("prepare", store.prepare, NOW)
            meter("commit", store.commit, is_durable=is_durable)
            meter("begin", store.begin)
            meter("finish", store.finish, self.worker, outcomes(leases), NOW, 0.5)
            meter("prepare", store.prepare, NOW)
            meter("commit", store.commit, is_durable=is_durable)
        return meter.per_task(tasks)

    def items(self, size: int, items: int) -> dict[str, float]:
        """Whole lives of items, ``size`` in a transaction; µs an item."""
        store, meter = self.store, Meter()
        queue = self.open_queue()
        taker = taker_id(self.client, 1)
        puts = Exchange(puts=[Put(queue, [PAYLOAD] * size)])
        for call in range(0, items, size):
            meter("begin+commit", store.begin)
            meter("put", store.exchange, taker, call, puts, NOW)
            taken = meter(
                "take", store.exchange, taker, call, Exchange(take=queue, limit=size), NOW
            )
            assert isinstance(taken, Exchanged)
            confirms = Exchange([item.number for item in taken.items])
            meter("confirm", store.exchange, taker, call, confirms, NOW)
            meter("prepare", store.prepare, NOW)
            meter("begin+commit", store.commit, is_durable=False)
        return meter.per_task(items)

    def open_queue(self) -> int:
        """The queue of items."""
        self.store.begin()
        row, _ = self.store.open_item_queue("bench", 0, Confirm.NEXT, None)
        self.commit()
        return row.number

    def pile_up(self, items: int) -> None:
        """Put so many items that nobody takes."""
        queue = self.open_queue()
        for _ in range(0, items, 1000):
            self.store.begin()
            puts = Exchange(puts=[Put(queue, [PAYLOAD] * 1000)])
            self.store.exchange(taker_id(self.client, 2), 1, puts, NOW)
            self.commit()


def outcomes(leases: list[Lease]) -> list[Attempt]:
    """Success for each lease."""
    return [Attempt(lease.task, lease.token, Ending.OK, RESULT) for lease in leases]


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def show(title: str, figures: dict[str, float]) -> None:
    cpu_us = figures.pop(CPU)
    parts = "  ".join(f"{name} {us:.2f}" for name, us in figures.items())
    whole_us = sum(figures.values())
    print(f"{title:<34} {whole_us:7.2f} us, {cpu_us:7.2f} {CPU}   {parts}", flush=True)


def main() -> None:
    """Measure, and print a line for each case."""
    gc.disable()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        store = open_store(Path(directory) / "store.sqlite")
        bench = Bench(store)
        for size in (1, 10, 100, 500):
            tasks = TASKS if size > 1 else TASKS // 10
            runs = [bench.batches(size, SPEC, tasks) for _ in range(ROUNDS)]
            show(f"task's life, batches of {size}", median(runs))
        runs = [bench.batches(100, TRANSIENT, TASKS) for _ in range(ROUNDS)]
        show("transient, taken, batches of 100", median(runs))
        show(
            "job of one task, 2 transactions", median([bench.singles(2000) for _ in range(ROUNDS)])
        )
        for is_durable in (False, True):
            runs = [bench.lone_tasks(1000, is_durable=is_durable) for _ in range(ROUNDS)]
            show(f"lone task, {'power' if is_durable else 'process'}", median(runs))
        for backlog in (0, BACKLOG):
            bench.pile_up(backlog)
            for size in (1, 10, 100):
                items = TASKS if size > 1 else TASKS // 10
                runs = [bench.items(size, items) for _ in range(ROUNDS)]
                show(f"items by {size}, {backlog:,} before them", median(runs))
        store.close()


if __name__ == "__main__":
    main()
