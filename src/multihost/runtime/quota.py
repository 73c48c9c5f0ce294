"""How many cores a process may use, and how much of them a container leaves it.

The number of cores tells nothing of such a limit: a container of one CPU sees
all of its host, and is stopped for the rest of each tenth of a second once it
has used what it may. Read from the files of Linux's control groups, of both
versions; elsewhere there is none.
"""

import os
from collections.abc import Iterator
from pathlib import Path

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores(own: Path = OWN_GROUPS, groups: Path = GROUPS) -> float | None:
    """Cores' worth of time that this process may use with its neighbours; None: no limit."""
    found = [quota for directory in _directories(own, groups) if (quota := _quota(directory))]
    return min(found, default=None)


def _directories(own: Path, groups: Path) -> Iterator[Path]:
    """Those of the process's groups and of all that contain them."""
    for line in _words(own, "\n"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers
        within = root / path.strip("/")
        # In a container the path may be the host's, of which only the end is seen: as the root.
        yield root
        yield within
        yield from (each for each in within.parents if root in each.parents)


def _quota(directory: Path) -> float | None:
    quota, period, *_ = [*_words(directory / "cpu.max"), "", ""]
    if not quota:
        quota = "".join(_words(directory / "cpu.cfs_quota_us"))
        period = "".join(_words(directory / "cpu.cfs_period_us"))
    if quota.isdecimal() and period.isdecimal() and int(period):
        return int(quota) / int(period)
    return None  # "max", -1, or no such file


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text("ascii", "replace").strip().split(separator)
    except OSError:
        return []
