"""What processes use and what the disk takes, measured from outside.

CPU time is read from the kernel's own per-process clock where there is one
(nanoseconds, threads that have ended included), else from psutil (10 ms steps).
"""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

FSYNC_BYTES = 4096
FSYNC_ROUNDS = 200


def family(roots: Iterable[int]) -> list[int]:
    """The processes ``roots`` and all that they have started, as far as alive."""
    found: dict[int, None] = {}
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(root)
            found[root] = None
            found.update((child.pid, None) for child in process.children(recursive=True))
    return list(found)


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, that the living ones of ``pids`` have used so far."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess, OSError):
            total += _one_cpu_s(pid)
    return total


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def fsync_ms(directory: Path) -> float:
    """Median time to write 4 KiB behind a file's end in ``directory`` and have the disk keep it."""
    path = directory / "fsync-probe"
    block = os.urandom(FSYNC_BYTES)
    times = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sync = getattr(os, "fdatasync", os.fsync)
    try:
        for _ in range(FSYNC_ROUNDS):
            began = time.perf_counter()
            os.write(descriptor, block)
            sync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(times) * 1e3


def percentile(values: list[float], percent: float) -> float:
    """The value that ``percent`` % of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _one_cpu_s(pid: int) -> float:
    if sys.platform == "linux":
        # The clock id that clock_getcpuclockid(3) makes; Python has no call for it.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
