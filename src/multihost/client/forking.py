"""What has to be forgotten in a forked child: threads and connections are the parent's."""

import os
from collections.abc import Callable

_forgetters: list[Callable[[], None]] = []
generation = 0
"""How many forks lie between this process and the one that was started."""


def forget_in_child(forget: Callable[[], None]) -> None:
    """Have ``forget`` called in every process forked from this one."""
    _forgetters.append(forget)


def _after_fork() -> None:
    global generation  # noqa: PLW0603 - a fact about the process
    generation += 1
    for forget in _forgetters:
        forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
