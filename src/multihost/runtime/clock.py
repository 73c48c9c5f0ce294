"""The only place that reads clocks.

``mono`` measures how long things take within one process; it goes on while
the machine sleeps, where the system offers such a clock, so that a lease is
not thought alive after a laptop was closed for an hour. ``wall`` is used for
what people see and for scheduled starts, and only on the server.
"""

import time
from collections.abc import Callable
from functools import partial

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)

# Not functions of Python's: they are called several times for each call of a queue.
mono: Callable[[], float] = (
    time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
)
"""Seconds since some fixed moment of this process; never jumps."""
wall: Callable[[], float] = time.time
"""Seconds since the epoch, as this machine believes."""
