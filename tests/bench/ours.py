"""Our entrant: the same pool code, on the cluster that the environment names."""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import items
import meter
from pools import PoolEntrant
from work import tiny

import multihost
from multihost.errors import TimeoutError as NotYet

LOOK_S = 0.005
"""Between two looks at the server's counters."""


class OursEntrant(PoolEntrant):
    """A pool of ours, and a client for what a standard pool can't do."""

    name = "ours"

    def __init__(self) -> None:
        """``BENCH_PIDS`` has the server (first) and the workers, whose CPU time counts."""
        self._pids: list[int] = json.loads(os.environ["BENCH_PIDS"])
        super().__init__(multihost.Pool, self._pids)

    def submit(self, count: int) -> dict[str, float]:
        """``count`` calls by ``Client.submit``, each with its own Future."""
        with multihost.connect() as client:
            assert client.submit(tiny, 0).result() == 1
            began = time.perf_counter()
            futures = [client.submit(tiny, number) for number in range(count)]
            answers = [future.result() for future in futures]
            elapsed_s = time.perf_counter() - began
        assert answers == list(range(1, count + 1))
        return {"rate": count / elapsed_s}

    def enqueue(self, count: int) -> dict[str, float]:
        """``count`` single tasks of a map, until the server keeps them all; nobody runs them."""
        with multihost.connect() as client:
            began = time.perf_counter()
            _ = queue_up(client, count)
            elapsed_s = time.perf_counter() - began
        return {"rate": count / elapsed_s}

    def enqueue_calls(self, count: int) -> dict[str, float]:
        """``count`` calls of ``Client.submit``, until each one is acknowledged by itself."""
        with multihost.connect() as client:
            assert client.submit(tiny, 0).wait_stored()
            began = time.perf_counter()
            futures = [client.submit(tiny, number) for number in range(count)]
            assert all(future.wait_stored() for future in futures)
            elapsed_s = time.perf_counter() - began
        return {"rate": count / elapsed_s}

    def queue_pairs(self, count: int) -> dict[str, float]:
        """Items put and got, one at a time, by one client."""
        return items.pairs(find_queue, 1, count)

    def queue_pairs_of_four(self, count: int) -> dict[str, float]:
        """Items put and got, one at a time, by four clients at once."""
        return items.pairs(find_queue, 4, count)

    def queue_batches(self, count: int) -> dict[str, float]:
        """Items put and got, a hundred at a time."""
        return items.batches(find_queue, count)

    def memory(self, count: int) -> dict[str, float]:
        """What ``count`` queued tasks add to the server's memory."""
        server = self._pids[0]
        with multihost.connect() as client:
            # The page cache of the store fills up once, however many tasks there are.
            _few = queue_up(client, count // 20)
            before = meter.rss_bytes(server)
            _many = queue_up(client, count)
            grown = meter.rss_bytes(server) - before
        return {"bytes": grown / count}


def queue_up(client: multihost.Client, count: int) -> Iterator[int]:
    """Have the server keep ``count`` more tasks of one item each, while the result lives."""
    wanted = queued() + count
    results = client.map(tiny, range(count), window=count + 1)
    try:
        results.next(timeout=0)
    except NotYet:
        # All are submitted; no worker, no result.
        while queued() < wanted:
            time.sleep(LOOK_S)
    return results


def find_queue() -> multihost.Queue:
    """The queue that all clients of a measurement share."""
    return multihost.connect().queue("items")


def queued() -> int:
    """Tasks that wait, by the server's own counters."""
    return sum(row["queued"] for row in queues())


def queues() -> list[dict[str, Any]]:
    """The server's listing of its queues."""
    request = urllib.request.Request(
        os.environ["MULTIHOST_URL"] + "/api/queues",
        headers={"Authorization": f"Bearer {os.environ['MULTIHOST_KEY']}"},
    )
    with urllib.request.urlopen(request) as answer:
        rows: list[dict[str, Any]] = json.load(answer)
    return rows
