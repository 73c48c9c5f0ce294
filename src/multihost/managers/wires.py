"""Connections of a manager's clients: the standard library's, without their waits.

The standard library's handshake writes twice in a row, and TCP holds the
second back until the first is acknowledged; here every write goes at once. A
connection can tell, without a round trip, that its other end is gone.
"""

import contextlib
import gc
import os
import socket
from multiprocessing import connection as standard
from typing import Any

from multihost.errors import AuthenticationError
from multihost.managers.listening import is_secured

END = "#END"
"""Says that a client ends in good order; the standard library's say nothing."""
WRITER = "#WRITER"
"""Says who a client is, so that what it puts again after a break is not put twice."""
END_S = 1.0
"""How long a server may take to hear it."""
_PEEK = socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)


class Wire:
    """A connection to a manager, with the socket below it in reach."""

    def __init__(self, connection: Any, sock: socket.socket | None) -> None:
        """Wrap ``connection``; ``sock`` is a duplicate of its descriptor."""
        self.held: object = None
        """What its thread has in its hands: see ``calls``; None: nothing."""
        self.has_failed = False
        """Its thread ends with an exception."""
        self.is_writer: bool | None = None
        """Whether the server knows who puts here; None: not told yet."""
        self._pid = os.getpid()
        self._connection = connection
        self._socket = sock
        self.send = connection.send
        self.send_bytes = connection.send_bytes
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

    def end(self) -> None:
        """Hang up in good order: what was taken last is done with."""
        # In a fork it is the parent's connection, and for the parent to speak through.
        if self.held is not None and not self.has_failed and self._pid == os.getpid():
            self.held = None
            with contextlib.suppress(EOFError, OSError):  # nobody is there to be told
                self.send((None, END, (), {}))
                if self.poll(END_S):
                    self.recv()
        self.close()

    def close(self) -> None:
        """Hang up, and leave to others what is held."""
        self.held = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._connection.close()

    def __del__(self) -> None:
        # Its thread has ended, or the standard library dropped it without closing it.
        if gc.is_finalized(self._connection):
            # With this in a cycle, and closed first: its number may be another's by now.
            if self._socket is not None:
                self._socket.close()
            return
        self.end()


def connect(address: Any, authkey: bytes | None = None) -> Wire:
    """A connection to a manager's server, after the handshake.

    Raises AuthenticationError for a wrong authkey or certificate, OSError when
    nobody answers.
    """
    connection: Any
    if is_secured(address):
        from multihost.managers.secure_wires import connect_tls

        connection = connect_tls(*address)
    else:
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
