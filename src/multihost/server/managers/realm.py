"""What belongs to one authkey: its queues by name, who refers to them, who hosts the rest.

An ident is how a proxy names the object it stands for. Those of queues are
made of the queue's name, so that they hold over restarts of the server; any
other ident is an object's in the host process, if there is one.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from multihost.server.managers.host import Host, OnShutdown
from multihost.wire.act import Confirm

IDENT_PREFIX = "q:"
MAX_NAME_BYTES = 200
METHODS = (
    "empty",
    "full",
    "get",
    "get_nowait",
    "join",
    "put",
    "put_nowait",
    "qsize",
    "task_done",
)
"""What a queue's proxy can call, as in ``queue.Queue``."""


@dataclass(frozen=True, slots=True)
class KnownQueue:
    """A queue that was opened since the server began."""

    number: int
    limit: int
    confirm: Confirm
    is_new: bool = False
    """It was made, not found, when it was opened."""


@dataclass(slots=True)
class Realm:
    """The world that a client with one authkey sees."""

    prefix: str = ""
    """What its queues' names begin with in the store: other realms can't be reached."""
    host: Host | None = None
    on_shutdown: OnShutdown | None = None
    """What a client's ``shutdown`` does; None: it is refused."""
    queues: dict[str, KnownQueue] = field(default_factory=dict)
    references: Counter[str] = field(default_factory=Counter)

    def is_hosted(self, typeid: str) -> bool:
        """Whether the host process knows how to make it, and it is no queue so far."""
        return self.host is not None and typeid in self.host.typeids and typeid not in self.queues

    def refer(self, ident: str) -> None:
        """One more proxy."""
        self.references[ident] += 1

    def unrefer(self, ident: str) -> None:
        """One proxy less; the queue stays, empty or not."""
        if self.references[ident] > 1:
            self.references[ident] -= 1
        else:
            del self.references[ident]


def ident_of(name: str) -> str:
    """The ident of the queue of this name."""
    return IDENT_PREFIX + name


def name_of(ident: Any) -> str | None:
    """The queue's name that an ident means, None for an ident of something else."""
    if isinstance(ident, str) and ident.startswith(IDENT_PREFIX):
        return ident[len(IDENT_PREFIX) :]
    return None
