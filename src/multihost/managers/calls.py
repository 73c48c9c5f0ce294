"""Calls on a manager's objects, each done once though connections break.

A call over a connection that has broken is made again over a new one where
that can't do it twice; the standard library keeps the dead connection for ever.
What was held through the old connection is another's by then, and what is put
for it is void: that is how take, compute, put stays exact.
"""

import io
import os
import queue as standard_queue
import socket
import threading
import time
from collections.abc import Mapping
from multiprocessing import managers as standard
from multiprocessing import process
from typing import Any

from multihost.errors import ConnectionLost
from multihost.managers.endings import watch_end
from multihost.managers.wires import WRITER, Wire

QUEUE_PREFIX = "q:"
"""Idents of durable queues begin so."""
TAKE = "#TAKE"
"""``get``, answered with the item's number beside it."""
AGAIN = frozenset({"qsize", "empty", "full", "join"})
"""Calls on a queue that may be made again when nobody knows whether they were done."""
PUTS = frozenset({"put", "put_nowait"})
FRESH = "fresh"
"""Held by a connection: an item, and nothing was put since; else the time of the first put."""
VOID = "void"
"""Lost by a thread: the item that was held is another's, and so is what comes of it."""
UNKNOWN = "unknown"
"""Lost: something was put lately, and perhaps kept, perhaps not."""
UNSENT, NUMBERED, SENT = range(3)
"""How far a put had come when the connection broke; NUMBERED: the server does it once."""
STAGED_S = 0.5
"""What was put so long ago is kept for sure, with its item."""
PATIENCE_S = 5.0
"""How long a server that was there before is waited for."""
RETRY_S = 0.05

_BROKEN = (EOFError, ConnectionError, OSError)
_standard: Any = standard


class CallingProxy(standard.BaseProxy):
    """How a proxy calls its object, over the connection of the thread that it is used in.

    What a thread holds of a durable queue, or has lost with a connection, is noted beside
    that connection: all proxies of a thread for one manager share it.
    """

    _token: Any
    _id: Any
    _authkey: Any
    _tls: Any
    _Client: Any

    # calls ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        name = process.current_process().name
        if threading.current_thread() is not threading.main_thread():
            name += "|" + threading.current_thread().name
        wire = self._Client(self._token.address, authkey=self._authkey)
        _standard.dispatch(wire, None, "accept_connection", (name,))
        self._tls.connection = wire
        watch_end()

    def _callmethod(
        self, methodname: str, args: tuple[Any, ...] = (), kwds: Mapping[Any, Any] = {}
    ) -> Any:
        """Call a method of the object and return its result; raises what it raised."""
        tls = self._tls
        wire = getattr(tls, "connection", None)
        if isinstance(wire, Wire) and wire.is_stale():
            self._drop(wire)
            self._reconnect(PATIENCE_S, EOFError())
        elif wire is None:
            self._connect()
        if not self._id_is_queue():
            return self._call(methodname, args, kwds)
        if methodname in PUTS:
            return self._put(methodname, args, kwds)
        if methodname == "get":
            return self._take(*_bound(*args, **kwds))
        if methodname == "get_nowait":
            return self._take(0.0)
        if methodname in AGAIN:
            return self._ask_again(methodname, args, kwds)
        return self._call(methodname, args, kwds)

    def _call(
        self,
        method: str,
        args: tuple[Any, ...] = (),
        kwds: Mapping[Any, Any] = {},
        message: Any = None,
    ) -> Any:
        """Say it and return what is answered; a connection that breaks is forgotten."""
        wire = self._tls.connection
        try:
            if message is not None:
                wire.send_bytes(message)
            else:
                wire.send((self._id, method, args, kwds))
            kind, result = wire.recv()
        except _BROKEN:
            self._drop(wire)
            raise
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy(*result)
        raise _standard.convert_to_error(kind, result)

    def _ask_again(self, method: str, args: tuple[Any, ...], kwds: Mapping[Any, Any]) -> Any:
        """A call on a queue that may be made over and over until it is answered."""
        while True:
            try:
                return self._call(method, args, kwds)
            except _BROKEN as error:
                if getattr(self._tls, "connection", None) is not None:
                    raise  # the object's own error, not the connection's
                self._reconnect(PATIENCE_S, error)

    def _take(self, timeout_s: float | None) -> Any:
        """The next item; one that this thread had when the connection broke is done with."""
        tls = self._tls
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                number, item = self._ask_again(TAKE, (True, left_s), {})
            except standard_queue.Empty:
                tls.connection.held = tls.lost = None
                raise
            had, tls.had = getattr(tls, "had", None), number
            is_known = number == had and getattr(tls, "lost", None) == VOID
            tls.connection.held, tls.lost = FRESH, None
            if not is_known:
                return item

    def _put(self, method: str, args: tuple[Any, ...], kwds: Mapping[Any, Any]) -> Any:
        """Put, once: what is made of an item that was lost is void."""
        tls = self._tls
        lost = getattr(tls, "lost", None)
        if lost == VOID:
            tls.had = None  # it is to be done again, perhaps here
            return None
        tls.lost = None
        if lost == UNKNOWN:
            raise self._unknown()
        try:
            result = self._put_once(method, args, kwds)
        except _BROKEN as error:
            if getattr(tls, "connection", None) is not None:
                raise
            self._reconnect(PATIENCE_S, error)
            if tls.lost == VOID:
                tls.had = None
                return None  # it came with its item or not at all; if not, another makes it
            is_unknown, tls.lost = tls.lost == UNKNOWN, None
            if is_unknown or tls.put_state == SENT:
                raise self._unknown() from error
            # The server knows the number of this put, and whether it was done.
            tls.written -= tls.put_state == NUMBERED
            result = self._put_once(method, args, kwds)
        if tls.connection.held == FRESH:
            tls.connection.held = time.monotonic()
        return result

    def _put_once(self, method: str, args: tuple[Any, ...], kwds: Mapping[Any, Any]) -> Any:
        tls = self._tls
        wire = tls.connection
        message = _pickled((self._id, method, args, kwds))
        tls.put_state = UNSENT
        if wire.is_writer is None:
            self._say_writer(wire)
        tls.put_state = NUMBERED if wire.is_writer else SENT
        tls.written += 1
        return self._call(method, message=message)

    def _say_writer(self, wire: Any) -> None:
        """Tell the server who puts here, and how often it has."""
        tls = self._tls
        if not hasattr(tls, "writer"):
            tls.writer, tls.written = os.urandom(16).hex(), 0
        name = f"{process.current_process().name}@{socket.gethostname()}"
        try:
            wire.send((None, WRITER, (tls.writer, name, tls.written), {}))
            wire.is_writer = wire.recv() == ("#RETURN", True)
        except _BROKEN:
            self._drop(wire)
            raise

    def _unknown(self) -> ConnectionLost:
        return ConnectionLost(
            str(self._token.address),
            "the server went away about the time of a put(), and it is not known whether the "
            "item is in the queue; look there before you put it again",
        )

    def _id_is_queue(self) -> bool:
        ident = self._id
        return isinstance(ident, str) and ident.startswith(QUEUE_PREFIX)

    # broken connections ----------------------------------------------------------------------

    def _drop(self, wire: Any) -> None:
        """Forget a connection that has broken, and with it what was held through it."""
        tls = self._tls
        if getattr(tls, "connection", None) is wire:
            del tls.connection
        held = getattr(wire, "held", None)
        wire.close()
        if held == FRESH:
            tls.lost = VOID
        elif held is not None and time.monotonic() - held < STAGED_S:
            tls.lost = UNKNOWN

    def _reconnect(self, patience_s: float, broken: Exception) -> None:
        """Connect again; after ``patience_s`` in vain raise, EOFError if that is how it broke."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._connect()
            except _BROKEN as error:
                if time.monotonic() >= deadline:
                    if isinstance(broken, EOFError):  # what programs expect of a manager that ends
                        raise EOFError(
                            f"the manager at {self._token.address!r} hung up, and could not be "
                            f"reached for {patience_s:g} s ({error})"
                        ) from None
                    raise
                threading.Event().wait(RETRY_S)
            else:
                return

    def _tell(self, what: str, ident: str) -> None:
        wire = self._Client(self._token.address, authkey=self._authkey)
        try:
            _standard.dispatch(wire, None, what, (ident,))
        finally:
            wire.close()

    def _proxy(self, exposed: Any, token: Any) -> Any:
        """A proxy of what a call has returned; the class that makes proxies knows how."""
        raise NotImplementedError


def _pickled(thing: Any) -> bytes:
    buffer = io.BytesIO()
    _standard.reduction.ForkingPickler(buffer).dump(thing)
    return buffer.getvalue()


def _bound(block: object = True, timeout: float | None = None) -> tuple[float | None]:  # noqa: FBT002 - the standard library's signature
    """The seconds that a ``get`` waits; None: as long as it takes."""
    if not block:
        return (0.0,)
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return (timeout,)
