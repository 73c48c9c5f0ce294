"""The classic recipe as an entrant: two queues behind a ``BaseManager``, workers between.

A server process holds the queues; two workers get a task, compute, and put
the result; the master puts everything and collects everything. Workers that
die take their task with them, and the server's death loses all: it is here
for its speed.
"""

import contextlib
import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager
from typing import Any

import items
import meter
from cold import cold
from pools import MIB, SLOTS, WARM_UP, check, lone_calls
from work import rotate, tiny

FORK = multiprocessing.get_context("fork")


class Queues(BaseManager):
    """The manager of master, server and workers."""


class _Here:
    """The queues, in the server's process; forked empty."""

    tasks: "queue.Queue[Any]" = queue.Queue()
    results: "queue.Queue[Any]" = queue.Queue()


Queues.register("get_task_queue", callable=lambda: _Here.tasks)
Queues.register("get_result_queue", callable=lambda: _Here.results)


class QueuePairEntrant:
    """Server, two workers, and this process as the master."""

    def single(self, count: int) -> dict[str, float]:
        """``count`` tasks, all put and then all collected."""
        with running(tiny) as (tasks, results):
            warm_up(tasks, results)
            family = meter.family([os.getpid()])
            cpu_before, began = meter.cpu_s(family), time.perf_counter()
            answers = put_and_get(tasks, results, list(range(count)))
            elapsed_s = time.perf_counter() - began
            cpu_s = meter.cpu_s(family) - cpu_before
        check(answers, count)
        return {"rate": count / elapsed_s, "cpu_us": cpu_s / count * 1e6}

    def latency(self, count: int) -> dict[str, float]:
        """``count`` tasks, one after the other."""
        with running(tiny) as (tasks, results):
            warm_up(tasks, results)

            def call(number: int) -> int:
                tasks.put((0, number))
                return int(results.get()[1])

            return lone_calls(call, count)

    def payload(self, count: int) -> dict[str, float]:
        """``count`` tasks that get 1 MiB and give 1 MiB."""
        blocks = [os.urandom(MIB) for _ in range(count)]
        with running(rotate) as (tasks, results):
            began = time.perf_counter()
            answers = put_and_get(tasks, results, blocks)
            elapsed_s = time.perf_counter() - began
        assert answers == [rotate(block) for block in blocks], "a payload came back changed"
        return {"rate": 2 * count / elapsed_s}

    def cold(self, _: int) -> dict[str, float]:
        """From nothing to the first result."""
        return cold("managers")

    def memory(self, count: int) -> dict[str, float]:
        """What ``count`` queued tasks add to the server's memory."""
        return self.enqueue(count)

    def queue_pairs(self, count: int) -> dict[str, float]:
        """Items put and got, one at a time, by one client."""
        with serving() as find:
            return items.pairs(find, 1, count)

    def queue_pairs_of_four(self, count: int) -> dict[str, float]:
        """Items put and got, one at a time, by four clients at once."""
        with serving() as find:
            return items.pairs(find, 4, count)

    def enqueue(self, count: int) -> dict[str, float]:
        """``count`` tasks put with nobody there to take them."""
        with running(tiny, workers=0) as (tasks, _):
            (server,) = (child.pid for child in multiprocessing.active_children())
            assert server is not None
            tasks.put((0, 0))
            before, began = meter.rss_bytes(server), time.perf_counter()
            for number in range(count):
                tasks.put((number, number))
            elapsed_s = time.perf_counter() - began
            grown = meter.rss_bytes(server) - before
            assert tasks.qsize() == count + 1
        return {"rate": count / elapsed_s, "bytes": grown / count}


@contextlib.contextmanager
def serving() -> Iterator[Callable[[], Any]]:
    """A running server; how a client of it finds the task queue."""
    manager = Queues(address=("127.0.0.1", 0), authkey=b"bench", ctx=FORK)
    manager.start()
    address = manager.address

    def find() -> Any:
        client = Queues(address=address, authkey=b"bench")
        client.connect()
        return client.get_task_queue()  # type: ignore[attr-defined]

    try:
        yield find
    finally:
        manager.shutdown()


@contextlib.contextmanager
def running(function: Callable[[Any], Any], workers: int = SLOTS) -> Iterator[tuple[Any, Any]]:
    """Task and result queue of a running server with ``workers`` that apply ``function``."""
    manager = Queues(address=("127.0.0.1", 0), authkey=b"bench", ctx=FORK)
    manager.start()
    arguments = (manager.address, function)
    processes = [FORK.Process(target=work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    tasks, results = manager.get_task_queue(), manager.get_result_queue()  # type: ignore[attr-defined]
    try:
        yield tasks, results
        for _ in processes:
            tasks.put(None)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
        manager.shutdown()


def work(address: tuple[str, int], function: Callable[[Any], Any]) -> None:
    """Get, compute, put, until told to stop."""
    manager = Queues(address=address, authkey=b"bench")
    manager.connect()
    tasks, results = manager.get_task_queue(), manager.get_result_queue()  # type: ignore[attr-defined]
    while (task := tasks.get()) is not None:
        index, argument = task
        results.put((index, function(argument)))


def warm_up(tasks: Any, results: Any) -> None:
    """Have every connection made before the clock starts."""
    put_and_get(tasks, results, list(range(WARM_UP)))


def put_and_get(tasks: Any, results: Any, arguments: list[Any]) -> list[Any]:
    """The answers to ``arguments``, in their order."""
    for index, argument in enumerate(arguments):
        tasks.put((index, argument))
    answers = dict(results.get() for _ in arguments)
    return [answers[index] for index in range(len(arguments))]
