"""The listener that standard-library clients connect to, and what its connections share.

Each connection is a taker; what keeps the queues is the door's backing.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from multihost.server.gateway import FailureLog
from multihost.server.managers.backing import Backing
from multihost.server.managers.connection import Connection
from multihost.server.managers.departure import Departures
from multihost.server.managers.options import ManagersOptions
from multihost.server.managers.realm import Realm

MAX_CONNECTIONS = 10_000
BACKLOG = 512
EXHAUSTED_S = 0.5
"""Pause when the system has no descriptor or memory for another connection."""
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer's host that vanished is noticed within 30 s."""


class Door:
    """Accepts connections and owns them."""

    def __init__(self, backing: Backing, realms: Mapping[bytes, Realm]) -> None:
        """Let in who knows a key of ``realms``, into that realm."""
        self.backing = backing
        self.realms = realms
        self.failures = FailureLog()
        self.departures = Departures()
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections of a socket that is bound; it is closed at the end."""
        self._listener = listener
        await self.backing.begin()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    @property
    def address(self) -> Any:
        """Where it listens."""
        assert self._listener is not None
        return self._listener.getsockname()

    async def stop(self) -> None:
        """Accept nothing more and close every connection."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        if self._listener is not None:
            self._listener.close()
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

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(EXHAUSTED_S)
                continue
            if len(self.connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            _tune(sock)
            connection = Connection(self, sock)
            self.connections.add(connection)
            try:
                await loop.connect_accepted_socket(lambda made=connection: made, sock)  # type: ignore[misc]
            except OSError:
                self.connections.discard(connection)  # it has hung up already
                sock.close()


def _tune(sock: socket.socket) -> None:
    """Send at once, and notice a peer that vanished."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def make_door(backing: Backing, options: ManagersOptions, key: bytes) -> Door:
    """The door that ``options`` describe; without authkeys of its own it opens to ``key``."""
    realms = {
        authkey: Realm(f"{tenant}/" if tenant else "", options.objects, options.on_shutdown)
        for tenant, authkey in options.keys or (("", key),)
    }
    return Door(backing, realms)
