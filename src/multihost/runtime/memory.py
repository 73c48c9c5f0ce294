"""Memory of processes that are all ours: servers and workers and, with less of it, their children.

glibc gives each freed megabyte back to the system and asks for it again for
the next payload, which costs 256 page faults each time: a third of the time
that a payload takes here. And Python looks for cycles of garbage every 700 new
objects, as many as come with some hundred tasks, now and then among all that
was imported.
"""

import gc
import os
import sys

KEEP_BYTES = 64 << 20
"""Freed memory that the process keeps at most."""
KEPT_BY_CHILD: dict[str, str] = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}
"""What a child is started with, which costs it no import. What is freed above 8 MiB goes back."""
NEW_OBJECTS = 2_000
"""After so many more the youngest are looked through; the others ten and a hundred times later."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Tell glibc; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEEP_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)


def hide_what_is_kept() -> None:
    """In a child: programs that its tasks start are none of ours."""
    for name, value in KEPT_BY_CHILD.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def look_less_for_cycles() -> None:
    """Look at what there is by now never again for garbage, and at what comes more seldom."""
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 10, 10)
