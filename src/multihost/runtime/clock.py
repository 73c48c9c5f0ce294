"""The only place that reads clocks.

``mono`` measures how long things take within one process; it goes on while
the machine sleeps, where the system offers such a clock, so that a lease is
not thought alive after a laptop was closed for an hour. ``wall`` is used for
what people see and for scheduled starts, and only on the server.
"""

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def mono() -> float:
    """Seconds since some fixed moment of this process; never jumps."""
    if _BOOTTIME is None:
        return time.monotonic()
    return time.clock_gettime(_BOOTTIME)


def wall() -> float:
    """Seconds since the epoch, as this machine believes."""
    return time.time()
