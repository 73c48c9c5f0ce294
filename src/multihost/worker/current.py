"""Which task the calling code runs in: for logs, and for conditional writes elsewhere.

A resource outside (a database, a file server) that refuses a token smaller
than the largest it has seen can't be changed by a worker that lost its lease
and does not know it yet.
"""

from collections.abc import Callable

from multihost.core.ids import index_of, job_of, task_name


class CurrentTask:
    """The task that runs in this process."""

    __slots__ = ("index", "job", "name", "token")

    def __init__(self, task: int, token: int) -> None:
        self.name = task_name(task)
        """``42/7``, as people write it."""
        self.job = job_of(task)
        self.index = index_of(task)
        self.token = token
        """Of the lease; each later lease of the task has a larger one."""

    def __repr__(self) -> str:
        return f"<task {self.name}, token {self.token}>"


def current_task() -> CurrentTask | None:
    """The task that runs in this process; None outside of tasks."""
    task, token = _lease()
    return CurrentTask(task, token) if task else None


def told_by(lease: Callable[[], tuple[int, int]]) -> None:
    """Have ``lease`` tell task and token; called once, by the process of a slot."""
    global _lease  # noqa: PLW0603 - a process has one slot at most
    _lease = lease


def _no_lease() -> tuple[int, int]:
    return 0, 0


_lease: Callable[[], tuple[int, int]] = _no_lease
