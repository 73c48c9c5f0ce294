"""A peer that says exactly what it is told to, well-formed or not.

For tests of what a server does with bytes that no client of ours would send.
Blocking, on a bare socket, without any of the client's own caution.
"""

import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from multihost.runtime.plain import PlainReader, plain_frame
from multihost.wire import message as m
from multihost.wire.codec import decode_from_server, encode
from multihost.wire.keys import parse_key, peer_proof

DEADLINE_S = 30.0
UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
_HEAD_END = b"\r\n\r\n"


class Stranger:
    """One connection to a server on this machine, without TLS."""

    def __init__(self, url: str, key: bytes, role: m.Role = m.Role.CLIENT) -> None:
        """Connect; nothing is said yet."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.key = key
        self.role = role
        self.socket = socket.create_connection((host, int(port)), DEADLINE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_closed = False
        self.answer_head = b""
        self._host = host
        self._reader = PlainReader(is_masked=False, limit_bytes=m.MAX_FRAME_BYTES)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()
        self.is_closed = True

    # saying ------------------------------------------------------------------------

    def say(self, data: bytes) -> bool:
        """Send bytes as they are; False: the server has hung up."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.is_closed = True
        return not self.is_closed

    def send_frame(self, payload: bytes) -> bool:
        """Send a binary WebSocket frame."""
        return self.say(b"".join(plain_frame(payload, is_masked=True)))

    def send(self, *messages: m.Message) -> bool:
        """Send messages in one frame."""
        return self.send_frame(encode(messages))

    # the handshake -------------------------------------------------------------------

    def upgrade(self, more: str = "") -> None:
        """Ask for a WebSocket; ``more``: further header lines."""
        self.say(UPGRADE.format(host=self._host, more=more).encode())
        head = b""
        while _HEAD_END not in head and not self.is_closed:
            head += self.read()
        self.answer_head, _, self._rest = head.partition(_HEAD_END)

    def prove(self) -> None:
        """Show the key."""
        nonce = os.urandom(m.NONCE_BYTES)
        key = parse_key(self.key)
        self.send(m.Hello(self.role, nonce, key=key.id))
        challenge = self.receive()[0]
        assert isinstance(challenge, m.Challenge), challenge
        self.send(m.Proof(peer_proof(key, self.role, nonce, challenge.nonce)))

    def enter(self, uid: bytes | None = None) -> Self:
        """Do all of the handshake and open a session, as ``role``."""
        self.upgrade()
        self.prove()
        uid = uid or os.urandom(16)
        if self.role is m.Role.CLIENT:
            self.send(m.Attach(uid))
        else:
            self.send(m.Enlist(uid, "stranger"))
        welcome = self.receive()[0]
        assert isinstance(welcome, m.Welcome), welcome
        return self

    # hearing -------------------------------------------------------------------------

    def read(self) -> bytes:
        """Bytes as they come; none: the server has hung up."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        self.is_closed = not data
        return data

    def receive(self) -> Sequence[Any]:
        """Messages of the next frame; none: the server has hung up, or said something else."""
        while True:
            data, self._rest = self._rest or self.read(), b""
            if not data:
                return []
            payloads, rest = self._reader.feed(data)
            if rest:  # a close frame, or none of ours
                self.is_closed = True
            messages = [each for payload in payloads for each in decode_from_server(payload)]
            if messages or self.is_closed:
                return messages

    def is_served(self) -> bool:
        """Whether the server still answers on this connection."""
        self.send(m.Beat(77))
        while not self.is_closed:
            if m.BeatBack(77) in self.receive():
                return True
        return False
