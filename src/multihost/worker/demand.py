"""What the server is told of a worker's room, and of the children that it has."""

from typing import Protocol

from multihost.wire import message as m
from multihost.worker import feed
from multihost.worker.leases import Leases
from multihost.worker.options import UNSETTLED_BYTES
from multihost.worker.outbox import Outbox
from multihost.worker.processes import Processes
from multihost.worker.roster import Roster


class Line(Protocol):
    """The connection, as far as demand needs it."""

    round_trip_s: float

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent right now."""
        ...

    def send(self, message: m.Message) -> None:
        """Send a message."""
        ...


class Demand:
    """Asks for leases.

    Invariant: ``told`` is the room that the server believes in; it is told of more before the
    slots run dry, and of less before it hands out here what others could run.
    """

    def __init__(
        self, line: Line, roster: Roster, leases: Leases, processes: Processes, outbox: Outbox
    ) -> None:
        """Ask over ``line`` for what the others have room for."""
        self.told = 0
        self._told_children = -1
        """``roster.changes`` when the server was told of the children."""
        self._line = line
        self._roster = roster
        self._leases = leases
        self._processes = processes
        self._outbox = outbox

    @property
    def in_hand(self) -> int:
        """Works that slots run or wait for."""
        return len(self._leases.works) - len(self._processes)

    def has_idle_slot(self) -> bool:
        """Whether a slot has nothing to do."""
        return self.in_hand < self._roster.width

    @property
    def is_inviting(self) -> bool:
        """Whether more may come than slots can begin while others are at work."""
        return self.in_hand > 0 and self.told > self._roster.width

    def forget(self) -> None:
        """The connection is another, or none: what was told there is told again."""
        self.told, self._told_children = 0, -1

    def tell(self) -> None:
        """Say what has changed, as far as it is worth saying."""
        line, roster = self._line, self._roster
        if not line.is_connected:
            return
        if self._outbox.size_bytes <= UNSETTLED_BYTES:
            pace = roster.pace
            pace.round_trip_s = line.round_trip_s
            slots, ahead = roster.width, pace.fetched if roster.may_hurry else 0
            room = feed.room(slots, ahead, self.in_hand)
            if feed.is_worth_saying(room, self.told, slots, ahead):
                self.told = room
                line.send(m.Want(room))
        if self._told_children != roster.changes:
            self._told_children = roster.changes
            children = [
                m.Child(slot.pid, (slot.context or "").partition("+")[0])
                for slot in roster.children
            ]
            line.send(m.Children(children))
