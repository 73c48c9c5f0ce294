"""Outcomes of a series of tasks on their way to the one who iterates.

The event-loop thread puts them in, in whatever order they come; the consumer
takes them out, in order or as they came. Putting takes no lock unless somebody
waits.
"""

import threading
from collections import deque
from collections.abc import Callable

from multihost.client.outcomes import Decoded, Raw
from multihost.core.outcome import Ending
from multihost.errors import TimeoutError as WaitTimeoutError
from multihost.runtime.waiting import for_others

Item = Raw | Decoded


class Arrivals:
    """A receiver for tasks at the positions from 0 on.

    Invariant: each position is handed out at most once, and with ``is_ordered``
    only after all below it.
    """

    def __init__(self, *, is_ordered: bool) -> None:
        """Begin empty, of unknown length."""
        self._is_ordered = is_ordered
        self._by_position: dict[int, Item] = {}
        self._as_they_came: deque[Item] = deque()
        self.taken = 0
        """Outcomes handed out."""
        self.length: int | None = None
        """Outcomes there will ever be, once known."""
        self.arrived = 0
        """Outcomes that have come."""

    # Receiver: the event-loop thread -----------------------------------------------

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """Keep an outcome until it is taken."""
        self.put(position, Raw(ending, payload))

    def refuse(self, position: int, error: BaseException) -> None:
        """Keep an error in the outcome's place."""
        self.put(position, Decoded(False, error))

    def put(self, position: int, item: Item) -> None:
        """Keep what there is for a position."""
        self.arrived += 1
        if self._is_ordered:
            self._by_position[position] = item
            if position == self.taken:
                self.wake()
        else:
            self._as_they_came.append(item)
            self.wake()

    def end(self, length: int) -> None:
        """State how many there will be."""
        self.length = length
        self.wake()

    def wake(self) -> None:
        """Tell the consumer to look again."""

    # the consumer ----------------------------------------------------------------------

    def pop(self) -> Item | None:
        """The next outcome, if it is there.

        It is taken without a call, in which a signal's handler could raise half-way.
        """
        if self._is_ordered:
            item = self._by_position.get(self.taken)
            if item is not None:
                del self._by_position[self.taken]
                self.taken += 1
        elif self._as_they_came:
            item = self._as_they_came[0]
            del self._as_they_came[0]
            self.taken += 1
        else:
            item = None
        return item

    @property
    def is_ready(self) -> bool:
        """Whether ``pop`` would find something."""
        if self._is_ordered:
            return self.taken in self._by_position
        return bool(self._as_they_came)

    @property
    def is_exhausted(self) -> bool:
        """Whether everything has been taken."""
        return self.length is not None and self.taken >= self.length


class BlockingArrivals(Arrivals):
    """Arrivals that threads can wait for."""

    def __init__(self, *, is_ordered: bool) -> None:
        """Begin empty."""
        super().__init__(is_ordered=is_ordered)
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._waiting = 0
        self._waiting_for: int | None = None

    def wake(self) -> None:
        """Wake who waits. One that is about to wait sees what came, for it looks again."""
        if self._waiting:
            with self._condition:
                self._condition.notify_all()

    def wait_arrived(self, count: int, is_over: Callable[[], bool]) -> None:
        """Wait until ``count`` outcomes have come, or ``is_over`` once something changes."""
        with self._condition:
            self._waiting_for = count
            for_others(lambda: self._condition.wait_for(lambda: self.arrived >= count or is_over()))
            self._waiting_for = None

    def put(self, position: int, item: Item) -> None:
        """Keep what there is for a position, and let the one who feeds go on."""
        super().put(position, item)
        if self._waiting_for is not None and self.arrived >= self._waiting_for:
            self.stir()

    def stir(self) -> None:
        """Have all who wait look again."""
        with self._condition:
            self._condition.notify_all()

    def take(self, timeout_s: float | None = None) -> Item:
        """The next outcome; waits for it.

        Raises StopIteration when all have been taken, TimeoutError (that of
        multiprocessing) when ``timeout_s`` is over. Whoever is interrupted takes nothing.
        """
        item = None
        try:
            with self._lock:
                item = self.pop()
                if item is None:
                    item = self._await(timeout_s)
        except BaseException:
            if item is not None:
                self.put_back(item)
            raise
        return item

    def put_back(self, item: Item) -> None:
        """What was taken last is the next again: whoever took it was interrupted."""
        with self._condition:
            self.taken -= 1
            if self._is_ordered:
                self._by_position[self.taken] = item
            else:
                self._as_they_came.appendleft(item)
            self._condition.notify_all()

    def _await(self, timeout_s: float | None) -> Item:
        self._waiting += 1
        try:
            for_others(
                lambda: self._condition.wait_for(
                    lambda: self.is_ready or self.is_exhausted, timeout_s
                )
            )
        finally:
            self._waiting -= 1
        item = self.pop()
        if item is not None:
            return item
        if self.is_exhausted:
            raise StopIteration
        raise WaitTimeoutError
