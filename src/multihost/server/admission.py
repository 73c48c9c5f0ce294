"""Who may connect: how many, from where, and how long before they have shown the key.

Every listener of a server shares one ``Admission``. Whoever has not shown the
key gets a small part of the descriptors and ten seconds; when that part is used
up, the connection that has been silent for longest makes room. So strangers can
keep each other out, never a worker or a client, which shows its key within
milliseconds. Knows nothing of what is said on a connection.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Collection
from itertools import islice
from typing import Protocol

from multihost.server.patience import FailureLog

HANDSHAKE_S = 10.0
"""From connecting until the key is shown, whatever is spoken."""
MAX_CONNECTIONS = 10_000
"""Connections that have shown the key, on all ports; fewer where descriptors are scarce."""
UNPROVED = 2_048
"""Connections that have not shown the key yet."""
UNPROVED_PER_ADDRESS = 512
"""As above, from one IPv4 address or one /64 of IPv6."""
RESERVED_DESCRIPTORS = 128
"""For the store, blobs and logs."""
IPV6_NETWORK_BITS = 64
"""What one owner of IPv6 addresses has at least."""


class Line(Protocol):
    """What can be hung up: a transport, or whatever stands in for it."""

    def abort(self) -> None:
        """Close at once."""
        ...


class Arrival:
    """One connection, from the moment it is accepted until it is gone.

    Invariant: it is counted exactly once, as unproved or as proved, until ``left``.
    """

    __slots__ = ("_deadline", "address", "admission", "is_gone", "is_proved", "key", "line")

    def __init__(self, admission: "Admission", address: str) -> None:
        """Begin as a stranger from ``address``."""
        self.admission = admission
        self.address = address
        self.line: Line | None = None
        self.is_proved = False
        self.is_gone = False
        self.key = ""
        """Id of the key that was shown last."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_S, self.hang_up)

    def prove(self) -> bool:
        """The key was shown. False: there are as many such connections as there may be."""
        return self.is_proved or (not self.is_gone and self.admission._prove(self))

    def left(self) -> None:
        """The connection is gone."""
        if not self.is_gone:
            self.is_gone = True
            self._deadline.cancel()
            self.admission._forget(self)

    def hang_up(self) -> None:
        """Close the connection at once."""
        self.left()
        if self.line is not None:
            self.line.abort()


class Admission:
    """Counts connections, and makes room among those that have not shown the key."""

    def __init__(self, descriptors: int | None = None) -> None:
        """Share out so many file descriptors; None: there are enough."""
        self.failures = FailureLog()
        self.max_connections = MAX_CONNECTIONS
        self.max_unproved = UNPROVED
        if descriptors is not None:
            spare = max(8, descriptors - RESERVED_DESCRIPTORS)
            self.max_unproved = min(UNPROVED, spare // 4)
            self.max_connections = min(MAX_CONNECTIONS, spare - self.max_unproved)
        self.max_per_address = min(UNPROVED_PER_ADDRESS, max(4, self.max_unproved // 2))
        self.proved: set[Arrival] = set()
        self._unproved: OrderedDict[Arrival, None] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Arrival, None]] = {}

    @property
    def unproved(self) -> int:
        """Connections that have not shown the key."""
        return len(self._unproved)

    @property
    def why_full(self) -> str:
        """What is told to who has the key and finds no place."""
        return (
            f"the server has its {self.max_connections} connections (max_connections); close some, "
            "or allow it more open files (ulimit -n), of which each takes one, up to "
            f"{MAX_CONNECTIONS} connections"
        )

    def arrive(self, address: str) -> Arrival:
        """A connection was accepted; older strangers may have to go for it."""
        group = group_of(address)
        neighbours = self._by_address.get(group)
        if neighbours is not None and len(neighbours) >= self.max_per_address:
            next(iter(neighbours)).hang_up()
        elif len(self._unproved) >= self.max_unproved:
            next(iter(self._unproved)).hang_up()
        arrival = Arrival(self, group)
        self._unproved[arrival] = None
        self._by_address.setdefault(group, OrderedDict())[arrival] = None
        return arrival

    def make_room(self) -> None:
        """The system has no descriptor left: the older strangers give theirs back."""
        for arrival in list(islice(self._unproved, 1 + len(self._unproved) // 4)):
            arrival.hang_up()

    def cut(self, keys: Collection[str], spared: Arrival | None = None) -> None:
        """These keys are not taken any more: hang up on who came in with one."""
        for arrival in list(self.proved):
            if arrival.key in keys and arrival is not spared:
                arrival.hang_up()

    # within ------------------------------------------------------------------------

    def _prove(self, arrival: Arrival) -> bool:
        if len(self.proved) >= self.max_connections:
            return False
        self._forget(arrival)
        arrival._deadline.cancel()
        arrival.is_proved = True
        self.proved.add(arrival)
        return True

    def _forget(self, arrival: Arrival) -> None:
        if arrival.is_proved:
            self.proved.discard(arrival)
            return
        self._unproved.pop(arrival, None)
        neighbours = self._by_address.get(arrival.address)
        if neighbours is not None:
            neighbours.pop(arrival, None)
            if not neighbours:
                del self._by_address[arrival.address]


def group_of(address: str) -> str:
    """Whom an address stands for: itself, or the /64 of an IPv6 one."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, IPV6_NETWORK_BITS), strict=False))
