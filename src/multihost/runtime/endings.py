"""What a process has to settle when a unit of its work is over.

The process of a slot runs one task after the other; what a task has taken from
queues is done with when it ends well, and others' when it does not. Whoever
keeps such things registers here, and the slot tells, so that neither knows the
other. Imports nothing: every slot loads it.
"""

from collections.abc import Callable

_settlers: list[Callable[[bool], None]] = []


def settle_with(settler: Callable[[bool], None]) -> None:
    """Have ``settler`` called, in the thread that worked, with whether the work ended well."""
    _settlers.append(settler)


def work_ended(is_clean: bool) -> None:  # noqa: FBT001 - as in the calls that follow
    """A unit of work is over; raises what prevents settling it."""
    for settler in _settlers:
        settler(is_clean)
