"""One WebSocket connection that carries messages; the same at both ends.

The WebSocket itself is the sans-I/O implementation of ``websockets``, with a
short cut for the plain frames that nearly all traffic is; the legality of
messages is ``wire.session``'s. A Link only moves bytes. Messages
sent in one turn of the event loop leave together in one frame: under load
frames are full, and a lone message waits for nothing.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from multihost.runtime.address import is_unix_socket
from multihost.runtime.plain import PlainReader, plain_frame, whole_frame
from multihost.runtime.spinning import Spin, spin_of
from multihost.wire.codec import (
    Buffer,
    WireError,
    decode_from_peer,
    decode_from_server,
    encode,
    encode_parts,
    is_bulky,
)
from multihost.wire.message import FRAME_MESSAGES, MAX_FRAME_BYTES, Message
from multihost.wire.session import IllegalMessageError, Session

HANDSHAKE_FRAME_BYTES = 16 << 10
"""Frames that a server takes from who has not proved the key."""
WRITE_BUFFER_BYTES = 4 << 20
"""Unsent bytes above which a link says it is not writable."""
UNSENT_BYTES = 64 << 20
"""Unsent bytes above which a server hangs up: whoever does not read what it asked for."""
DIRECT_BYTES = 16 << 10
"""Larger frames are not written to the socket by other threads."""
NEARBY_BUFFER_BYTES = 1 << 20
"""Asked for at Unix sockets, whose buffers don't grow with what is sent as TCP's do."""
PATH = "/ws"
NEARBY_URL = f"ws://localhost{PATH}"
"""What a handshake names where no network is between."""

# Belongs to no other logger: a program that logs everything, by a handler that puts its records
# into one of our queues, would otherwise log each put of a record, from the thread that carries it.
_silent = logging.Logger("multihost.link")  # noqa: LOG001 - dictConfig would enable one of the tree
_silent.disabled = True


class LinkOwner(Protocol):
    """Who a link reports to. Calls come from the event loop and must not block."""

    def link_opened(self, link: "Link") -> None:
        """The WebSocket handshake is done; messages may be sent."""
        ...

    def link_received(self, link: "Link", messages: Sequence[Any]) -> None:
        """Legal messages came, in the order sent."""
        ...

    def link_writable(self, link: "Link") -> None:
        """The backlog of unsent bytes is gone, after ``is_writable`` was False."""
        ...

    def link_closed(self, link: "Link", reason: str) -> None:
        """The connection is gone; comes exactly once."""
        ...


class Link(asyncio.Protocol):
    """A connection as an asyncio protocol.

    Invariant: ``link_closed`` is called exactly once for each link, whatever
    happens, and nothing else is called after it.
    """

    def __init__(
        self,
        owner: LinkOwner,
        session: Session,
        protocol: ServerProtocol | ClientProtocol,
    ) -> None:
        """Carry messages for ``owner`` over ``protocol``, checked by ``session``."""
        self.owner = owner
        self.session = session
        self.is_writable = True
        self.peer_address = ""
        self.on_part: Callable[[], None] | None = None
        """Called when bytes come that complete no frame: on a slow link they are all there is."""
        self.frame_bytes = 0
        """Size of the frame that the messages came in which the owner was given last."""
        self._protocol = protocol
        self._decode: Any = decode_from_peer if session.is_server else decode_from_server
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spin: Spin | None = None
        self._outbox: list[Message] = []
        self._is_flush_due = False
        self._is_receiving = False
        """Whether the owner is being given messages: what it answers is sent when it is done."""
        self._writing = threading.RLock()
        """Held while bytes are handed to the transport, or to the socket itself."""
        self._descriptor = -1
        """A duplicate of the socket's, for other threads: it is valid until it is closed here."""
        self._is_duplicate_due = False
        """Whether another thread has asked for it."""
        self._rest = b""
        """What the socket did not take of a message written to it directly."""
        self._parts: list[bytes] = []
        self._pauses: set[str] = set()
        self._plain = PlainReader(is_masked=session.is_server, limit_bytes=MAX_FRAME_BYTES)
        self._is_between_frames = False
        """Whether the library holds no part of a frame, so that the short cut may be taken."""
        self._is_open = False
        self._is_closed = False
        self._carries = False
        """Whether the WebSocket is open, neither side having begun to close it."""
        self._is_plain = False
        """Whether the socket takes bytes as they are."""
        self._is_nearby = False
        """Whether the other end is on this machine for sure."""
        self._own_descriptor = -1
        """The transport's; good until that is closing, for the loop's thread alone."""
        self._reason = ""

    # asyncio.Protocol ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake (a client) or wait for it (a server)."""
        # uvloop's transports are asyncio's by behaviour only.
        self._transport = cast("asyncio.Transport", transport)
        transport = self._transport
        self._loop = asyncio.get_running_loop()
        self._spin = spin_of(self._loop)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        sock = transport.get_extra_info("socket")
        self._is_plain = sock is not None and transport.get_extra_info("ssl_object") is None
        self._own_descriptor = sock.fileno() if sock is not None else -1
        self._is_nearby = sock is not None and is_unix_socket(sock)
        if self._is_nearby:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NEARBY_BUFFER_BYTES)
        address = transport.get_extra_info("peername")
        is_far = isinstance(address, tuple) and bool(address)
        self.peer_address = f"{address[0]}:{address[1]}" if is_far else "this machine"
        if isinstance(self._protocol, ClientProtocol):
            self._protocol.send_request(self._protocol.connect())
            self._write()

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the WebSocket and messages to the owner."""
        if self._is_between_frames and self._carries:
            payloads, rest = self._plain.feed(data)
            for payload in payloads:
                self._messages_received(payload)
                if self._is_closed or not self._carries:
                    return
            if not rest:
                if not payloads and self.on_part is not None:
                    self.on_part()
                return
            data = bytes(rest)
        protocol = self._protocol
        self._is_between_frames = False
        protocol.receive_data(data)
        self._follow()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame_received(event)
                self._is_between_frames = self._is_open and not self._parts
            else:
                self._handshake_received(event)
                self._is_between_frames = self._is_open
            if self._is_closed:
                return
        if protocol.reader.buffer or not self._carries:
            self._is_between_frames = False
        self._write()

    def eof_received(self) -> None:
        """Answer the other end's half-close."""
        self._protocol.receive_eof()
        self._follow()
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        if not self._reason:
            self._reason = str(exc) if exc else "the other end closed the connection"
        self._closed()

    def pause_writing(self) -> None:
        """Note back-pressure."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """Back-pressure is over."""
        self.is_writable = True
        if self._is_open and not self._is_closed:
            self.owner.link_writable(self)

    # for the owner ---------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message with all others of this turn of the loop; after a close, nothing."""
        if self._is_closed:
            return
        self.put(message)
        if not self._is_flush_due and not self._is_receiving:
            self._is_flush_due = True
            assert self._loop is not None
            self._loop.call_soon(self._flush)

    def put(self, message: Message) -> None:
        """Have a message wait for a ``flush`` that is sure to follow."""
        if not self._is_closed:
            self.session.sent(message)
            self._outbox.append(message)

    def flush(self) -> None:
        """Send what is waiting now, not at the end of this turn of the loop."""
        if not self._is_closed:
            self._flush()

    def send_here(self, message: Message) -> bool:
        """From any thread: write a message to the socket at once, if nothing is on its way there.

        False: nothing was done, and it is to be sent on the loop's thread.
        """
        frame = encode([message])
        if len(frame) > DIRECT_BYTES:
            return False
        data = whole_frame(frame, not self.session.is_server, self._is_nearby)
        with self._writing:
            if self._descriptor < 0:
                self._ask_for_duplicate()
                return False
            return self._is_idle() and self._write_to(self._descriptor, data)

    def send_at_once(self, message: Message) -> None:
        """Send a message now if nothing is on its way, else with the others of this turn."""
        if self._is_plain and self._is_idle():
            data = whole_frame(encode([message]), not self.session.is_server, self._is_nearby)
            with self._writing:
                is_written = self._write_to(self._own_descriptor, data)
            if is_written:
                return
        self.send(message)

    def admit(self) -> None:
        """The other end has proved the key: take frames of full size from it."""
        self._plain.limit_bytes = MAX_FRAME_BYTES
        self._protocol.max_message_size = MAX_FRAME_BYTES

    def pause_reading(self, why: str) -> None:
        """Take no more bytes from the other end for now: back-pressure on it."""
        self._pauses.add(why)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self, why: str) -> None:
        """That reason is gone; take bytes again if it was the last."""
        self._pauses.discard(why)
        if self._pauses or self._transport is None or self._transport.is_closing():
            return
        self._transport.resume_reading()

    def close(self, reason: str) -> None:
        """Send what is waiting, then close; ``link_closed`` follows."""
        if self._is_closed:
            return
        self._flush()
        self._reason = self._reason or reason
        if self._carries:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE, reason[:100])
            self._follow()
            self._write()
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Cut the connection at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    # within ------------------------------------------------------------------------

    def _follow(self) -> None:
        """The library's protocol may have gone on to another state."""
        self._carries = self._protocol.state is State.OPEN

    def _handshake_received(self, event: Request | Response) -> None:
        if isinstance(event, Request):
            assert isinstance(self._protocol, ServerProtocol)
            if event.path.partition("?")[0] == PATH:
                answer = self._protocol.accept(event)
            else:
                answer = self._protocol.reject(404, f"WebSocket connections go to {PATH}\n")
            self._protocol.send_response(answer)
            self._follow()
            self._write()
        if self._carries:
            self._is_open = True
            self.owner.link_opened(self)
        else:
            error = self._protocol.handshake_exc
            self._fail(f"no WebSocket handshake: {error or 'refused'}")

    def _frame_received(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
            if frame.fin and not self._parts:
                self._messages_received(frame.data)
                return
            self._parts.append(bytes(frame.data))
            if frame.fin:
                whole, self._parts = b"".join(self._parts), []
                self._messages_received(whole)
        elif frame.opcode is Opcode.TEXT:
            self._fail("a text frame; the protocol is binary")

    def _messages_received(self, data: Buffer) -> None:
        if self._spin is not None:
            self._spin.noticed()
        received = self.session.received
        self.frame_bytes = len(data)
        try:
            messages = self._decode(data)
            for message in messages:
                received(message)
        except (WireError, IllegalMessageError) as error:
            self._fail(str(error))
            return
        self._is_receiving = True
        try:
            self.owner.link_received(self, messages)
        finally:
            self._is_receiving = False
        if self._outbox:
            self._flush()

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._outbox and self._carries:
            messages, self._outbox = self._outbox, []
            self._send_frames(messages)

    def _send_frames(self, messages: list[Message]) -> None:
        begin = 0
        for end, message in enumerate(messages[:-1], 1):
            if is_bulky(message):
                self._send_frame(messages[begin:end])
                begin = end
        self._send_frame(messages[begin:] if begin else messages)

    def _send_frame(self, messages: list[Message]) -> None:
        """Send messages in one frame, if they fit."""
        parts = encode_parts(messages)
        is_long = sum(map(len, parts)) > MAX_FRAME_BYTES or len(messages) > FRAME_MESSAGES
        if is_long and len(messages) > 1:
            half = len(messages) // 2
            self._send_frame(messages[:half])
            self._send_frame(messages[half:])
        elif self._transport is not None and not self._transport.is_closing():
            framed = self._framed(*parts)
            with self._writing:
                self._write_rest()
                self._transport.writelines(framed)
            if not self.is_writable and self.session.is_server:
                self._check_unsent()

    def _framed(self, *payload: bytes) -> list[bytes]:
        is_masked = not self.session.is_server
        return plain_frame(*payload, is_masked=is_masked, is_nearby=self._is_nearby)

    def _check_unsent(self) -> None:
        """Hang up on who does not read; what was lost with it is told when it comes back."""
        assert self._transport is not None
        size_bytes = self._transport.get_write_buffer_size()
        if size_bytes > UNSENT_BYTES:
            self.abort(f"{size_bytes} bytes sent to it are unread; {UNSENT_BYTES} is the limit")

    def _is_idle(self) -> bool:
        """Whether nothing is on its way to the socket, so that it can be written to as it is."""
        transport = self._transport
        if transport is None or not self._is_open or self._is_closed or self._outbox:
            return False
        if self._rest or transport.is_closing() or transport.get_write_buffer_size():
            return False
        return self._carries

    def _ask_for_duplicate(self) -> None:
        """Have the next message of another thread find a descriptor, unless bytes are encrypted."""
        if self._is_plain and self._is_open and not self._is_duplicate_due:
            self._is_duplicate_due = True
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._duplicate)

    def _duplicate(self) -> None:
        """On the loop's thread, which alone knows that the socket's number is still this one's."""
        assert self._transport is not None
        if not self._is_closed and not self._transport.is_closing():
            with contextlib.suppress(OSError):  # too many are open: the loop sends everything
                self._descriptor = os.dup(self._transport.get_extra_info("socket").fileno())

    def _write_to(self, descriptor: int, data: bytes) -> bool:
        """Write bytes to the idle socket itself; the loop sends what it does not take at once."""
        try:
            written = os.write(descriptor, data)
        except OSError:  # it takes nothing now, or is broken: the loop finds out
            return False
        self._rest = data[written:]
        if self._rest:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._write)
        return True

    def _write_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if rest and self._transport is not None:
            self._transport.write(rest)

    def _write(self) -> None:
        with self._writing:
            self._write_now()

    def _write_now(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._write_rest()
        for data in self._protocol.data_to_send():
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
        if self._protocol.state in (State.CLOSING, State.CLOSED):
            error = self._protocol.parser_exc
            if error is not None:
                self._reason = self._reason or str(error)
            transport.close()

    def _fail(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._carries:
            self._protocol.fail(CloseCode.POLICY_VIOLATION, reason[:100])
            self._follow()
            self._write()
        if self._transport is not None:
            self._transport.close()

    def _closed(self) -> None:
        if not self._is_closed:
            with self._writing:
                self._is_closed = True
                if self._descriptor >= 0:
                    os.close(self._descriptor)
                    self._descriptor = -1
            self._outbox.clear()
            self.owner.link_closed(self, self._reason)


def server_link(owner: LinkOwner) -> Link:
    """Server's end of a connection whose HTTP request is about to be fed to it."""
    # A page in a browser has an origin and no business here; our own peers send none.
    protocol = ServerProtocol(origins=[None], max_size=HANDSHAKE_FRAME_BYTES, logger=_silent)
    link = Link(owner, Session(None), protocol)
    link._plain.limit_bytes = HANDSHAKE_FRAME_BYTES
    return link


def client_link(owner: LinkOwner, session: Session, url: str) -> Link:
    """Client's end of a connection to the WebSocket address ``url``."""
    protocol = ClientProtocol(parse_uri(url), max_size=MAX_FRAME_BYTES, logger=_silent)
    return Link(owner, session, protocol)
