"""Pipes between processes on any machines: two queues on the server, one each way.

An end may be held by several processes: each time it is pickled there is one
holder more. When the last one has closed it, ended or died, the other end gets
EOFError once it has read what was sent before. ``Listener`` and ``Client``
are the standard library's: two programs, an address, and no server between.
"""

import asyncio
import os
import pickle
import queue as standard
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multihost.client import client as _client  # noqa: F401 - runs what is done before exit
from multihost.client.asyncio_taker import LoopTaker
from multihost.client.handles import before_exit, wait_of
from multihost.client.packing import as_payload, pack_item
from multihost.client.pipes import End
from multihost.client.thread_taker import run
from multihost.errors import Gone, MultihostError, QueueClosed

if TYPE_CHECKING:
    from multiprocessing.connection import Client, Listener

    from multihost.client import Client as ServerClient

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]


def Pipe(  # noqa: N802 - the standard library's name
    duplex: bool = True,  # noqa: FBT001, FBT002 - its signature
    *,
    client: "ServerClient | None" = None,
) -> "tuple[Connection, Connection]":
    """Two ends that are connected; if not ``duplex`` the first only receives, the second sends.

    They live with the program that made them.
    """
    first, second = End(client), End(client)
    first.takes = second.gives = first.make_queue()
    if duplex:
        first.gives = second.takes = first.make_queue()
    return Connection(first), Connection(second)


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Those of connections, sentinels and sockets that are ready, after ``timeout`` s at most."""
    from multiprocessing import connection as local

    return local.wait(object_list, timeout)


def __getattr__(name: str) -> Any:
    """What the standard library's has, too: programs that speak at an address of their own.

    ``Listener`` and ``Client`` above all; ``deliver_challenge``, ``address_type``.
    """
    from multiprocessing import connection as local

    if name.startswith("_") or not hasattr(local, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(local, name)


class _Watch:
    """Takes one message ahead and makes a descriptor readable, for who waits with ``select``."""

    def __init__(self, end: End, ahead: list[bytes]) -> None:
        """Watch ``end``, of which ``ahead`` has been taken already."""
        assert end.takes is not None
        self._takes = end.takes
        self.readable, self._signal = os.pipe()
        self._ahead: standard.SimpleQueue[bytes | None] = standard.SimpleQueue()
        self._room = asyncio.Event()
        for data in ahead:
            self._tell(data)
        calls = end._calls()
        taker = LoopTaker(calls, calls.new_number())
        self._loop = calls.loop
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(taker), calls.loop)

    def take(self, wait_s: float | None) -> bytes:
        """The message taken ahead; raises queue.Empty, or EOFError at the end."""
        data = self._ahead.get(timeout=wait_s) if wait_s != 0 else self._ahead.get_nowait()
        if data is None:
            self._ahead.put(None)
            raise EOFError
        os.read(self.readable, 1)
        self._loop.call_soon_threadsafe(self._room.set)
        return data

    def has_ahead(self, wait_s: float | None) -> bool:
        """Whether a message or the end is there within ``wait_s``; it stays there."""
        from multiprocessing import connection as local

        return bool(local.wait([self.readable], wait_s))

    def close(self) -> None:
        """Take nothing more; what was taken ahead is forgotten."""
        self._watching.cancel()
        os.close(self.readable)
        os.close(self._signal)

    async def _watch(self, taker: LoopTaker) -> None:
        while True:
            try:
                _, (data,) = await self._takes.take(taker, 1, None)
            except MultihostError:
                self._tell(None)
                return
            self._room.clear()
            self._tell(data)
            await self._room.wait()

    def _tell(self, data: bytes | None) -> None:
        self._ahead.put(data)
        os.write(self._signal, b"\0")


class Connection:
    """One end of a pipe."""

    def __init__(self, end: End) -> None:
        """Hold ``end``; ``Pipe`` makes both."""
        self._end: End | None = end
        self._is_readable = end.takes is not None
        self._is_writable = end.gives is not None
        self._watch: _Watch | None = None
        self._ahead: list[bytes] = []
        """What ``poll`` has taken already."""
        self._forget = weakref.finalize(self, End.forget, end)
        # At exit it would come too late, when the client has said goodbye.
        self._forget.atexit = False
        _open_connections.add(self)

    # the standard library's verbs ------------------------------------------------------

    def send(self, obj: Any) -> None:
        """Send an object; raises BrokenPipeError when the other end is closed."""
        self._give(pack_item(obj))

    def recv(self) -> Any:
        """The next object, waiting for it; raises EOFError when none will come."""
        return pickle.loads(self._take())

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Send the bytes of ``buf`` from ``offset`` on, ``size`` of them, as one message."""
        data = memoryview(buf).cast("B")
        if offset < 0:
            raise ValueError("offset is negative")
        if len(data) < offset:
            raise ValueError("buffer length < offset")
        if size is None:
            size = len(data) - offset
        elif size < 0:
            raise ValueError("size is negative")
        elif offset + size > len(data):
            raise ValueError("buffer length < offset + size")
        self._give(as_payload(bytes(data[offset : offset + size])))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """The bytes of the next message; raises OSError if they are too many.

        Then nothing can be received any more, and an end that only receives is closed.
        """
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        data = self._take()
        if maxlength is not None and len(data) > maxlength:
            self._is_readable = False
            if not self._is_writable:
                self.close()
            raise OSError(f"a message of {len(data)} bytes; {maxlength} were allowed")
        return data

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Write the next message into ``buf`` from ``offset`` on; its size in bytes.

        Raises multiprocessing's BufferTooShort, with the message, when it does not fit.
        """
        whole = memoryview(buf).cast("B")
        if offset < 0:
            raise ValueError("negative offset")
        if offset > len(whole):
            raise ValueError("offset too large")
        data = self._take()
        if len(data) > len(whole) - offset:
            from multiprocessing import BufferTooShort

            raise BufferTooShort(data)
        whole[offset : offset + len(data)] = data
        return len(data)

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether something is there to be received, or will be in ``timeout`` seconds.

        None: wait as long as it takes. True, too, at the end.
        """
        self._open_end()
        wait_s = wait_of(True, timeout)
        if self._watch is not None:
            return self._watch.has_ahead(wait_s)
        if not self._ahead:
            # Taken here: what the other end sent can't be looked at where it waits.
            try:
                self._ahead.append(self._next(wait_s))
            except standard.Empty:
                return False
            except EOFError:
                return True
        return True

    def close(self) -> None:
        """Close it for this process. Idempotent."""
        end, self._end = self._end, None
        if self._watch is not None:
            self._unwatch()
            self._watch = None
        if end is not None and self._forget.detach():
            end.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed here."""
        return self._end is None

    @property
    def readable(self) -> bool:
        """Whether it receives."""
        return self._is_readable

    @property
    def writable(self) -> bool:
        """Whether it sends."""
        return self._is_writable

    def fileno(self) -> int:
        """A descriptor of this process that is readable when something can be received.

        For ``select`` and ``connection.wait`` only: nothing can be read from it.
        """
        end = self._open_end()
        if end.takes is None:
            raise OSError("connection is write-only")
        if self._watch is None:
            ahead, self._ahead = self._ahead, []
            self._watch = _Watch(end, ahead)
            self._unwatch = weakref.finalize(self, self._watch.close)
        return self._watch.readable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Connection, (self._open_end(),)

    def __repr__(self) -> str:
        state = "closed" if self._end is None else f"#{self._end.holders.number}"
        return f"<multihost.Connection {state}>"

    # within ------------------------------------------------------------------------------

    def _open_end(self) -> End:
        if self._end is None:
            raise OSError("handle is closed")
        return self._end

    def _give(self, packed: Any) -> None:
        end = self._open_end()
        if end.gives is None:
            raise OSError("connection is read-only")
        end.wait_arrived()
        try:
            run(end.gives.send(end._taker(), packed))
        except (QueueClosed, Gone):
            raise BrokenPipeError("the other end of the pipe is closed") from None

    def _take(self) -> bytes:
        self._open_end()
        return self._ahead.pop() if self._ahead else self._next(None)

    def _next(self, wait_s: float | None) -> bytes:
        end = self._open_end()
        if end.takes is None or not self._is_readable:
            raise OSError("connection is write-only")
        end.wait_arrived()
        if self._watch is not None:
            return self._watch.take(wait_s)
        try:
            _, (data,) = run(end.takes.take(end._taker(), 1, wait_s))
        except (QueueClosed, Gone):
            raise EOFError from None
        return data


_open_connections: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def _let_go_of_all() -> None:
    for connection in list(_open_connections):
        end = connection._end
        if end is not None and connection._forget.detach():
            end.forget()


before_exit.append(_let_go_of_all)
