"""Connections of a manager's clients: the standard library's, without their waits.

The standard library's handshake writes twice in a row, and TCP holds the
second back until the first is acknowledged; here every write goes at once. A
connection can tell, without a round trip, that its other end is gone.
"""

import os
import socket
from multiprocessing import connection as standard
from typing import Any

from multihost.errors import AuthenticationError

_PEEK = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)


class Wire:
    """A connection to a manager, with the socket below it in reach."""

    def __init__(self, connection: Any, sock: socket.socket | None) -> None:
        """Wrap ``connection``; ``sock`` is a duplicate of its descriptor."""
        self._connection = connection
        self._socket = sock
        self.send = connection.send
        self.recv = connection.recv
        self.poll = connection.poll
        self.fileno = connection.fileno

    def is_stale(self) -> bool:
        """Whether the other end has hung up since the last answer."""
        if self._socket is None or not hasattr(socket, "MSG_DONTWAIT"):
            return False
        try:
            self._socket.recv(1, _PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True  # nothing is to come unasked: this is the end of the stream

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._connection.close()

    def __del__(self) -> None:
        # The standard library drops connections without closing them.
        if self._socket is not None:
            self._socket.close()


def connect(address: Any, authkey: bytes | None = None) -> Wire:
    """A connection to a manager's server, after the handshake.

    Raises AuthenticationError for a wrong authkey, OSError when nobody answers.
    """
    connection = standard.Client(address)
    sock = None
    try:
        if os.name == "posix":
            sock = socket.socket(fileno=os.dup(connection.fileno()))
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if authkey is not None:
            standard.answer_challenge(connection, authkey)
            standard.deliver_challenge(connection, authkey)
    except standard.AuthenticationError as error:  # type: ignore[attr-defined]
        _close(connection, sock)
        raise AuthenticationError(
            f"the manager at {address!r} has another authkey ({error}); use the same on both sides"
        ) from None
    except BaseException:
        _close(connection, sock)
        raise
    return Wire(connection, sock)


def _close(connection: Any, sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
    connection.close()
