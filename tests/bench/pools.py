"""An entrant with the interface of ``multiprocessing.Pool``: the standard one, or ours.

Both run exactly this code. That is the comparison: what a program gets that
changes one import.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import meter
from cold import cold
from work import rotate, tiny

SLOTS = 2
MIB = 1 << 20
WARM_UP = 200
"""Tasks before the clock starts: processes are there, functions have arrived."""
REST_S = 0.001
"""Between two lone tasks, so that everything has gone to sleep."""


class PoolEntrant:
    """A pool of two slots, and all processes that work for it."""

    name = "pool"

    def __init__(self, make_pool: Callable[[int], Any], roots: Sequence[int] = ()) -> None:
        """``roots``: processes whose families' CPU time counts, besides this one's."""
        self._make_pool = make_pool
        self._roots = [os.getpid(), *roots]

    def single(self, count: int) -> dict[str, float]:
        """``count`` single calls, each with its own AsyncResult."""
        with self._warm() as pool:
            family = meter.family(self._roots)
            cpu_before, began = meter.cpu_s(family), time.perf_counter()
            results = [pool.apply_async(tiny, (number,)) for number in range(count)]
            answers = [result.get() for result in results]
            elapsed_s = time.perf_counter() - began
            cpu_s = meter.cpu_s(family) - cpu_before
        check(answers, count)
        return {"rate": count / elapsed_s, "cpu_us": cpu_s / count * 1e6}

    def map(self, count: int) -> dict[str, float]:
        """``map`` with its default chunks."""
        with self._warm() as pool:
            began = time.perf_counter()
            answers = pool.map(tiny, range(count))
            elapsed_s = time.perf_counter() - began
        check(answers, count)
        return {"rate": count / elapsed_s}

    def imap(self, count: int) -> dict[str, float]:
        """``imap``, one task an item."""
        with self._warm() as pool:
            began = time.perf_counter()
            answers = list(pool.imap(tiny, range(count)))
            elapsed_s = time.perf_counter() - began
        check(answers, count)
        return {"rate": count / elapsed_s}

    def latency(self, count: int) -> dict[str, float]:
        """``count`` calls, one after the other, while nothing else happens."""
        with self._warm() as pool:
            return lone_calls(lambda number: pool.apply(tiny, (number,)), count)

    def payload(self, count: int) -> dict[str, float]:
        """``count`` tasks that get 1 MiB and give 1 MiB."""
        blocks = [os.urandom(MIB) for _ in range(count)]
        with self._warm() as pool:
            began = time.perf_counter()
            results = [pool.apply_async(rotate, (block,)) for block in blocks]
            answers = [result.get() for result in results]
            elapsed_s = time.perf_counter() - began
        assert answers == [rotate(block) for block in blocks], "a payload came back changed"
        return {"rate": 2 * count / elapsed_s}

    def cold(self, _: int) -> dict[str, float]:
        """From nothing to the first result."""
        return cold(self.name)

    @contextlib.contextmanager
    def _warm(self) -> Iterator[Any]:
        with self._make_pool(SLOTS) as pool:
            for result in [pool.apply_async(tiny, (number,)) for number in range(WARM_UP)]:
                result.get()
            yield pool


def check(answers: Sequence[int], count: int) -> None:
    """Raise unless these are the answers of ``tiny`` to 0, 1 … ``count - 1``, in order."""
    assert list(answers) == list(range(1, count + 1)), "a result is wrong, missing or doubled"


def lone_calls(call: Callable[[int], int], count: int) -> dict[str, float]:
    """p50 and p99 in ms of ``count`` calls, and p50 of as many with a rest between them."""
    times_ms = _times_ms(call, count, 0)
    return {
        "p50": meter.percentile(times_ms, 50),
        "p99": meter.percentile(times_ms, 99),
        "rested_p50": meter.percentile(_times_ms(call, count, REST_S), 50),
    }


def _times_ms(call: Callable[[int], int], count: int, rest_s: float) -> list[float]:
    times_ms = []
    for number in range(count):
        if rest_s:
            time.sleep(rest_s)
        began = time.perf_counter()
        answer = call(number)
        times_ms.append((time.perf_counter() - began) * 1e3)
        assert answer == number + 1
    return times_ms


def standard_pool() -> PoolEntrant:
    """The entrant all others are measured by."""
    import multiprocessing

    return PoolEntrant(multiprocessing.Pool)
