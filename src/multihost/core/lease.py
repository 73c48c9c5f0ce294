"""When a lease ends.

A lease belongs to a worker's *session*, not to a task: one heartbeat renews
all that the session holds, however long each task runs. The table below
lives in the memory of the server and is told a monotonic time; nothing of it
is ever stored as an instant, so no two clocks are ever compared.
"""

from dataclasses import dataclass, field

HEARTBEAT_S = 5.0
"""A peer sends at least one frame in this time."""
LEASE_S = 30.0
"""A session that was silent for so long has lost its leases."""
GRACE_S = 2.0
"""A session whose connection was closed has so long to come back."""
MARGIN_S = 5.0
"""A worker that could not renew stops its tasks so long before the lease ends."""
PAUSE_S = 1.0
"""If the server itself slept so much longer than it asked, silence is its own fault."""


@dataclass(slots=True)
class LeaseTable:
    """Deadlines of the sessions that hold leases.

    Invariant: a session in the table has exactly one deadline; one that is not
    in it holds nothing.
    """

    lease_s: float = LEASE_S
    grace_s: float = GRACE_S
    _deadlines: dict[int, float] = field(default_factory=dict)

    def renew(self, session: int, now: float) -> None:
        """Give ``session`` a full lease from ``now``."""
        self._deadlines[session] = now + self.lease_s

    def expect(self, session: int, now: float, for_s: float) -> None:
        """Give a session that is not here so long to come."""
        self._deadlines[session] = now + for_s

    def disconnect(self, session: int, now: float) -> None:
        """Shorten the lease of a session whose connection was closed to the grace."""
        if session in self._deadlines:
            self._deadlines[session] = min(self._deadlines[session], now + self.grace_s)

    def end(self, session: int) -> None:
        """Forget a session that said goodbye."""
        self._deadlines.pop(session, None)

    def expired(self, now: float) -> list[int]:
        """Take out and return the sessions whose time is up."""
        gone = [session for session, deadline in self._deadlines.items() if deadline <= now]
        for session in gone:
            del self._deadlines[session]
        return gone

    def extend(self, gap_s: float) -> None:
        """Move every deadline by ``gap_s``: the server was away, not the workers."""
        for session in self._deadlines:
            self._deadlines[session] += gap_s

    def next_deadline(self) -> float | None:
        """Earliest deadline, or None when nobody holds a lease."""
        return min(self._deadlines.values(), default=None)

    def __contains__(self, session: object) -> bool:
        """Whether ``session`` may still hold leases."""
        return session in self._deadlines


def must_stop_at(last_acknowledged_sent_at: float, lease_s: float = LEASE_S) -> float:
    """When a worker that can't renew has to stop its tasks, on its own clock."""
    return last_acknowledged_sent_at + lease_s - min(MARGIN_S, lease_s / 4)
