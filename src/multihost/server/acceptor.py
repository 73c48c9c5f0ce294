"""The listener's loop: accepts connections and gives each its protocol.

Not asyncio's own server, because that accepts whatever comes: it knows no
limit, and fails in a log line when the system has no descriptor left.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from multihost.runtime.address import is_unix_socket
from multihost.server.admission import HANDSHAKE_S, Admission, Arrival

BACKLOG = 2048
"""Connections that the system keeps until they are accepted."""
AT_ONCE = 16
"""Connections accepted before others of the loop have their turn."""
EXHAUSTED_S = 0.1
"""Pause when the system has no descriptor or memory for another connection."""
TLS_CLOSE_S = 2.0
"""For the other end to agree that a TLS connection is over."""

Make = Callable[[Arrival, socket.socket], asyncio.Protocol]
"""Makes the protocol of a connection that has arrived."""


class Acceptor:
    """Accepts at one socket until it is stopped; closes it then."""

    def __init__(
        self,
        listener: socket.socket,
        admission: Admission,
        make: Make,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Accept at ``listener``, which is bound; ``context``: speak TLS."""
        self._listener = listener
        self._admission = admission
        self._make = make
        self._tls: dict[str, Any] = {}
        if context is not None:
            self._tls = {
                "ssl": context,
                "ssl_handshake_timeout": HANDSHAKE_S,
                "ssl_shutdown_timeout": TLS_CLOSE_S,
            }
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Any:
        """Where it listens."""
        return self._listener.getsockname()

    def start(self) -> None:
        """Begin to accept."""
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Accept nothing more; connections that are open stay."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in list(self._opening):
            task.cancel()

    # within ------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Nobody is told: the connection stays in the system's line until there is room.
                self._admission.make_room()
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(EXHAUSTED_S, self._go_on)
                return
            arrival = self._admission.arrive(_host(address))
            task = self._loop.create_task(self._open(sock, arrival))
            arrival.line = _Opening(task)
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    async def _open(self, sock: socket.socket, arrival: Arrival) -> None:
        """Give a connection its protocol, after the TLS handshake if there is one."""
        try:
            sock.setblocking(False)
            if not is_unix_socket(sock):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            protocol = self._make(arrival, sock)
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, sock, **self._tls
            )
        except OSError:  # it has hung up already, or spoke no TLS
            arrival.left()
            sock.close()
        except asyncio.CancelledError:
            arrival.left()
            sock.close()
            raise
        else:
            arrival.line = transport
            if arrival.is_gone and not transport.is_closing():
                transport.abort()


class _Opening:
    """A connection that has no transport yet."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self._task = task

    def abort(self) -> None:
        self._task.cancel()


def _host(address: Any) -> str:
    with contextlib.suppress(TypeError, IndexError):
        if not isinstance(address, str):
            return str(address[0])
    return "local"
