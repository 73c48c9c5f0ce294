"""The async core of every client: one session with the server, many jobs.

Blocking clients, pools and executors, and the asyncio client all stand on
this; there is no second implementation. All of it runs on one event loop,
except ``post``, which is how other threads get something done there.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self

from multihost.client import forking
from multihost.client.absence import Absence
from multihost.client.blobs import BlobExchange
from multihost.client.calls import Calls
from multihost.client.options import PATIENCE_S
from multihost.client.printer import Printer
from multihost.client.stream import Stream
from multihost.client.taker import Taker
from multihost.errors import ConnectionLost, MultihostError
from multihost.runtime import waiting
from multihost.runtime.config import Target
from multihost.runtime.notices import warn
from multihost.runtime.peer import Peer
from multihost.wire import message as m
from multihost.wire.seal import Seal


class Session:
    """A client's session, over as many connections as it takes.

    Invariant: once ``failure`` is set it stays, every receiver of every stream
    has been told, and so will be whoever comes later.
    """

    def __init__(self, target: Target, patience_s: float | None = PATIENCE_S) -> None:
        """Prepare a session with ``target`` on the running loop; ``connect`` opens it."""
        self.uid = os.urandom(16)
        self.failure: MultihostError | None = None
        self.loop = asyncio.get_running_loop()
        self.seal = None if target.seal is None else Seal(target.seal)
        """What is signed with; None: nothing is."""
        self.peer = Peer(
            self,
            m.Role.CLIENT,
            target.urls,
            target.key,
            patience_s,
            trust=target.trust,
            nearby=target.socket,
        )
        self.blobs = BlobExchange(self, self.loop)
        self.store: bytes | None = None
        """Uid of the store that the server keeps everything in, once connected."""
        self._streams: dict[int, Stream] = {}
        self._last_alias = 0
        self._slots = 0
        self._generation = forking.generation
        self._posted: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self._unwritten: dict[Callable[[], None], None] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._told_waiting = ""
        self._was_told_forbidden = False
        self._absence = Absence(self.loop, patience_s, self._has_work)
        self.printer = Printer()
        self.calls = Calls(self)
        """What its takers ask of queues and synchronizers."""

    # any thread --------------------------------------------------------------------

    def post(self, call: Callable[[], None]) -> None:
        """Call something on the loop's thread soon; calls keep their order.

        Raises ConnectionLost when the client has been closed, or was made in the
        process that this one was forked from.
        """
        if self._generation != forking.generation:
            text = "this client is the parent process's; make a new one after a fork"
            raise ConnectionLost(self.peer.url, text)
        self._posted.append(call)
        if not self._is_woken:
            self._is_woken = True
            try:
                self.loop.call_soon_threadsafe(self._run_posted)
            except RuntimeError:
                self._is_woken = False
                self._posted.clear()
                raise ConnectionLost(self.peer.url, "this client has been closed") from None
            except BaseException:  # interrupted: whoever posts next has it woken, again or not
                self._is_woken = False
                raise

    @property
    def is_ours(self) -> bool:
        """Whether it was made in this process, not in one that this was forked from."""
        return self._generation == forking.generation

    def send_here(self, message: m.Message) -> bool:
        """Send a message at once if that is possible here and now; whether it was."""
        return self._generation == forking.generation and self.peer.send_here(message)

    def _run_posted(self) -> None:
        self._is_woken = False
        posted = self._posted
        try:
            for _ in range(len(posted)):
                posted.popleft()()
        except BaseException:  # a bug, and reported; the others wait for no next post
            self._is_woken = True
            self.loop.call_soon(self._run_posted)
            raise

    # the loop's thread -----------------------------------------------------------------

    async def connect(self) -> Self:
        """Open the session and keep it; raises as ``Peer.connect`` does."""
        await self.peer.connect()
        self._keeper = self.loop.create_task(self._keep())
        return self

    async def close(self, keeper: Taker | None = None) -> None:
        """End the session: the server cancels its transient jobs.

        What the taker ``keeper`` holds is done with, what others hold is for others.
        """
        await self.calls.finish(keeper)
        self.fail(ConnectionLost(self.peer.url, "this client has been closed"))
        self.peer.close("the client is done")
        if self._keeper is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(self._keeper)
            self._keeper.cancel()
        self.peer.drop("the client is done")  # a server that reads no more would keep it open

    async def _keep(self) -> None:
        try:
            await self.peer.run()
        except MultihostError as error:
            self.fail(error)

    def fail(self, error: MultihostError) -> None:
        """The session is lost for good."""
        if self.failure is not None:
            return
        self.failure = error
        self._absence.forget()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.fail(error)
        self.blobs.fail(error)
        self.calls.fail(error)
        self._run_unwritten()

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent right now."""
        return self.peer.is_connected

    @property
    def is_writable(self) -> bool:
        """Whether there is a connection and it takes more bytes."""
        return self.peer.is_writable

    def send(self, message: m.Message) -> None:
        """Send a message; without a connection it is dropped, and what matters is re-sent."""
        self.peer.send(message)

    def wait_writable(self, call: Callable[[], None]) -> None:
        """Call something once, as soon as there is a connection that takes more."""
        self._unwritten[call] = None

    def register(self, stream: Stream) -> None:
        """Give a stream its alias and the messages that carry it."""
        self._last_alias += 1
        stream.alias = self._last_alias
        self._streams[stream.alias] = stream

    def unregister(self, stream: Stream) -> None:
        """The stream is done with."""
        self._streams.pop(stream.alias, None)

    def ask_slots(self, slots: int) -> None:
        """Ask elastic workers to run at least so many slots, now and after every reconnect."""
        if slots > self._slots:
            self._slots = slots
            self.send(m.Resize(slots))

    # PeerOwner -------------------------------------------------------------------------

    def opening(self) -> m.Attach:
        """Open the session, or come back to it."""
        return m.Attach(self.uid, _user(), socket.gethostname(), os.getpid())

    def connected(self, welcome: m.Welcome) -> None:
        """Go on where the last connection broke off."""
        self._absence.ended(self.peer.url)
        is_same_store = self.store in (None, welcome.server)
        self.store = welcome.server
        if self._slots:
            self.send(m.Resize(self._slots))
        self.blobs.connected(is_same_store=is_same_store)
        lost = None
        if not is_same_store:
            lost = ConnectionLost(self.peer.url, "another store is there now")
        self.calls.connected(welcome, lost)
        for stream in list(self._streams.values()):
            if lost is None:
                stream.resume()
            else:
                self._streams.pop(stream.alias)
                stream.fail(lost)
        self._run_unwritten()

    def received(self, messages: Sequence[Any]) -> None:
        """Hand messages to whom they concern; those for a closed stream to nobody."""
        streams = self._streams
        for message in messages:
            kind = type(message)
            if kind is m.Answer:
                self.calls.answered(message)
                continue
            handler = _FOR_STREAMS.get(kind)
            if handler is not None:
                self._tell_stream(handler, message)
            elif kind in _FOR_BLOBS:
                self.blobs.received(message)
                if kind is m.BlobRefused:
                    for stream in list(streams.values()):
                        stream.on_blob_refused(message)
            elif kind is m.Printed:
                self.printer.put(message, streams.get(message.job))
            elif kind is m.Waiting:
                self._waits(message)
            elif kind is m.Forbidden:
                self._forbidden(message)

    def writable(self) -> None:
        """Back-pressure is over."""
        self.blobs.writable()
        self._run_unwritten()

    def disconnected(self, reason: str) -> None:
        """The peer comes back by itself; until then nothing is sent."""
        self.calls.disconnected()
        if self.failure is None:
            self._absence.began(self.peer.url, reason)

    # within ------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        """Whether anything that the server was asked for is still to come.

        What a task would say of that ends up at a program that has said it, too.
        """
        if waiting.is_slot():
            return False
        return self.calls.are_waiting or any(s.unfinished for s in self._streams.values())

    def _run_unwritten(self) -> None:
        calls, self._unwritten = self._unwritten, {}
        for call in calls:
            call()

    def _tell_stream(self, handler: Callable[[Stream, Any], None], message: Any) -> None:
        stream = self._streams.get(message.job)
        if stream is None:
            return
        if type(message) is m.Outcomes and self.printer.is_behind:
            self._when_printed(stream, message)
        else:
            handler(stream, message)

    def _when_printed(self, stream: Stream, message: m.Outcomes) -> None:
        """Tell outcomes as soon as all has been written that was printed before them."""

        def tell() -> None:
            with contextlib.suppress(ConnectionLost):  # closed meanwhile, and all were told
                self.post(lambda: stream.on_outcomes(message))

        self.printer.after(tell)

    def _forbidden(self, message: m.Forbidden) -> None:
        """Say it once: what was asked for next fails with an error of its own."""
        if not self._was_told_forbidden:
            self._was_told_forbidden = True
            warn("%s", message.message)

    def _waits(self, message: m.Waiting) -> None:
        stream = self._streams.get(message.job)
        if stream is None:
            return
        stream.waiting = message.message
        if message.message and message.message != self._told_waiting:
            warn("%s waits: %s", stream.spec.label or "a job", message.message)
        self._told_waiting = message.message


_FOR_STREAMS: dict[type, Callable[[Stream, Any], None]] = {
    m.Outcomes: Stream.on_outcomes,
    m.Stored: Stream.on_stored,
    m.Started: Stream.on_started,
    m.Opened: Stream.on_opened,
    m.OpenRefused: Stream.on_open_refused,
    m.AddRefused: Stream.on_add_refused,
    m.ProcessBegan: Stream.on_process_began,
}
_FOR_BLOBS = frozenset({m.BlobFound, m.BlobStored, m.BlobRefused, m.BlobPart})


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this uid: containers
        return str(os.getuid()) if hasattr(os, "getuid") else ""
