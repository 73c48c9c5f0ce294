"""Whether a client that hung up while it held an item was done with it.

The standard library's clients say no goodbye: the socket closes, after the
last line of the program and after kill -9 alike. But a program that ends in
order first gives up its references (``decref``), each over a connection of its
own, and hangs up while the last of these is still open; one that is killed
does not. Together with what the connection was used for that tells readers,
whose last item is done with when they end, from workers that fell between
taking an item and putting what they made of it. In doubt the item goes to
another: nothing is lost, at the price of a repetition.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

GOODBYE_S = 1.0
"""References given up so long ago at most belong to a connection that closes now."""
SETTLE_S = 0.1
"""Wait before deciding, to see what else closes."""
OVERTAKING_S = 0.005
"""By so much the ends of two connections may be seen in the wrong order."""
MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class Visit:
    """A connection over which a reference was given up."""

    host: str
    ident: str
    at: float
    closed_at: float | None = None
    is_claimed: bool = False

    def is_last_of(self, leaver: "Leaver") -> bool:
        """Whether the other connection was hung up within this visit."""
        return (
            not self.is_claimed
            and self.host == leaver.host
            and self.at <= leaver.at
            and (self.closed_at is None or self.closed_at >= leaver.at - OVERTAKING_S)
        )


@dataclass(frozen=True, slots=True)
class Leaver:
    """A connection that closed while it held an item."""

    host: str
    at: float
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

    _visits: deque[Visit] = field(default_factory=lambda: deque(maxlen=MAX_REMEMBERED))
    _created: Counter[tuple[str, str]] = field(default_factory=Counter)
    _leavers: list[Leaver] = field(default_factory=list)

    def created(self, host: str, ident: str) -> None:
        """A client at ``host`` had an object made: it gives up one reference right after."""
        self._created[host, ident] += 1

    def gave_up(self, host: str, ident: str, now: float) -> Visit | None:
        """A client at ``host`` gave up a reference; the visit, unless that was to be expected."""
        if self._created[host, ident] > 0:
            self._created[host, ident] -= 1
            return None
        del self._created[host, ident]
        visit = Visit(host, ident, now)
        self._visits.append(visit)
        return visit

    def left(self, leaver: Leaver) -> None:
        """A connection closed; ``settle`` decides about it, SETTLE_S later."""
        self._leavers.append(leaver)

    def settle(self, now: float) -> None:
        """Decide about all that closed long enough ago."""
        while self._visits and now - self._visits[0].at > GOODBYE_S + 2 * SETTLE_S:
            self._visits.popleft()
        due = [leaver for leaver in self._leavers if now - leaver.at >= SETTLE_S]
        self._leavers = [leaver for leaver in self._leavers if now - leaver.at < SETTLE_S]
        for leaver in due:
            leaver.end(self._is_goodbye(leaver))

    def _is_goodbye(self, leaver: Leaver) -> bool:
        last = next((visit for visit in self._visits if visit.is_last_of(leaver)), None)
        if last is None:
            return False
        given_up = {
            visit.ident
            for visit in self._visits
            if visit.host == leaver.host and 0 <= leaver.at - visit.at <= GOODBYE_S
        }
        if not leaver.took_from | leaver.put_to <= given_up:
            return False
        last.is_claimed = True
        # It could have put what it made somewhere, and never put but in answer: a worker.
        return leaver.has_begun or given_up <= leaver.took_from
