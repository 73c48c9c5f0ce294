"""How far ahead of need tasks are fetched and fed: decided here, without I/O.

Tiny tasks must not wait for the network, and long ones must not sit behind
each other while another slot is free. Both follow from how long tasks take
lately: about ``AHEAD_S`` worth of work is kept in hand for each slot, and from a
server that is far away as much more as the slot gets through while it answers.
"""

AHEAD_S = 0.010
MAX_AHEAD = 1024
"""Tasks kept in hand for one slot at most: as many as it runs while the server, busy with many
clients, takes outcomes and hands out the next."""
MAX_AHEAD_BYTES = 16 << 20
"""Of their arguments."""
STUCK_S = 0.020
"""A task that ran so long has what was fed behind it taken back."""
HOARD_S = 0.100
"""How long every slot has to be busy until tasks in hand go back to a near server."""
NEAR_S = 0.005
"""A server that answers sooner is as good as here."""
WEIGHT = 0.1


class Pace:
    """How long tasks take lately, and how large they are.

    A long or a large one counts at once, short and small ones slowly.
    """

    def __init__(self) -> None:
        """Assume nothing: until a task has ended, none is fed ahead."""
        self.run_s: float | None = None
        self.size_bytes = 0.0
        self.round_trip_s = 0.0
        """How long the server takes to answer lately."""

    def note(self, run_s: float, size_bytes: int = 0) -> None:
        """A task with arguments of ``size_bytes`` took ``run_s``."""
        self.size_bytes += WEIGHT * (size_bytes - self.size_bytes)
        self.size_bytes = max(self.size_bytes, size_bytes)
        if self.run_s is None or run_s > self.run_s * 10:
            self.run_s = run_s
        else:
            self.run_s += WEIGHT * (run_s - self.run_s)

    def slow_down(self, run_s: float) -> None:
        """A task has been running for ``run_s`` and goes on."""
        self.run_s = max(run_s, self.run_s or 0.0)

    @property
    def ahead(self) -> int:
        """Tasks to feed to each slot, beyond the one it runs."""
        return self._tasks_in(AHEAD_S)

    @property
    def fetched(self) -> int:
        """Tasks to have here for each slot, beyond the one it runs."""
        return self._tasks_in(AHEAD_S + self._way_s)

    @property
    def hoard_s(self) -> float:
        """When every slot has been busy so long, tasks in hand are given back to the server."""
        return HOARD_S + self._way_s

    @property
    def _way_s(self) -> float:
        """What to be ahead of a far server: room is told when half of it is there."""
        return 2 * self.round_trip_s if self.round_trip_s > NEAR_S else 0.0

    def _tasks_in(self, time_s: float) -> int:
        if self.run_s is None or self.run_s > time_s:
            return 0
        most = min(MAX_AHEAD, int(MAX_AHEAD_BYTES / max(self.size_bytes, 1.0)))
        return min(most, int(time_s / max(self.run_s, 1e-6)))


def room(slots: int, ahead: int, in_hand: int) -> int:
    """Leases to ask for: enough to fill every slot and what is kept ahead of it."""
    return max(0, slots * (1 + ahead) - in_hand)


def is_worth_saying(room: int, told: int, slots: int, ahead: int) -> bool:
    """Whether the server should hear of new room: not once a task, but before it runs dry.

    Nor may it believe in much more room than there is, or it hands out here, over
    and over, what other workers could run.
    """
    if room <= told:
        return 2 * room < told
    return told == 0 or room - told >= max(1, slots * (1 + ahead) // 2)
