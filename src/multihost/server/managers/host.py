"""The way to a manager's host process, where users' own objects live.

The server dials it, says a token, and passes on requests and answers as they
are: it neither reads what is in them nor runs any of it. A host answers
``create`` of what turns out to be a queue with a message that begins with
QUEUE and goes on in msgpack: such a queue is the server's to keep.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import msgspec

from multihost.server.managers.framing import HOST_MESSAGE_BYTES, Framer, FramingError, frame


class OnShutdown(Protocol):
    """What is done when a client asks for shutdown."""

    def __call__(self, *, keeps: bool) -> None:
        """End; ``keeps``: the queues are for the next start."""
        ...


QUEUE = b"#QUEUE"
MAX_IDLE = 8


class HostedQueue(msgspec.Struct, frozen=True, array_like=True):
    """What a host says of a queue that one of its callables returned."""

    limit: int
    items: list[bytes] = []
    """Pickles of what is in it already."""


@dataclass(slots=True)
class Host:
    """Where a host process listens, and what it can make."""

    address: str | tuple[str, int]
    token: bytes
    typeids: frozenset[str]
    _idle: list["Channel"] = field(default_factory=list)

    async def dial(self) -> "Channel":
        """A new channel; raises OSError when the host is gone."""
        loop = asyncio.get_running_loop()
        if isinstance(self.address, str):
            _, channel = await loop.create_unix_connection(Channel, self.address)
        else:
            _, channel = await loop.create_connection(Channel, *self.address)
        channel.send(self.token)
        return channel

    async def ask(self, message: bytes) -> bytes:
        """The host's answer to one request; raises OSError when the host is gone."""
        while self._idle:
            channel = self._idle.pop()
            if not channel.is_closed:
                break
        else:
            channel = await self.dial()
        answer = await channel.ask(message)
        if len(self._idle) < MAX_IDLE:
            self._idle.append(channel)
        else:
            channel.close()
        return answer

    def close(self) -> None:
        """Let go of the channels."""
        while self._idle:
            self._idle.pop().close()


class Channel(asyncio.Protocol):
    """A connection to the host: asked one message at a time, or piped to a client."""

    def __init__(self) -> None:
        """Be connected by the event loop."""
        self.is_closed = False
        self._framer = Framer(HOST_MESSAGE_BYTES)
        self._answer: asyncio.Future[bytes] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._on_end: Callable[[], None] | None = None

    def pipe(self, sink: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """From now on hand every byte to ``sink``, and tell when the host is gone."""
        self._sink, self._on_end = sink, on_end

    def send(self, message: bytes) -> None:
        """Send a request."""
        self._transport.write(frame(message))

    async def ask(self, message: bytes) -> bytes:
        """Send a request and wait for its answer."""
        if self.is_closed:
            raise ConnectionResetError("the host process of the manager is gone")
        self._answer = asyncio.get_running_loop().create_future()
        self.send(message)
        return await self._answer

    def pause(self, *, is_paused: bool) -> None:
        """Follow the back-pressure of the client this is piped to."""
        if self.is_closed:
            return
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Hang up."""
        self._on_end = None
        if not self.is_closed:
            self._transport.close()

    # asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """An answer, or part of one."""
        if self._sink is not None:
            self._sink(data)
            return
        try:
            messages = self._framer.feed(data)
        except FramingError:
            self._transport.abort()
            return
        for message in messages:
            if self._answer is not None and not self._answer.done():
                assert isinstance(message, bytes), "nothing is passed over here"
                self._answer.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The host is gone."""
        self.is_closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(
                ConnectionResetError("the host process of the manager is gone")
            )
        if self._on_end is not None:
            self._on_end()


def hosted_queue(answer: bytes) -> HostedQueue | None:
    """The queue that a host's answer to ``create`` speaks of, None for an ordinary answer."""
    if not answer.startswith(QUEUE):
        return None
    return msgspec.msgpack.decode(answer[len(QUEUE) :], type=HostedQueue)


def as_answer(queue: Any) -> bytes:
    """The message of a ``HostedQueue``."""
    return QUEUE + msgspec.msgpack.encode(queue)
