"""A connection that carries messages for one thread, which blocks while it waits for them.

The same bytes as a ``runtime.link.Link``'s, without an event loop: whoever asks
writes to the socket and reads from it. For a short exchange that is several
times cheaper than having another thread woken to do so. It knows no heartbeat
and does not come back; whatever goes wrong is an OSError, and its owner has
another way.
"""

import contextlib
import secrets
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from multihost.errors import MultihostError
from multihost.runtime.address import Address, bracket, is_unix_socket, parse_url
from multihost.runtime.link import NEARBY_URL, PATH
from multihost.runtime.plain import PlainReader, whole_frame
from multihost.runtime.spinning import Glance, is_waking_slow, is_worth_it
from multihost.runtime.trust import Trust, check_certificate, client_context
from multihost.wire import message as m
from multihost.wire.codec import WireError, decode_from_server, encode
from multihost.wire.keys import Key, is_proof, peer_proof, server_proof
from multihost.wire.session import IllegalMessageError, Session

if TYPE_CHECKING:
    import ssl

HANDSHAKE_S = 10.0
"""For each step of opening a connection."""
READ_BYTES = 64 << 10
_HEAD_BYTES = 10
"""The longest head of a frame from a server."""
_BINARY = 0x82
_KERNEL_TIMES = sys.platform != "win32"
"""Whether a socket is given its time as the pair of longs that ``timeval`` is."""


class BlockingLink:
    """An open connection, for one thread at a time.

    Any thread may ``interrupt`` it; the one that uses it, or nobody then, may ``close`` it.
    """

    def __init__(self, sock: "socket.socket | ssl.SSLSocket", session: Session) -> None:
        """Carry messages over ``sock``, checked by ``session``."""
        self._socket = sock
        self._is_nearby = is_unix_socket(sock)
        self._session = session
        self._reader = PlainReader(is_masked=False, limit_bytes=m.MAX_FRAME_BYTES)
        self._rest = b""
        self._glance: Glance | None = None
        """Waits for the next bytes where ``recv`` is not to do it."""
        self._wait_ms = 0.0
        self.is_waking_slow: bool | None = None
        """What the server knows of its machine."""

    def send(self, frame: bytes) -> None:
        """Send an encoded frame; raises OSError."""
        self._socket.sendall(whole_frame(frame, True, self._is_nearby))

    def receive(self) -> list[Any]:
        """Messages of the next frames; raises OSError, also if none begins in time."""
        if self._glance is not None and not self._glance.wait(self._wait_ms):
            raise TimeoutError("timed out")
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        payloads, rest = self._reader.feed(self._rest + data if self._rest else data)
        self._rest = bytes(rest) if rest else b""
        if rest and (rest[0] != _BINARY or len(rest) >= _HEAD_BYTES):
            raise ConnectionAbortedError("the server sent something else than messages")
        try:
            messages: list[Any] = []
            for payload in payloads:
                messages += decode_from_server(payload)
            for message in messages:
                self._session.received(message)
        except (WireError, IllegalMessageError) as error:
            raise ConnectionAbortedError(str(error)) from None
        return messages

    def give_time(self, wait_s: float) -> None:
        """From now on let nothing take longer than this."""
        sock = self._socket
        if not _KERNEL_TIMES or not _is_bare(sock):
            sock.settimeout(wait_s)
            return
        # The kernel keeps the time: Python would ask poll() before each send and receive.
        sock.settimeout(None)
        seconds, rest_s = divmod(wait_s, 1)
        time = struct.pack("ll", int(seconds), int(rest_s * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, time)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time)
        if self._is_nearby:
            # Else the kernel wakes the thread twice: who waits in recv() of a Unix socket is woken
            # when the other end has read what was sent, too.
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            self._glance, self._wait_ms = Glance(poll.poll), wait_s * 1e3

    def look_if_worth_it(self) -> None:
        """From any thread: look for answers for a moment before sleeping, if waking is slow here.

        On this machine alone: over a network the answer takes longer than that. Measured here
        if the server does not know.
        """
        known = self.is_waking_slow
        if self._glance is not None:
            with contextlib.suppress(RuntimeError):  # no more threads may be started
                measure = is_waking_slow if known is None else lambda: known
                self._glance.is_worth_it = is_worth_it(measure)

    def interrupt(self) -> None:
        """End the connection: whoever waits at it gets an OSError."""
        with contextlib.suppress(OSError):  # ended already
            # Not the method of an SSLSocket, which takes its encryption from under the reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection and give its descriptor back."""
        self.interrupt()
        self._socket.close()

    def forget(self) -> None:
        """In a forked child: give the descriptor back; the connection is the parent's."""
        self._socket.close()


def open_blocking(
    url: str, key: Key, trust: Trust, opening: m.Message, nearby: str | None = None
) -> BlockingLink:
    """A connection to the server at ``url`` on which ``opening`` was answered as it should be.

    ``nearby``: its socket on this machine, to be used instead. Raises OSError or MultihostError.
    """
    address = parse_url(url)
    link = None
    sock = _connected(address) if nearby is None else _connected_nearby(nearby)
    try:
        if nearby is not None:
            place = NEARBY_URL
        elif address.is_tls:
            sock = _encrypted(sock, url, address, trust)
            place = f"wss://{bracket(address.host)}:{address.port}{PATH}"
        else:
            place = f"ws://{bracket(address.host)}:{address.port}{PATH}"
        _upgrade(sock, place)
        link = BlockingLink(sock, Session(m.Role.CLIENT))
        _enter(link, key, opening)
    except BaseException:
        sock.close()
        raise
    return link


def _is_bare(sock: socket.socket) -> bool:
    """Whether nothing stands between a socket and its bytes: OpenSSL would try again for ever."""
    return type(sock) is socket.socket


def _connected(address: Address) -> socket.socket:
    sock = socket.create_connection((address.host, address.port), HANDSHAKE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _connected_nearby(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(HANDSHAKE_S)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _encrypted(sock: socket.socket, url: str, address: Address, trust: Trust) -> "ssl.SSLSocket":
    encrypted = client_context(trust).wrap_socket(sock, server_hostname=address.host)
    try:
        check_certificate(url, trust, encrypted.getpeercert(binary_form=True))
    except MultihostError:
        encrypted.close()
        raise
    return encrypted


def _upgrade(sock: socket.socket, place: str) -> None:
    protocol = ClientProtocol(parse_uri(place))
    protocol.send_request(protocol.connect())
    sock.sendall(b"".join(protocol.data_to_send()))
    while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
        data = sock.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        protocol.receive_data(data)
    if protocol.state is not State.OPEN:
        raise ConnectionRefusedError(f"no WebSocket handshake: {protocol.handshake_exc}")


def _enter(link: BlockingLink, key: Key, opening: m.Message) -> None:
    """Prove the key, have the server prove it, and say what the connection is for."""
    nonce = secrets.token_bytes(m.NONCE_BYTES)
    _say(link, m.Hello(m.Role.CLIENT, nonce, key=key.id))
    challenge = _answer(link, m.Challenge)
    if not is_proof(server_proof(key.hash, nonce, challenge.nonce), challenge.proof):
        raise ConnectionRefusedError("the server does not know the key")
    # In a frame of its own: before it, the server takes only small ones.
    _say(link, m.Proof(peer_proof(key, m.Role.CLIENT, nonce, challenge.nonce)))
    _say(link, opening)
    link.is_waking_slow = _answer(link, m.Branched).is_waking_slow


def _say(link: BlockingLink, message: m.Message) -> None:
    link._session.sent(message)
    link.send(encode([message]))


def _answer(link: BlockingLink, kind: type[m.Message]) -> Any:
    messages: list[Any] = []
    while not messages:
        messages = link.receive()
    if type(messages[0]) is not kind:
        why = getattr(messages[0], "message", type(messages[0]).__name__)
        raise ConnectionRefusedError(f"the server refuses the connection: {why}")
    return messages[0]
