"""The listener that standard-library clients connect to, and what its connections share.

Each connection is a taker; what keeps the queues is the door's backing.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from multihost.runtime import clock
from multihost.runtime.address import is_unix_socket
from multihost.server.acceptor import Acceptor
from multihost.server.admission import Admission, Arrival
from multihost.server.managers.backing import Backing
from multihost.server.managers.connection import Connection
from multihost.server.managers.departure import Departures
from multihost.server.managers.framing import MAX_MESSAGE_BYTES
from multihost.server.managers.options import ManagersOptions
from multihost.server.managers.realm import Realm

KEEPALIVE = {
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}
"""A peer's host that vanished is noticed within 30 s.

The last is in milliseconds, and for an item that was sent just then: while something is not
acknowledged no keepalive is sent, and TCP repeats it for a quarter of an hour.
"""


class DoorGate(Protocol):
    """Who is asked about authkeys."""

    def why_not(self, authkey: bytes, arrival: Arrival) -> str:
        """Why who has shown it may not come in; empty: may. Notes whose connection it is."""
        ...

    def refused(self, arrival: Arrival) -> None:
        """Somebody knew no authkey."""
        ...


class Door:
    """Accepts connections and owns them."""

    def __init__(
        self,
        backing: Backing,
        realms: Mapping[bytes, Realm],
        admission: Admission,
        context: ssl.SSLContext | None = None,
        *,
        gate: DoorGate | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """Let in who knows a key of ``realms``, into that realm, while there is room.

        With a ``context`` TLS is spoken, which the standard library's clients can't.
        ``gate``: asked about authkeys that are keys of the server.
        """
        self.backing = backing
        self.realms = realms
        self.admission = admission
        self.max_message_bytes = max_message_bytes
        self._context = context
        self._gate = gate
        self.departures = Departures()
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._acceptor: Acceptor | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections of a socket that is bound; it is closed at the end."""
        self._acceptor = Acceptor(listener, self.admission, self._connect, self._context)
        await self.backing.begin()
        self._acceptor.start()

    @property
    def address(self) -> Any:
        """Where it listens."""
        assert self._acceptor is not None
        return self._acceptor.address

    def why_not(self, authkey: bytes, connection: Connection) -> str:
        """Why who knows ``authkey`` may not come in all the same; empty: may."""
        return "" if self._gate is None else self._gate.why_not(authkey, connection.arrival)

    def refused(self, connection: Connection) -> None:
        """A client knew no authkey: its address's next attempts may have to wait."""
        self.admission.failures.note(connection.arrival.address, clock.mono())
        if self._gate is not None:
            self._gate.refused(connection.arrival)

    async def stop(self) -> None:
        """Accept nothing more and close every connection."""
        if self._acceptor is not None:
            self._acceptor.stop()
        for task in list(self.tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()
        # Their ends are noticed in the next turn: what was staged goes out now.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for realm in self.realms.values():
            if realm.host is not None:
                realm.host.close()

    def _connect(self, arrival: Arrival, sock: socket.socket) -> Connection:
        _keep_alive(sock)
        return Connection(self, arrival, sock)


def _keep_alive(sock: socket.socket) -> None:
    """Notice a peer that vanished."""
    if is_unix_socket(sock):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def make_door(
    backing: Backing,
    options: ManagersOptions,
    key: bytes,
    admission: Admission | None = None,
    context: ssl.SSLContext | None = None,
    *,
    gate: DoorGate | None = None,
) -> Door:
    """The door that ``options`` describe; without authkeys of its own it opens to ``key``."""
    realms = {
        authkey: Realm(f"{tenant}/" if tenant else "", options.objects, options.on_shutdown)
        for tenant, authkey in options.keys or (("", key),)
    }
    return Door(
        *(backing, realms, admission or Admission(), context),
        gate=gate,
        max_message_bytes=options.max_message_bytes,
    )
