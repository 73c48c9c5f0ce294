"""A call of a taker, from when it has come until it is answered.

A new one is an operation of the committer's itself, without another object
around it: calls are the many small things that a server is asked for.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

import msgspec

from multihost.store.base import Store
from multihost.wire.act import AnyAct, AnyResult, Exchange, OpenQueue, OpenSynchronizer, WriteValue

Reply = Callable[[AnyResult], None]

_GROWS = (OpenQueue, OpenSynchronizer, WriteValue)
"""Acts that a full store refuses; the others make room, or are tried again."""


class Desk(Protocol):
    """Where calls are done."""

    def run(self, pending: "Pending", store: Store, now: float) -> None:
        """Do a call within a transaction, as far as it can be done now."""
        ...

    def refuse(self, pending: "Pending", text: str) -> None:
        """The store has no room for it; the transaction was undone."""
        ...

    def fail(self, pending: "Pending", error: Exception) -> None:
        """A bug; the transaction was undone."""
        ...


class Pending(msgspec.Struct, eq=False):
    """A call that is not answered yet."""

    taker: int
    number: int
    act: AnyAct
    wait_s: float | None
    reply: Reply
    is_fresh: bool
    """Whether it can't have come before; else the store is asked first."""
    desk: Desk
    rest: Exchange | None = None
    """What is still to be done of an exchange: the whole, or the take alone."""
    surplus: int = 0
    """Items that it has put already into the full queue whose room it waits for."""
    is_over: bool = False
    """Answered, or its taker has ended; true for good when the transaction is kept."""
    is_lossy: bool = False
    """Whether it was given items that can't be given again."""
    is_early: bool = False
    """Whether its answer need not wait for the disk."""

    # as an operation -------------------------------------------------------------------

    is_durable: bool = True
    is_told: bool = False
    result: None = None
    done: ClassVar[None] = None
    may_linger: ClassVar[bool] = False
    comes_first: ClassVar[bool] = False
    only_reads: ClassVar[bool] = False
    weight: ClassVar[int] = 1

    def run(self, store: Store, now: float) -> None:
        """Do it, when it has just come."""
        self.desk.run(self, store, now)

    @property
    def refused(self) -> Callable[[str], None] | None:
        """Takes the reason when the store is full; None: it is kept and tried again."""
        act = self.act
        can_be = act.puts if isinstance(act, Exchange) else isinstance(act, _GROWS)
        return self._refuse if can_be else None

    def failed(self, error: Exception) -> None:
        """It could not be done."""
        self.desk.fail(self, error)

    def forget(self) -> None:
        """It holds nothing that has to be let go."""

    def _refuse(self, text: str) -> None:
        self.desk.refuse(self, text)
