"""What is left after a ``kill -9``: ``kills.py ENTRANT SCENARIO DIRECTORY`` plays one.

200 tasks of 50 ms run on two workers; when half of them have been started,
something is killed. Counted are results that the program gets within its
patience, outcomes that were accepted more than once, tasks whose code was
started again, and the time it all took.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster
from work import nap, tiny

TASKS = 200
TASK_S = 0.05
QUEUED = 1_000
PATIENCE_S = {"ours": 60.0, "pool": 12.0, "managers": 12.0}
"""Ours is given the minute of the published table; the others are known to hang."""
SCENARIOS: dict[str, tuple[str, ...]] = {
    "undisturbed": ("ours",),
    "child": ("ours", "pool", "managers"),
    "worker": ("ours",),
    "server": ("ours",),
    "queued": ("ours", "managers"),
}
"""Who plays what."""


class Play:
    """One run of the 200 tasks, and what was seen of it."""

    def __init__(self, directory: Path, patience_s: float) -> None:
        """Keep notes in ``directory``."""
        self.notes = directory / "starts"
        self.notes.touch()
        self.began = time.monotonic()
        self.deadline = self.began + patience_s
        self.results: list[int] = []
        self.accepted = 0

    def arguments(self) -> list[tuple[str, int, float]]:
        """Those of the tasks."""
        return [(str(self.notes), index, TASK_S) for index in range(TASKS)]

    def wait_for_half(self) -> None:
        """Return when half of the tasks have been started."""
        while len(self.starts()) < TASKS // 2:
            if time.monotonic() > self.deadline:
                raise TimeoutError("half of the tasks were never started")
            time.sleep(TASK_S / 10)

    def starts(self) -> list[tuple[int, int]]:
        """(index, pid) of each start of a task's code."""
        lines = self.notes.read_text().splitlines()
        return [(int(index), int(pid)) for index, pid in map(str.split, lines)]

    def collect(self, results: list[Any]) -> None:
        """Take the results that come in time; one that never comes is not there."""
        import multiprocessing

        for result in results:
            left_s = max(0.0, self.deadline - time.monotonic())
            with contextlib.suppress(multiprocessing.TimeoutError):
                self.results.append(result.get(left_s))

    def report(self, expected: int) -> dict[str, float]:
        """The figures."""
        started = [index for index, _ in self.starts()]
        return {
            "results": len(set(self.results)),
            "expected": expected,
            "twice": max(0, self.accepted - expected),
            "again": len(started) - len(set(started)),
            "seconds": time.monotonic() - self.began,
        }


def ours(scenario: str, directory: Path) -> dict[str, float]:
    """Play with a server and two workers of one slot."""
    with two_workers(with_workers=scenario != "queued") as home:
        import multihost

        play = Play(directory, PATIENCE_S["ours"])
        with multihost.Pool(2) as pool:
            if scenario == "queued":
                return _queued(home, multihost, play)
            results = [pool.apply_async(nap, task) for task in play.arguments()]
            play.wait_for_half()
            _KILLS[scenario](home, play)
            play.collect(results)
            report = play.report(TASKS)
        return report | {"twice": max(0, _accepted() - TASKS)}


def _queued(home: cluster.Cluster, multihost: Any, play: Play) -> dict[str, float]:
    """Kill the server while 1,000 tasks wait in it; then let a worker come."""
    with multihost.connect() as client:
        futures = [client.submit(tiny, number) for number in range(QUEUED)]
        assert all(future.wait_stored() for future in futures)
        play.began = time.monotonic()
        _kill_server(home, play)
        home.start_worker(slots=2)
        for future in futures:
            play.results.append(future.result(max(0.0, play.deadline - time.monotonic())))
        report = play.report(QUEUED)
    return report | {"twice": max(0, _accepted() - QUEUED)}


def _kill_child(_: cluster.Cluster, play: Play) -> None:
    os.kill(play.starts()[-1][1], signal.SIGKILL)


def _kill_worker(home: cluster.Cluster, _: Play) -> None:
    home.kill(home.workers[0])
    home.start_worker(slots=1)


def _kill_server(home: cluster.Cluster, _: Play) -> None:
    assert home.server is not None
    home.kill(home.server)
    home.start_server()


_KILLS: dict[str, Callable[[cluster.Cluster, Play], None]] = {
    "undisturbed": lambda home, play: None,
    "child": _kill_child,
    "worker": _kill_worker,
    "server": _kill_server,
}


@contextlib.contextmanager
def two_workers(*, with_workers: bool) -> Iterator[cluster.Cluster]:
    """A durable server and two workers of one slot, to which this process is a client."""
    with cluster.running("power") as home:
        for _ in range(2 if with_workers else 0):
            home.start_worker(slots=1)
        os.environ.update(home.environment())
        yield home


def _accepted() -> int:
    """Outcomes in the server's book."""
    from ours import queues

    return sum(row["succeeded"] + row["failed"] + row["cancelled"] for row in queues())


def pool(scenario: str, directory: Path) -> dict[str, float]:
    """Play with the standard library's pool."""
    import multiprocessing

    assert scenario == "child"
    play = Play(directory, PATIENCE_S["pool"])
    with multiprocessing.Pool(2) as workers:
        results = [workers.apply_async(nap, task) for task in play.arguments()]
        play.wait_for_half()
        os.kill(play.starts()[-1][1], signal.SIGKILL)
        play.collect(results)
        return play.report(TASKS)


def managers(scenario: str, directory: Path) -> dict[str, float]:
    """Play with two queues behind a manager."""
    import multiprocessing
    import queue

    import queue_pair

    play = Play(directory, PATIENCE_S["managers"])
    workers = 2 if scenario == "child" else 0
    with contextlib.suppress(ConnectionError, EOFError), contextlib.ExitStack() as stack:
        tasks, results = stack.enter_context(queue_pair.running(_nap, workers))
        if scenario == "queued":
            for number in range(QUEUED):
                tasks.put((number, number))
            (server,) = multiprocessing.active_children()
            server.kill()
            server.join()
            # There is nothing to start again: the queues were in its memory.
            return play.report(QUEUED)
        for task in play.arguments():
            tasks.put((task[1], task))
        play.wait_for_half()
        os.kill(play.starts()[-1][1], signal.SIGKILL)
        while len(play.results) < TASKS and time.monotonic() < play.deadline:
            with contextlib.suppress(queue.Empty):
                play.results.append(
                    results.get(timeout=max(0.0, play.deadline - time.monotonic()))[0]
                )
    return play.report(TASKS)


def _nap(task: tuple[str, int, float]) -> int:
    return nap(*task)


if __name__ == "__main__":
    entrant, name, where = sys.argv[1:]
    print(
        json.dumps({"ours": ours, "pool": pool, "managers": managers}[entrant](name, Path(where)))
    )
