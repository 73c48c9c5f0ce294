"""One connection of a standard-library client, from the handshake to its end.

Every connection first says one thing to the server itself (make an object,
count a reference, …) and is closed, unless that was ``accept_connection``:
then it goes on with calls on objects, one at a time, as one thread's.
"""

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from multihost.runtime import clock
from multihost.runtime.address import is_unix_socket
from multihost.runtime.spinning import Spin, spin_of
from multihost.server.admission import Arrival
from multihost.server.managers import requests, writing
from multihost.server.managers.departure import GOODBYE_S, SETTLE_S, Leaver, Visit
from multihost.server.managers.framing import Framer, FramingError, TooLong, frame
from multihost.server.managers.handshake import NONCE_BYTES, Handshake
from multihost.server.managers.host import Channel
from multihost.server.managers.queue_methods import CallError, Delivery, QueueCall
from multihost.server.managers.reading import (
    Request,
    UnreadableError,
    read_request,
    read_usual_put,
)
from multihost.server.managers.realm import KnownQueue, Realm, ident_of, name_of
from multihost.server.managers.taker import QueueTaker
from multihost.server.managers.writing import failed
from multihost.wire import act as a
from multihost.wire.blob import Blob

if TYPE_CHECKING:
    from multihost.server.managers.door import Door

MAX_PENDING = 4
"""Requests that may come before the one under way is answered; proxies send none."""
WRITE_BUFFER_BYTES = 1 << 20
LONG_BYTES = 64 << 10
"""Requests above this size are read in a thread."""
KNOWN_BYTES = 200
MAX_KNOWN = 16
"""Requests that are remembered, as read, for each connection."""


def _unreadable(error: UnreadableError) -> bytes:
    return failed(f"multihost: the request can't be read: {error}")


class Connection(asyncio.Protocol):
    """A client's connection.

    Invariant: requests are answered in the order they came, one under way at a time.
    """

    def __init__(self, door: "Door", arrival: Arrival, sock: socket.socket) -> None:
        """Serve ``sock``, which has arrived, for ``door``."""
        self.door = door
        self.arrival = arrival
        self.realm: Realm
        self.host = ""
        self.taker: QueueTaker | None = None
        self.visit: Visit | None = None
        self._socket = sock
        self._spin: Spin | None = None
        self._framer = Framer()
        self._handshake = Handshake(door.realms, secrets.token_bytes(NONCE_BYTES))
        self._receive: Callable[[bytes], None] = self._shake
        self._known: dict[bytes, Request] = {}
        """Requests that it makes over and over: a ``get`` is always the same bytes."""
        self._pending: deque[bytes | TooLong] = deque()
        self._is_busy = False
        self._is_closed = False
        self._why_not = ""
        self._put_to: set[str] = set()
        self._channel: Channel | None = None
        self._is_dialling = False

    # asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Challenge the client."""
        self.door.connections.add(self)
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        peer = self._transport.get_extra_info("peername")
        self.host = str(peer[0]) if isinstance(peer, tuple) and peer else "local"
        self._loop = asyncio.get_running_loop()
        self._spin = spin_of(self._loop)
        slow_s = self.door.admission.failures.slow_s(self.arrival.address, clock.mono())
        if slow_s:
            self._loop.call_later(slow_s, self._send, self._handshake.begin())
        else:
            self._send(self._handshake.begin())

    def data_received(self, data: bytes) -> None:
        """Take whole messages in turn."""
        try:
            messages = self._framer.feed(data)
        except FramingError:
            self.abort()
            return
        # A stranger, or who sends byte by byte, keeps no core awake.
        if self._spin is not None and messages and self._handshake.is_done:
            self._spin.noticed()
        for message in messages:
            if self._is_busy:
                self._pending.append(message)
                if len(self._pending) > MAX_PENDING:
                    self.abort()
                    return
            else:
                self._hear(message)
        if self._receive != self._serve or self._framer.is_within:
            self._acknowledge()

    def pause_writing(self) -> None:
        """Let the host wait for a slow reader; who does not read may not ask for more, either."""
        self._transport.pause_reading()
        if self._channel is not None:
            self._channel.pause(is_paused=True)

    def resume_writing(self) -> None:
        """Let both go on."""
        if not self._is_closed and not self._transport.is_closing():
            self._transport.resume_reading()
        if self._channel is not None:
            self._channel.pause(is_paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the taker; its items are decided about."""
        self._is_closed = True
        self.arrival.left()
        self.door.connections.discard(self)
        if self._handshake.key is None and self._handshake.is_refused:
            self.door.refused(self)
        if self._channel is not None:
            self._channel.close()
        if self.visit is not None:
            self.visit.closed_at = clock.mono()
        if self.taker is not None:
            self._end_taker(self.taker)

    def abort(self) -> None:
        """Hang up at once."""
        if not self._is_closed:
            self._transport.abort()

    # the handshake -----------------------------------------------------------------------

    def _shake(self, message: bytes) -> None:
        answer = self._handshake.received(message)
        if answer is not None:
            self._send(answer)
        if self._handshake.is_refused:
            self._transport.close()
        elif self._handshake.is_done:
            assert self._handshake.key is not None
            self.realm = self.door.realms[self._handshake.key]
            self._why_not = self.door.why_not(self._handshake.key, self)
            if not self._why_not and not self.arrival.prove():
                self._why_not = self.door.admission.why_full
            if self._why_not:
                self._receive = self._refuse
            else:
                self._framer.limit_bytes = self.door.max_message_bytes
                self._framer.passes_over = True
                self._receive = self._first

    def _hear(self, message: bytes | TooLong) -> None:
        if not isinstance(message, TooLong):
            self._receive(message)
            return
        answer = failed(
            f"ValueError: a request of {message.size_bytes:,} bytes, and the server takes "
            f"{message.limit_bytes:,} at its managers' port (MAX_MESSAGE_BYTES): put it in pieces "
            "or as the name of a file, or start the server with a larger --managers-max-message"
        )
        (self._send if self._receive == self._serve else self._finish)(answer)

    def _refuse(self, message: bytes) -> None:
        """It knows the authkey and yet may not come in; here it can be told why."""
        self._finish(failed(f"multihost: {self._why_not}"))

    def _acknowledge(self) -> None:
        """Have TCP acknowledge now: the client writes twice in a row, and waits for it between."""
        if not is_unix_socket(self._socket) and not self._is_closed:
            quick = getattr(socket, "TCP_QUICKACK", None)
            if quick is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, quick, 1)

    # what is said to the server itself -----------------------------------------------------

    def _first(self, message: bytes) -> None:
        self._read(message, self._first_request, self._finish)

    def _first_request(self, request: Request) -> None:
        if request.method == "accept_connection":
            self._receive = self._serve
            self._send(writing.RETURN_NONE)
            return
        self._is_busy = True
        self._spawn(requests.answer_to(self, request))

    def _finish(self, answer: bytes) -> None:
        self._send(answer)
        if self.visit is None:
            self._transport.close()
        else:
            # When the client closes it tells something.
            self._loop.call_later(GOODBYE_S, self._transport.close)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self.door.tasks.add(task)
        task.add_done_callback(self._first_done)

    def _first_done(self, task: "asyncio.Task[bytes]") -> None:
        self.door.tasks.discard(task)
        if task.cancelled() or self._is_closed:
            return
        error = task.exception()
        if isinstance(error, OSError):
            self._finish(failed(f"multihost: {error}"))
        elif error is not None:
            self.abort()
            raise error
        else:
            self._finish(task.result())

    # calls on objects ----------------------------------------------------------------------

    def _serve(self, message: bytes) -> None:
        put = read_usual_put(message)
        if put is not None:
            name = name_of(put.ident)
            if name is not None and not self._has_failed():
                self._note_put(put.ident)
                self._on_queue(name, lambda call: call.put_item(put.item, None))
                return
        request = self._known.get(message)
        if request is not None:
            self._serve_request(request)
        else:
            self._read(message, self._serve_request, self._send)

    def _read(
        self, message: bytes, then: Callable[[Request], None], refuse: Callable[[bytes], None]
    ) -> None:
        """Read a request; a long one beside the loop, which others need meanwhile."""
        if len(message) > LONG_BYTES:
            self._is_busy = True
            reading = self._loop.run_in_executor(None, read_request, message)
            reading.add_done_callback(partial(self._was_read, then, refuse))
            return
        try:
            request = read_request(message)
        except UnreadableError as error:
            refuse(_unreadable(error))
            return
        if len(message) < KNOWN_BYTES and len(self._known) < MAX_KNOWN:
            self._known[message] = request
        then(request)

    def _was_read(
        self,
        then: Callable[[Request], None],
        refuse: Callable[[bytes], None],
        reading: "asyncio.Future[Request]",
    ) -> None:
        self._is_busy = False
        if self._is_closed or reading.cancelled():
            return
        error = reading.exception()
        if error is None:
            then(reading.result())
        elif isinstance(error, UnreadableError):
            refuse(_unreadable(error))
        else:
            self.abort()
            raise error
        self._go_on()

    def _serve_request(self, request: Request) -> None:
        name = name_of(request.ident)
        if name is not None:
            if request.method in ("put", "put_nowait"):
                self._note_put(request.ident)
            self._on_queue(name, lambda call: self._run(call, request))
        elif request.method == requests.END and self.taker is not None:
            self.taker.end(is_clean=True)
            self._send(writing.RETURN_NONE)
        elif request.method == requests.WRITER:
            self._is_busy = True
            self._loop.create_task(self._open_writer(request))
        elif self.realm.host is not None:
            self._pass_on(request.raw)
        else:
            self._send(failed(f"KeyError: no object {request.ident!r} here"))

    def _note_put(self, ident: str) -> None:
        self._put_to.add(ident)
        if self.taker is not None:
            self.taker.written += 1

    async def _open_writer(self, request: Request) -> None:
        """A client says who it is, so that what it puts again after a break is not put twice."""
        taker = self._my_taker()
        uid, name, written = (*request.args, None, None, None)[:3]
        if not (requests.is_uid(uid) and isinstance(name, str) and isinstance(written, int)):
            self._answer(failed("TypeError: a writer is told by its uid, name and puts so far"))
            return
        writer = None
        if taker.writer is None:
            writer = await self.door.backing.open_writer(
                bytes.fromhex(uid), name, self.realm.prefix
            )
        if self._is_closed:
            if writer is not None:
                self.door.backing.leave_writer(writer, written)
            return
        if writer is not None:
            taker.writer, taker.written = writer, written
        self._answer(writing.returned(writer is not None))

    def _my_taker(self) -> QueueTaker:
        if self.taker is None:
            self.taker = QueueTaker(self.door.backing, self.realm)
        return self.taker

    def _has_failed(self) -> bool:
        return self.taker is not None and bool(self.taker.failure)

    def _run(self, call: QueueCall, request: Request) -> None:
        if call.taker.failure:
            failure, call.taker.failure = call.taker.failure, ""
            call.answer(failed(f"multihost: {failure}"))
            return
        try:
            call.run(request)
        except CallError as error:
            call.answer(error.answer)

    def _on_queue(self, name: str, do: Callable[[QueueCall], None]) -> None:
        """Find the queue, or make it, and do something with it."""
        taker = self._my_taker()
        self._is_busy = True

        def opened(queue: KnownQueue | a.Rejected) -> None:
            if isinstance(queue, KnownQueue):
                do(QueueCall(taker, name, queue, self._answer))
            else:
                self._answer(failed(f"multihost: {queue.code}: {queue.message}"))

        taker.open(name, 0, opened)

    def _answer(self, answer: bytes | Delivery) -> None:
        if isinstance(answer, Delivery):
            self._loop.create_task(self._deliver(answer))
            return
        self._is_busy = False
        if self._is_closed:
            return
        self._send(answer)
        self._go_on()

    def _go_on(self) -> None:
        while self._pending and not self._is_busy and not self._is_closed:
            self._hear(self._pending.popleft())

    async def _deliver(self, delivery: Delivery) -> None:
        assert isinstance(delivery.payload, Blob)
        try:
            item = await self.door.backing.load(delivery.payload)
        except OSError as error:
            self._answer(failed(f"multihost: {error}"))
        else:
            self._answer(delivery.message(item))

    def _send(self, message: bytes) -> None:
        if not self._is_closed:
            self._transport.write(frame(message))

    # objects of the host -------------------------------------------------------------------

    def _pass_on(self, message: bytes) -> None:
        if self._channel is not None:
            self._channel.send(message)
        else:
            self._is_busy = True
            self._loop.create_task(self._dial(message))

    async def _dial(self, message: bytes) -> None:
        assert self.realm.host is not None
        try:
            channel = await self.realm.host.dial()
        except OSError as error:
            self._answer(failed(f"multihost: the manager's host process is gone: {error}"))
            return
        if self._is_closed:
            channel.close()
            return
        self._channel = channel
        channel.pipe(self._relay, self.abort)
        channel.send(message)
        self._is_busy = False

    def _relay(self, data: bytes) -> None:
        if not self._is_closed:
            self._transport.write(data)

    # the end -------------------------------------------------------------------------------

    def _end_taker(self, taker: QueueTaker) -> None:
        if self._is_busy or taker.says_goodbye or not taker.holds:
            taker.end(is_clean=False)
            return
        if taker.holds_none:
            taker.end(is_clean=True)
            return
        self.door.departures.left(
            Leaver(
                self.host,
                clock.mono(),
                frozenset(map(ident_of, taker.took_from)),
                frozenset(self._put_to),
                taker.has_begun,
                lambda is_clean: taker.end(is_clean=is_clean),
            )
        )
        self._loop.call_later(SETTLE_S + 0.01, lambda: self.door.departures.settle(clock.mono()))
