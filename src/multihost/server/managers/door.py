"""The listener that standard-library clients connect to, and what its connections share.

All connections are takers of one session of the server's own. It begins anew
with each start: connections do not outlive the process, so what those of
the last run held goes to others at once.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any

from multihost.core.ids import make_uid
from multihost.runtime import clock
from multihost.server.gateway import FailureLog
from multihost.server.managers.connection import Connection
from multihost.server.managers.departure import Departures
from multihost.server.managers.options import ManagersOptions
from multihost.server.managers.realm import Realm
from multihost.server.services import Services
from multihost.store.base import SessionInfo, Store
from multihost.wire.message import Role

SESSION_NAME = "managers"
MAX_CONNECTIONS = 10_000
BACKLOG = 512
EXHAUSTED_S = 0.5
"""Pause when the system has no descriptor or memory for another connection."""
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer's host that vanished is noticed within 30 s."""


class Door:
    """Accepts connections and owns them."""

    def __init__(self, services: Services, realms: Mapping[bytes, Realm]) -> None:
        """Let in who knows a key of ``realms``, into that realm."""
        self.services = services
        self.realms = realms
        self.failures = FailureLog()
        self.departures = Departures()
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.session = 0
        self._accepting: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept connections of a socket that is bound; it is closed at the end."""
        self._listener = listener
        committer = self.services.committer
        info = SessionInfo(
            make_uid(int(clock.wall() * 1000), os.urandom(10)),
            Role.CLIENT,
            name=SESSION_NAME,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

        def open_session(store: Store, now: float) -> tuple[list[int], int]:
            before = [
                row.number for row in store.sessions(Role.CLIENT) if row.info.name == SESSION_NAME
            ]
            return before, store.open_session(info, now)

        before, self.session = await committer.ask(open_session)
        for session in before:
            self.services.end_client(session)
            self.services.calls.end_session(session)
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
            await loop.connect_accepted_socket(lambda made=connection: made, sock)  # type: ignore[misc]


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


def open_door(services: Services, options: ManagersOptions, key: bytes) -> Door:
    """The door that ``options`` describe; without authkeys of its own it opens to ``key``."""
    realms = {
        authkey: Realm(f"{tenant}/" if tenant else "", options.objects, options.on_shutdown)
        for tenant, authkey in options.keys or (("", key),)
    }
    return Door(services, realms)
