"""File descriptors: a worker needs several for each child, a server one for each connection."""

import os
import sys

STDERR = 2


def allow_descriptors(count: int) -> int | None:
    """Let this process have so many open files, as far as the system lets it.

    How many it may have now, which can be more or fewer; None: no limit is known.
    """
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # some systems allow less than they say
            return soft
    return max(soft, wanted)


def fill_standard_descriptors() -> None:
    """Open what this process was started without of stdin, stdout and stderr, on nothing.

    Their numbers would go to descriptors of ours else, and uvloop aborts when it closes one.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= STDERR:
        os.set_inheritable(number, True)
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
