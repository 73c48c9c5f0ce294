"""Which worker may run which job.

A job states what it requires, a worker what it offers. Jobs of one queue with
the same requirement form a *lane*: the tasks in a lane are interchangeable as
to where they may run, so one look-up serves them all.
"""

import msgspec


class Requirement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job needs of the worker that runs it."""

    python: str | None = None
    """``"3.11"``: functions sent by value run only on the Python that made them."""
    host: str | None = None
    tags: tuple[str, ...] = ()
    cpus: float = 0.0
    """Reserved for the scheduler of shell jobs; 0 asks for nothing."""
    memory_bytes: int = 0
    gpus: int = 0
    context: str | None = None
    """A pool of limited width: its tasks wait in a lane of their own."""
    is_beside: bool = False
    """Runs at once, in a process beside the worker's slots: it waits for none of them."""

    def encode(self) -> str:
        """Canonical text, equal for equal requirements: the lane's name in the store."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @classmethod
    def decode(cls, text: str) -> "Requirement":
        """Requirement from what ``encode`` made."""
        return msgspec.json.decode(text, type=cls)


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker has."""

    python: str = ""
    host: str = ""
    tags: tuple[str, ...] = ()
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    processes: int = 0
    """Processes that may run beside the slots; 0: it knows nothing of such."""


def missing(need: Requirement, offer: Offer) -> str | None:
    """Why a worker with ``offer`` can't run a job with ``need``; None when it can."""
    if need.python is not None and need.python != offer.python:
        return f"it needs Python {need.python}, the worker has {offer.python or 'none'}"
    if need.host is not None and need.host != offer.host:
        return f"it needs host {need.host}, the worker is on {offer.host}"
    absent = sorted(set(need.tags) - set(offer.tags))
    if absent:
        return f"the worker lacks the tag {absent[0]!r}"
    if need.is_beside and not offer.processes:
        return "the worker runs no processes beside its slots"
    for name, wanted, has in (
        ("cpus", need.cpus, offer.cpus),
        ("bytes of memory", need.memory_bytes, offer.memory_bytes),
        ("gpus", need.gpus, offer.gpus),
    ):
        if wanted > has:
            return f"it needs {wanted:g} {name}, the worker has {has:g}"
    return None
