"""Outcomes of a series of tasks on their way to the one who iterates.

The event-loop thread puts them in, in whatever order they come; the consumer
takes them out, in order or as they came. Putting takes no lock unless somebody
waits.
"""

import contextlib
import threading
import time
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable
from functools import partial

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
        """Held to take something."""
        self._waiters: deque[LockType] = deque()
        """Locks of those who wait or are about to; of one that was interrupted it does no harm."""
        self._waiting_for: int | None = None

    def wake(self) -> None:
        """Wake who waits. One that is about to wait sees what came, for it looks again."""
        waiters = self._waiters
        while waiters:
            try:
                waiter = waiters.popleft()
            except IndexError:  # another thread wakes them, too
                return
            waiter.release()

    def wait_arrived(self, count: int, is_over: Callable[[], bool]) -> None:
        """Wait until ``count`` outcomes have come, or ``is_over`` once something changes."""
        self._waiting_for = count
        self._wait_until(lambda: self.arrived >= count or is_over())
        self._waiting_for = None

    def put(self, position: int, item: Item) -> None:
        """Keep what there is for a position, and let the one who feeds go on."""
        super().put(position, item)
        if self._waiting_for is not None and self.arrived >= self._waiting_for:
            self.stir()

    def stir(self) -> None:
        """Have all who wait look again."""
        self.wake()

    def take(self, timeout_s: float | None = None) -> Item:
        """The next outcome; waits for it.

        Raises StopIteration when all have been taken, TimeoutError (that of
        multiprocessing) when ``timeout_s`` is over. Whoever is interrupted takes nothing.
        """
        item, is_over, end_at = None, False, None
        try:
            while True:
                with self._lock:
                    item = self.pop()
                if item is not None:
                    if self._waiters:  # for others there may be the one behind it
                        self.wake()
                    return item
                if self.is_exhausted:
                    raise StopIteration  # noqa: TRY301 - nothing is put back
                if is_over:
                    raise WaitTimeoutError  # noqa: TRY301 - as above
                if timeout_s is not None and end_at is None:
                    end_at = time.monotonic() + timeout_s
                is_over = not self._wait_until(lambda: self.is_ready or self.is_exhausted, end_at)
        except BaseException:
            if item is not None:
                self.put_back(item)
            raise

    def put_back(self, item: Item) -> None:
        """What was taken last is the next again: whoever took it was interrupted."""
        with self._lock:
            self.taken -= 1
            if self._is_ordered:
                self._by_position[self.taken] = item
            else:
                self._as_they_came.appendleft(item)
        self.wake()

    def _wait_until(self, is_so: Callable[[], bool], end_at: float | None = None) -> bool:
        """Wait until something is so; False when it is not by ``end_at`` (monotonic).

        Without a ``Condition``: an exception of a signal's handler breaks those.
        """
        while not is_so():
            waiter = allocate_lock()
            waiter.acquire()
            self._waiters.append(waiter)
            try:
                if is_so():
                    break
                if end_at is None:
                    for_others(waiter.acquire)
                    continue
                left_s = min(max(end_at - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
                if not for_others(partial(waiter.acquire, timeout=left_s)):
                    return is_so()
            finally:
                with contextlib.suppress(ValueError):  # woken
                    self._waiters.remove(waiter)
        return True
