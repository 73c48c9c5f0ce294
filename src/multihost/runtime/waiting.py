"""How the process of a slot learns that its task waits for the results of others.

A task that submits tasks and waits for them needs no slot meanwhile, and those may
need just that one. Whoever blocks for results does it through ``for_others``; the slot,
which registers here, tells its agent. Neither knows the other. Outside of slots nothing
is told, and waiting costs one look. Imports nothing that takes time: every slot loads it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_tell: Callable[[bool], None] | None = None
_priority: Callable[[], int | None] | None = None


def told_by(tell: Callable[[bool], None], priority: Callable[[], int | None]) -> None:
    """Have ``tell`` called when a thread begins (True) and ends (False) waiting for results.

    ``priority`` is that of the job whose task runs; None: none does.
    """
    global _tell, _priority
    _tell, _priority = tell, priority


def is_slot() -> bool:
    """Whether this process is a slot's."""
    return _tell is not None


def for_others(wait: Callable[[], T]) -> T:
    """``wait()``, which blocks until results have come."""
    tell = _tell
    if tell is None:
        return wait()
    tell(True)
    try:
        return wait()
    finally:
        tell(False)


def nested_priority() -> int:
    """Priority of what the running task submits: it goes before what its own job has left.

    Else the tasks of that job would take every slot and wait there for those behind them.
    """
    priority = None if _priority is None else _priority()
    return 0 if priority is None else priority + 1


def waiters() -> list[Any]:
    """A list to be of those who wait for a future, as ``concurrent.futures`` keeps them."""
    return [] if _tell is None else _Waiters(_tell)


class _Waiters(list[Any]):
    """Tells of ``concurrent.futures.wait`` and ``as_completed``, which block by themselves."""

    def __init__(self, tell: Callable[[bool], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, waiter: object) -> None:
        super().append(waiter)
        self._tell(True)

    def remove(self, waiter: object) -> None:
        super().remove(waiter)
        self._tell(False)
