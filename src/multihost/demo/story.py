"""The course of the demo: a cluster, a named map, and a kill -9 of a worker and of the server.

The client that maps is told nothing of the kills. Whatever happens here, no
process and no directory stays behind.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import Any

import multihost
from multihost.demo.measure import Measures, task
from multihost.testing import Cluster, wait_until

NAME = "demo"
SLOTS = 2
WORKER_DIES_AT, SERVER_DIES_AT = 0.3, 0.6
"""Shares of the job that are done when something is killed."""
PAGE = 1000
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Treated like Ctrl-C; the second comes when a terminal is closed."""


@dataclass(slots=True)
class Worker:
    """One worker process of the story."""

    name: str
    fate: str = "ran throughout"
    before: int = 0
    """Tasks it answered before the worker was killed."""
    between: int = 0
    """Tasks it answered between the two kills."""
    after: int = 0
    """Tasks it answered after the server was killed."""


@dataclass(slots=True)
class Story:
    """What happened, as the client saw it and as the server's book has it."""

    inputs: list[str]
    results: list[Measures] = field(default_factory=list)
    workers: dict[int, Worker] = field(default_factory=dict)
    """By the process id of the agent."""
    runs: int = 0
    """Runs that the workers' children noted, those included that were cut short."""
    job: dict[str, Any] = field(default_factory=dict)
    """The server's counters at the end."""
    lost: int = 0
    """Attempts that the server's book has as lost with their worker."""
    took_s: float = 0.0
    server_away_s: float = 0.0


def tell(inputs: list[str], say: Callable[[str], None], advance: Callable[[int], None]) -> Story:
    """Run the demo over ``inputs``; ``say`` is told what happens, ``advance`` how many are done."""
    story = Story(inputs)
    with _cluster() as cluster:
        say(f"starting a server and two workers of {SLOTS} slots each")
        cluster.start_server()
        for name in ("A", "B"):
            _start_worker(cluster, story, name)
        cluster.wait_for_workers(2)
        ledger = cluster.directory / "ledger"
        ledger.mkdir()
        began = time.monotonic()
        _map(story, cluster, ledger, say, advance)
        story.took_s = time.monotonic() - began
        story.runs = sum(len(file.read_text().splitlines()) for file in ledger.iterdir())
        _read_book(story, cluster)
    return story


def _map(
    story: Story,
    cluster: Cluster,
    ledger: Path,
    say: Callable[[str], None],
    advance: Callable[[int], None],
) -> None:
    worker_dies_at = int(WORKER_DIES_AT * len(story.inputs))
    server_dies_at = int(SERVER_DIES_AT * len(story.inputs))
    with multihost.connect(cluster.url, cluster.key) as client:
        results = client.map(task, story.inputs, repeat(str(ledger)), name=NAME, ordered=False)
        for done, (measures, agent) in enumerate(results, 1):
            story.results.append(measures)
            worker = story.workers[agent]
            worker.before += done <= worker_dies_at
            worker.between += worker_dies_at < done <= server_dies_at
            worker.after += done > server_dies_at
            advance(done)
            if done == worker_dies_at:
                _kill_worker(story, cluster, say)
            elif done == server_dies_at:
                _kill_server(story, cluster, say)


def _kill_worker(story: Story, cluster: Cluster, say: Callable[[str], None]) -> None:
    victim = cluster.workers[0].pid
    cluster.kill_worker(0)
    story.workers[victim].fate = f"killed at {WORKER_DIES_AT:.0%}"
    _start_worker(cluster, story, "A again", fate="started in its place")
    say(f"kill -9 {victim}: worker A is gone; another one was started")


def _kill_server(story: Story, cluster: Cluster, say: Callable[[str], None]) -> None:
    assert cluster.server is not None
    # A server that dies before it has missed a worker gives that worker's tasks a whole lease.
    wait_until(lambda: _has_missed_worker(cluster), "the server has missed the killed worker")
    victim, began = cluster.server.pid, time.monotonic()
    cluster.kill_server()
    cluster.start_server()
    story.server_away_s = time.monotonic() - began
    say(f"kill -9 {victim}: the server is gone; another one was started over the same store")


def _has_missed_worker(cluster: Cluster) -> bool:
    return all(row["connected"] for row in cluster.get("/api/workers"))


def _start_worker(cluster: Cluster, story: Story, name: str, fate: str = "ran throughout") -> None:
    process = cluster.start_worker("--name", name.replace(" ", "-"), slots=SLOTS)
    story.workers[process.pid] = Worker(name, fate)


def _read_book(story: Story, cluster: Cluster) -> None:
    """What the server has counted."""
    story.job = cluster.get(f"/api/jobs/{NAME}")
    after = -1
    while rows := cluster.get(f"/api/jobs/{NAME}/tasks?after={after}&limit={PAGE}"):
        story.lost += sum(row["losses"] + row["crashes"] for row in rows)
        after = rows[-1]["index"]


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """An empty cluster that is gone afterwards, however the demo is told to stop."""
    cluster = Cluster(workers=0, slots=SLOTS, durability="power")
    previous = {number: signal.signal(number, _interrupt) for number in STOP_SIGNALS}
    try:
        yield cluster
    except BaseException:
        # Nobody wants the rest of the job, which workers that are asked to stop would finish.
        for worker in cluster.workers:
            worker.kill()
        raise
    finally:
        cluster.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
