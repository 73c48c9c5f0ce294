"""Keeping a session with the server over successive connections.

Workers and clients are both *peers*: they connect, prove the key, open their
session, send a heartbeat, and when the connection breaks they come back to the
same session, by themselves, at the next address of their list. What the
session means is its owner's business.
"""

import asyncio
import contextlib
import random
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from websockets.frames import CloseCode

from multihost.errors import (
    AuthenticationError,
    ConnectionLost,
    KeyExpired,
    KeyRevoked,
    NotAllowed,
    ProtocolError,
    ServerNotFound,
    UntrustedServer,
)
from multihost.runtime import clock
from multihost.runtime.address import bracket, parse_url
from multihost.runtime.link import NEARBY_URL, Link, client_link
from multihost.runtime.notices import warn
from multihost.runtime.reach import in_turn
from multihost.runtime.secret import wrong_key
from multihost.runtime.trust import MAYBE_TLS, Trust, nobody_there
from multihost.wire import message as m
from multihost.wire.keys import is_proof, parse_key, peer_proof, server_proof
from multihost.wire.session import Session

CONNECT_S = 10.0
"""Time for one connection to open, handshake included."""
ROUND_TRIPS = 4
"""Heartbeats by which the way to the server is measured."""
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0
REFUSALS = 3
"""Connections in a row that the server ends since it can't read what is sent: it never will."""
CALM_S = 10.0
"""What was said for so long before that is not said again at once."""

# Its own, so that a program that seeds Python's gets from it what it expects.
_chance = random.Random()  # noqa: S311 - spreads reconnects, nothing secret


class PeerOwner(Protocol):
    """What a peer asks of and tells to the worker or client it serves."""

    def opening(self) -> m.Attach | m.Enlist:
        """The message that opens the session, or comes back to it."""
        ...

    def connected(self, welcome: m.Welcome) -> None:
        """The session stands, for the first time or again."""
        ...

    def received(self, messages: Sequence[Any]) -> None:
        """Messages from the server, the handshake's and heartbeats left out."""
        ...

    def writable(self) -> None:
        """Back-pressure is over."""
        ...

    def disconnected(self, reason: str) -> None:
        """The connection broke; the peer tries to come back."""
        ...


class Peer:
    """A session with the server.

    ``run`` ends only by ``close``, by cancellation, or with an exception that
    coming back can't mend (a key that is wrong or not taken any more, another
    protocol) or that ``patience_s`` has run out.
    """

    def __init__(
        self,
        owner: PeerOwner,
        role: m.Role,
        urls: Sequence[str],
        key: bytes,
        patience_s: float | None = None,
        *,
        trust: Trust = Trust(),  # noqa: B008 - a constant
        nearby: str | None = None,
    ) -> None:
        """Serve ``owner`` at the first of ``urls`` that answers and shows what ``trust`` asks for.

        ``patience_s``: how long to go on trying to come back; None: for ever. ``nearby``: the
        server's socket on this machine, which is tried first.
        """
        self.owner = owner
        self.role = role
        self.urls = list(urls)
        self.key = parse_key(key)
        self.patience_s = patience_s
        self.trust = trust
        self.nearby = nearby
        self.is_nearby = False
        """Whether it is connected there."""
        self.url = self.urls[0]
        self.welcome: m.Welcome | None = None
        self.renewed_at = clock.mono()
        """When the last frame left that the server is known to have received."""
        self.round_trip_s = 0.0
        """How long the server takes to answer: the least of the last few heartbeats'."""
        self._round_trips_s: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._connection: _Connection | None = None
        self._is_closing = False

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent right now."""
        return self._connection is not None

    @property
    def is_writable(self) -> bool:
        """Whether there is a connection and it takes more bytes."""
        return self._connection is not None and self._connection.link.is_writable

    def send(self, message: m.Message) -> None:
        """Send a message; without a connection it is dropped (the owner re-sends on return)."""
        if self._connection is not None:
            self._connection.link.send(message)

    def send_now(self, message: m.Message) -> None:
        """Send a message, and what else is waiting, not at the end of this turn of the loop."""
        if self._connection is not None:
            self._connection.link.put(message)
            self._connection.link.flush()

    def send_here(self, message: m.Message) -> bool:
        """From any thread: send a message at once if that is possible; whether it was."""
        connection = self._connection
        return connection is not None and connection.link.send_here(message)

    async def connect(self) -> m.Welcome:
        """Open the session at the first address that answers, beginning with the last that did.

        Raises ServerNotFound naming the addresses when nothing listens there,
        UntrustedServer when somebody else does, AuthenticationError or ProtocolError.
        """
        reasons: dict[str, str] = {}
        untrusted = None
        turns = in_turn(sorted(self.urls, key=lambda url: url != self.url), reasons)
        while (url := await self._next(turns)) is not None:
            try:
                return await self._connect_to(url)
            except UntrustedServer as error:  # on another network it is somebody else's address
                untrusted = untrusted or error
                reasons[url] = "another certificate"
            except (OSError, ConnectionLost, TimeoutError) as error:
                reasons[url] = str(error) or type(error).__name__
        raise nobody_there(reasons, untrusted)

    async def run(self) -> None:
        """Keep the session: heartbeat, and come back whenever the connection breaks."""
        refusals = 0
        while not self._is_closing:
            if self._connection is None:
                await self._come_back()
            connection = self._connection
            if connection is None:
                continue
            await self._beat_until_closed(connection)
            refusal = connection.refusal
            is_again = clock.mono() - connection.opening_sent_at < CALM_S
            refusals = (refusals + 1 if is_again else 1) if refusal else 0
            if refusals >= REFUSALS:
                await self._refused(refusal, is_first=refusals == REFUSALS)

    def close(self, reason: str = "") -> None:
        """End the session: the server need not expect this peer back."""
        self._is_closing = True
        if self._connection is not None:
            self._connection.link.send(m.Goodbye(reason))
            self._connection.link.close(reason or "goodbye")

    def drop(self, reason: str) -> None:
        """Cut the connection (not the session); ``run`` comes back."""
        if self._connection is not None:
            self._connection.link.abort(reason)

    async def _next(self, turns: Iterator[str]) -> str | None:
        if len(self.urls) == 1:
            return next(turns, None)
        return await asyncio.to_thread(next, turns, None)

    async def _connect_to(self, url: str) -> m.Welcome:
        connection = _Connection(self, url)
        async with asyncio.timeout(CONNECT_S):
            link = connection.link = await self._open_link(connection)
            try:
                return await connection.opened
            except BaseException:
                link.abort("gave up")
                # Its end comes in the next turn, and the loop may be closed soon after.
                await asyncio.wait([connection.closed], timeout=1.0)
                raise

    async def _open_link(self, connection: "_Connection") -> Link:
        link = await self._open_nearby(connection)
        if link is not None:
            return link
        address = parse_url(connection.url)
        session = Session(self.role)
        if not address.is_tls:
            socket_url = f"ws://{bracket(address.host)}:{address.port}/ws"
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: client_link(connection, session, socket_url), address.host, address.port
            )
            return link
        socket_url = f"wss://{bracket(address.host)}:{address.port}/ws"
        from multihost.runtime.tls import open_transport

        transport = await open_transport(connection.url, address, self.trust)
        link = client_link(connection, session, socket_url)
        transport.set_protocol(link)
        link.connection_made(transport)
        return link

    async def _open_nearby(self, connection: "_Connection") -> Link | None:
        """A link without a network and its encryption; None: nobody is there."""
        if self.nearby is None:
            return None
        try:
            _, link = await asyncio.get_running_loop().create_unix_connection(
                lambda: client_link(connection, Session(self.role), NEARBY_URL), self.nearby
            )
        except OSError:
            return None
        connection.is_nearby = True
        return link

    async def _come_back(self) -> None:
        began, backoff_s, told = clock.mono(), FIRST_BACKOFF_S, ""
        while not self._is_closing:
            try:
                await self.connect()
            except (ServerNotFound, ConnectionLost, UntrustedServer) as error:
                if isinstance(error, UntrustedServer) and str(error) != told:
                    # We know ours: this machine may be on another network for a while.
                    told = str(error)
                    warn("%s; trying again", told)
                waited_s = clock.mono() - began
                if self.patience_s is not None and waited_s + backoff_s > self.patience_s:
                    raise ConnectionLost(", ".join(self.urls), f"{error}") from error
                # Not all at once after a restart of the server.
                await asyncio.sleep(backoff_s * _chance.uniform(0.5, 1.0))
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
            else:
                return

    async def _refused(self, refusal: str, *, is_first: bool) -> None:
        """What is sent at every return is unreadable: a client gives up, a worker takes time."""
        text = (
            f"the server at {self.url} can't read what it is sent ({refusal}); have both ends run "
            "the same version of multihost"
        )
        if self.patience_s is not None:
            raise ProtocolError(text)
        if is_first:
            warn("%s; trying again", text)
        await asyncio.sleep(MAX_BACKOFF_S)

    async def _beat_until_closed(self, connection: "_Connection") -> None:
        assert self.welcome is not None
        beat_s, lease_s = self.welcome.heartbeat_s, self.welcome.lease_s
        number = 0
        connection.beat(number)
        while not connection.closed.done():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(connection.closed), beat_s)
            if connection.closed.done():
                break
            if clock.mono() - connection.received_at > lease_s:
                connection.link.abort(f"nothing from the server for {lease_s:g} s")
                continue
            number += 1
            connection.beat(number)

    def _beat_answered(self, sent_at: float, took_s: float) -> None:
        self.renewed_at = sent_at
        self._round_trips_s.append(took_s)
        self.round_trip_s = min(self._round_trips_s)

    def _connection_opened(self, connection: "_Connection", welcome: m.Welcome) -> None:
        self.url, self.is_nearby, self.welcome = connection.url, connection.is_nearby, welcome
        self._connection = connection
        self.renewed_at = connection.opening_sent_at
        self.owner.connected(welcome)

    def _connection_closed(self, connection: "_Connection", reason: str) -> None:
        if self._connection is connection:
            self._connection = None
            self.owner.disconnected(reason)


class _Connection:
    """One connection of a peer, from its handshake to its end."""

    link: Link
    has_link = False
    is_nearby = False

    def __init__(self, peer: Peer, url: str) -> None:
        loop = asyncio.get_running_loop()
        self.peer = peer
        self.url = url
        self.opened: asyncio.Future[m.Welcome] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.nonce = secrets.token_bytes(m.NONCE_BYTES)
        self.received_at = self.opening_sent_at = clock.mono()
        self.beats: dict[int, float] = {}

    @property
    def refusal(self) -> str:
        """Why the server can't take what it got, if it has closed the connection for that."""
        closed = self.link._protocol.close_rcvd
        if closed is None or closed.code != CloseCode.POLICY_VIOLATION:
            return ""
        return closed.reason

    def beat(self, number: int) -> None:
        self.beats[number] = clock.mono()
        self.link.send(m.Beat(number))

    def link_opened(self, link: Link) -> None:
        self.has_link = True
        link.on_part = self._part_came
        link.send(m.Hello(self.peer.role, self.nonce, key=self.peer.key.id))

    def _part_came(self) -> None:
        self.received_at = clock.mono()

    def link_received(self, link: Link, messages: Sequence[Any]) -> None:
        self.received_at = clock.mono()
        if self.peer._connection is not self:
            messages = self._handshake(link, messages)
        others = [message for message in messages if type(message) is not m.BeatBack]
        if len(others) != len(messages):
            for message in messages:
                if type(message) is m.BeatBack:
                    sent_at = self.beats.pop(message.number, None)
                    if sent_at is not None:
                        self.peer._beat_answered(sent_at, self.received_at - sent_at)
        if others:
            self.peer.owner.received(others)

    def link_writable(self, link: Link) -> None:
        if self.peer._connection is self:
            self.peer.owner.writable()

    def link_closed(self, link: Link, reason: str) -> None:
        if not self.opened.done():
            if not self.has_link and not parse_url(self.url).is_tls:
                reason = f"{reason}; {MAYBE_TLS}"
            self.opened.set_exception(ConnectionLost(self.url, reason))
        if not self.closed.done():
            self.closed.set_result(None)
        self.peer._connection_closed(self, reason)

    def _handshake(self, link: Link, messages: Sequence[Any]) -> Sequence[Any]:
        """Follow the handshake; return what came behind it in the same frame."""
        for position, message in enumerate(messages):
            if isinstance(message, m.Challenge):
                self._answer(link, message)
            elif isinstance(message, m.Denied):
                self._give_up(link, _denial(self.url, message))
            elif isinstance(message, m.Welcome) and not self.opened.done():
                self.peer._connection_opened(self, message)
                self.opened.set_result(message)
                return messages[position + 1 :]
        return ()

    def _answer(self, link: Link, challenge: m.Challenge) -> None:
        peer = self.peer
        expected = server_proof(peer.key.hash, self.nonce, challenge.nonce)
        if not is_proof(expected, challenge.proof):
            self._give_up(link, AuthenticationError(wrong_key(self.url)))
            return
        link.send(m.Proof(peer_proof(peer.key, peer.role, self.nonce, challenge.nonce)))
        link.flush()  # in a frame of its own: before it, the server takes only small ones
        self.opening_sent_at = clock.mono()
        link.send(peer.owner.opening())

    def _give_up(self, link: Link, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
        link.close("the handshake failed")


def _denial(url: str, denied: m.Denied) -> Exception:
    if denied.code is m.DenialCode.KEY:
        return AuthenticationError(wrong_key(url))
    if denied.code is m.DenialCode.EXPIRED:
        return KeyExpired(f"{url}: {denied.message}")
    if denied.code is m.DenialCode.REVOKED:
        return KeyRevoked(f"{url}: {denied.message}")
    if denied.code is m.DenialCode.ROLE:
        return NotAllowed(f"{url}: {denied.message}")
    if denied.code is m.DenialCode.STOPPING:
        return ConnectionLost(url, denied.message)
    return ProtocolError(f"{url}: {denied.message}")
