"""Items through a queue on a server: pairs of put and get, by one client or by several.

Ours and the standard library's manager run exactly this code; what differs is
how a client finds the queue.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from typing import Any

FORK = multiprocessing.get_context("fork")
WARM_UP = 200
BATCH = 100
FindQueue = Callable[[], Any]
"""Connects, and returns the queue."""


def pairs(find: FindQueue, clients: int, count: int) -> dict[str, float]:
    """``count`` pairs in all; each of ``clients`` processes puts an item and gets one."""
    return _race(find, clients, lambda queue: _pairs(queue, count // clients), count)


def batches(find: FindQueue, count: int) -> dict[str, float]:
    """``count`` items, put and got a hundred at a time by one client."""
    return _race(find, 1, lambda queue: _batches(queue, count), count)


def _pairs(queue: Any, count: int) -> None:
    for number in range(count):
        queue.put(number)
        queue.get()


def _batches(queue: Any, count: int) -> None:
    left = count
    for first in range(0, count, BATCH):
        queue.put_many(range(first, min(first + BATCH, count)))
        left -= len(queue.get_many(BATCH))
    while left:
        left -= len(queue.get_many(BATCH))


def _race(
    find: FindQueue, clients: int, work: Callable[[Any], None], count: int
) -> dict[str, float]:
    """Have ``clients`` new processes connect, warm up, and begin together."""
    ready, begin, done = FORK.Semaphore(0), FORK.Event(), FORK.Semaphore(0)

    def run() -> None:
        queue = find()
        _pairs(queue, WARM_UP)
        ready.release()
        begin.wait()
        work(queue)
        done.release()

    processes = [FORK.Process(target=run, daemon=True) for _ in range(clients)]
    for process in processes:
        process.start()
    _acquire_all(ready, clients, processes)
    began = time.perf_counter()
    begin.set()
    _acquire_all(done, clients, processes)
    elapsed_s = time.perf_counter() - began
    for process in processes:
        process.join()
    return {"rate": count / elapsed_s}


def _acquire_all(semaphore: Any, times: int, processes: Iterable[Any]) -> None:
    """Acquire so often; raises when one of ``processes`` has failed instead."""
    for _ in range(times):
        while not semaphore.acquire(timeout=1):
            assert not any(process.exitcode for process in processes), "a client has failed"
