"""Keeping freed memory, in processes that pass large payloads on.

glibc gives each freed megabyte back to the system and asks for it again for
the next payload, which costs 256 page faults each time: a third of the time
that a payload takes here.
"""

import ctypes
import sys

KEEP_BYTES = 64 << 20
"""Freed memory that the process keeps at most."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Tell glibc; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEEP_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)
