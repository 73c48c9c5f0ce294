"""Whether a client that hung up while it held an item was done with it.

The standard library's clients say no goodbye: the socket closes, after the
last line of the program and after kill -9 alike. But a program that ends in
order first gives up its references (``decref``), each over a connection of its
own, and one that is killed does not. Together with what the connection was
used for that tells readers, whose last item is done with when they end, from
workers that fell between taking an item and putting what they made of it. In
doubt the item goes to another: nothing is lost, at the price of a repetition.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

GOODBYE_S = 1.0
"""References given up so long ago at most belong to a connection that closes now."""
SETTLE_S = 0.05
"""Wait before deciding, to see whether others closed at the same time."""
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Leaver:
    """A connection that closed while it held an item."""

    host: str
    took_from: frozenset[str]
    """Idents of the queues it took from."""
    put_to: frozenset[str]
    """Idents of the queues it put to."""
    has_begun: bool
    """It once put something while it held nothing: it does not only answer."""
    end: Callable[[bool], None]
    """Told whether it left in good order."""


@dataclass(slots=True)
class Departures:
    """References given up lately, and connections that closed since."""

    _given_up: deque[tuple[float, str, str]] = field(
        default_factory=lambda: deque(maxlen=MAX_REMEMBERED)
    )
    _leavers: list[Leaver] = field(default_factory=list)

    def gave_up(self, host: str, ident: str, now: float) -> None:
        """A client at ``host`` gave up its reference to an object."""
        self._given_up.append((now, host, ident))

    def left(self, leaver: Leaver) -> None:
        """A connection closed; ``settle`` decides about it."""
        self._leavers.append(leaver)

    def settle(self, now: float) -> None:
        """Decide about all that closed."""
        while self._given_up and now - self._given_up[0][0] > GOODBYE_S + SETTLE_S:
            self._given_up.popleft()
        leavers, self._leavers = self._leavers, []
        for leaver in leavers:
            rivals = [other for other in leavers if other.host == leaver.host]
            leaver.end(self._is_goodbye(leaver, len(rivals)))

    def _is_goodbye(self, leaver: Leaver, rivals: int) -> bool:
        given_up = [ident for _, host, ident in self._given_up if host == leaver.host]
        used = leaver.took_from | leaver.put_to
        if any(given_up.count(ident) < rivals for ident in used):
            return False
        # It could have put what it made somewhere, and never put but in answer: a worker.
        return leaver.has_begun or set(given_up) <= leaver.took_from
