"""Who waits for a task: called on the event-loop thread, once for each position."""

from typing import Protocol

from multihost.core.outcome import Ending
from multihost.errors import MultihostError


class Receiver(Protocol):
    """Takes outcomes; what a position means is its own business."""

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """The task has its outcome, still packed."""
        ...

    def refuse(self, position: int, error: MultihostError) -> None:
        """The task was not stored, or nobody knows, or its outcome can't be fetched."""
        ...


class Watcher(Receiver, Protocol):
    """A receiver that follows its tasks more closely: of a stream made with ``is_watched``."""

    def stored(self, position: int) -> None:
        """The server keeps the task."""
        ...

    def started(self, position: int) -> None:
        """The task was given to a worker."""
        ...
