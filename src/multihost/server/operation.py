"""What is to be done in a transaction, and what has been, until its commit has returned."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from multihost.store.base import Changes, Store


class Step(Protocol):
    """What the committer does in a transaction: an ``Operation``, or a call of a taker."""

    is_durable: bool
    is_told: bool
    result: Any

    def run(self, store: Store, now: float, /) -> Any:
        """Do it."""
        ...

    def forget(self) -> None:
        """It is over."""
        ...

    # What it is told, and how it is to be treated: see ``Operation``.
    @property
    def done(self) -> Callable[[Any], None] | None: ...
    @property
    def refused(self) -> Callable[[str], None] | None: ...
    @property
    def failed(self) -> Callable[[Exception], None] | None: ...
    @property
    def may_linger(self) -> bool: ...
    @property
    def comes_first(self) -> bool: ...
    @property
    def weight(self) -> int: ...
    @property
    def only_reads(self) -> bool: ...


class Operation(msgspec.Struct, eq=False):
    """Something to do in a transaction, and whom to tell.

    ``run`` is called on the loop within the transaction (again, if the
    transaction had to be repeated); ``done`` after the commit. ``refused``
    is called instead when the store is full and gets the reason; without it
    the operation is kept and tried again. ``failed`` is told of a bug.
    """

    run: Callable[[Store, float], Any]
    done: Callable[[Any], None] | None = None
    is_durable: bool = True
    refused: Callable[[str], None] | None = None
    failed: Callable[[Exception], None] | None = None
    may_linger: bool = False
    """Whether the answer may wait a moment when what was submitted is already on its way."""
    comes_first: bool = False
    """Whether its answer comes before any lease of its transaction: it opens a job, and
    whoever opened it has to watch before a task of it can say something."""
    is_told: bool = False
    """Whether nobody waits for the disk: who asked is told when the transaction is written."""
    weight: int = 1
    """How many usual operations it is as long as."""
    only_reads: bool = False
    """Whether it can be answered from what is written, when nothing more can be written."""
    result: Any = None

    def forget(self) -> None:
        """It is over: what ran may refer to it, a cycle of megabytes that only a search finds."""
        self.run = _has_run


class Written:
    """Transactions that are written and not yet committed.

    Of operations that nobody waits for nothing is kept: they are many, and what is given back at
    once is in the processor's caches when the next one takes it.
    """

    __slots__ = ("askers", "changes", "is_empty", "must_last")

    def __init__(self) -> None:
        """Begin with none."""
        self.is_empty = True
        self.must_last = False
        """Whether they have to survive a power cut."""
        self.askers: list[Step] = []
        """Operations that somebody waits for, in order."""
        self.changes: list[Changes] = []

    def add(self, operations: list[Step], changes: Changes) -> bool:
        """One more transaction; whether somebody waits for its commit."""
        self.is_empty = False
        if changes.ended or changes.finals:
            self.changes.append(changes)
        is_waited_for = False
        for operation in operations:
            self.must_last |= operation.is_durable
            if operation.is_told and operation.done is None:
                operation.forget()
            else:
                self.askers.append(operation)
                is_waited_for |= not operation.is_told
        return is_waited_for


def _has_run(_: Store, __: float) -> None:
    """What was to be run, and has been."""
