"""Connections: who may come in, and as what.

A connection proves the key, opens its session, and from then on belongs to a
``ClientPeer`` or a ``WorkerPeer``. Before that it can say three small messages
and has ten seconds to do so.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import multihost
from multihost.runtime import clock
from multihost.runtime.link import Link, server_link
from multihost.server.admission import HANDSHAKE_S, Admission, Arrival
from multihost.server.audit import Audit
from multihost.server.committer import Committer
from multihost.server.intake import Intake, SessionPeer
from multihost.server.keyring import Keyring, why_ended, why_not
from multihost.store.access import AccessKey
from multihost.wire import message as m
from multihost.wire.keys import KeyRole, is_peer_proof, server_proof
from multihost.wire.session import MAY_SEND

NO_BEAT = -1
"""A peer counts its beats from 0: this answers none."""
STILL_COMING_S = 1.0
"""So often a peer is told that what it sends is coming, while nothing else is said."""
FOR_TASKS = "; if this is a task, its worker needs --tasks-key-file with such a key"
_OPENED_BY: dict[m.Role, type[m.Message]] = {m.Role.CLIENT: m.Attach, m.Role.WORKER: m.Enlist}
_OPENINGS = {
    m.Attach: "opening a client's session",
    m.Branch: "branching a client's session",
    m.Enlist: "opening a worker's session",
}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where sessions are opened, by role."""

    attach: Callable[["Connection", m.Attach], SessionPeer]
    enlist: Callable[["Connection", m.Enlist], SessionPeer]
    branch: Callable[["Connection", m.Branch], SessionPeer | m.Denied]


class Gateway:
    """All connections of a server."""

    def __init__(
        self,
        keyring: Keyring,
        desk: Desk,
        admission: Admission,
        committer: Committer,
        audit: Audit,
    ) -> None:
        """Let in who knows a key of ``keyring``, while there is room, and hand them to ``desk``."""
        self.keyring = keyring
        self.desk = desk
        self.admission = admission
        self.committer = committer
        self.audit = audit
        self.connections: set[Connection] = set()
        self.is_stopping = False

    def protocol(self, *, arrival: Arrival, **_: object) -> Link:
        """Make the asyncio protocol of a new WebSocket connection, in the form uvicorn asks for."""
        return server_link(Connection(self, arrival))

    def pause(self) -> None:
        """Read nothing more of anyone: the server is about to stop."""
        for connection in self.connections:
            connection.link.pause_reading("stopping")

    def stop(self, reason: str) -> None:
        """Tell every peer and close its connection; take no new ones."""
        self.is_stopping = True
        for connection in list(self.connections):
            connection.link.send(m.Goodbye(reason))
            connection.link.close(reason)


class Connection:
    """One connection, from the handshake on."""

    link: Link
    key: AccessKey
    """What it has come in with, once that is proved."""

    def __init__(self, gateway: Gateway, arrival: Arrival) -> None:
        """Begin without any rights."""
        self.gateway = gateway
        self.arrival = arrival
        self.intake: Intake | None = None
        """The way to the session's peer, once it is open."""
        self.received_at = clock.mono()
        self._told_at = self.received_at
        """When the peer was last told that what it sends is coming."""
        self._hello: m.Hello | None = None
        self._nonce = secrets.token_bytes(m.NONCE_BYTES)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_proved = False
        """Or has failed for another reason than its key."""
        self._is_known = False

    # LinkOwner ---------------------------------------------------------------------

    def link_opened(self, link: Link) -> None:
        """Start the clock."""
        self.link = link
        link.on_part = self._part_came
        self.gateway.connections.add(self)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_S, link.abort, "no handshake in time")
        if self.gateway.is_stopping:
            self.deny(m.DenialCode.STOPPING, "the server is stopping")

    def link_received(self, link: Link, messages: Sequence[Any]) -> None:
        """Go on with the handshake, or hand over to the session."""
        self.received_at = clock.mono()
        if self.intake is not None:
            self.intake.received(messages)
            if not link.is_writable:
                # Who does not read what it asked for may not ask for more.
                link.pause_reading("unread")
            return
        for position, message in enumerate(messages):
            self._handshake(message)
            if self.intake is not None:
                if position + 1 < len(messages):
                    self.intake.received(messages[position + 1 :])
                return

    def _part_came(self) -> None:
        """What takes long to come is a sign of life; the peer's heartbeats are behind it."""
        now = clock.mono()
        if self.intake is not None and now - self._told_at > STILL_COMING_S:
            self._told_at = now
            self.intake.peer.received(())
            self.link.send(m.BeatBack(NO_BEAT))

    def link_writable(self, link: Link) -> None:
        """Pass on."""
        link.resume_reading("unread")
        if self.intake is not None:
            self.intake.peer.writable()

    def link_closed(self, link: Link, reason: str) -> None:
        """Forget the connection."""
        self.arrival.left()
        self.gateway.connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self.intake is not None:
            self.intake.closed(reason)
        elif self._hello and not self._is_proved and not self.gateway.is_stopping:
            # Whoever sees from our proof that its key is wrong just leaves.
            self._note_failure()

    # the handshake -------------------------------------------------------------------

    def refuse(self, message: m.Message) -> str:
        """Note that the key may not send this, and say why."""
        name = type(message).__name__
        self.audit_refusal(f"{name} with role {self.key.role}")
        what = _OPENINGS.get(type(message), f"the message {name}")
        assert self._hello is not None
        # Of the roles that may, those that get so far on a connection of this kind.
        needed = MAY_SEND[type(message)] & MAY_SEND[_OPENED_BY[self._hello.role]]
        text = why_not(self.key, needed, what)
        is_a_task = self.key.role is KeyRole.WORK
        return f"{text}{FOR_TASKS}" if is_a_task else text

    def audit_refusal(self, what: str) -> None:
        """Note that something was refused to this connection."""
        key = self.key if self._is_known else None
        self.gateway.audit.refused(self.link.peer_address, key, what)

    def refuse_session(self) -> None:
        """Let nobody go on with a session that was opened with another key."""
        self.audit_refusal("a session that was opened with another key")
        self.deny(
            m.DenialCode.ROLE,
            f"this session was opened with another key than {self.key.id} ({self.key.name}), and "
            "only that one goes on with it; start the program or worker again, and it opens one "
            "of its own",
        )

    def deny(self, code: m.DenialCode, text: str) -> None:
        """Refuse the connection and close it."""
        self.link.send(m.Denied(code, text))
        self.link.close(text)

    def _handshake(self, message: object) -> None:
        if isinstance(message, m.Hello):
            self._greet(message)
        elif isinstance(message, m.Proof):
            self._check(message)
        elif isinstance(message, m.Attach | m.Enlist | m.Branch) and self._is_proved:
            if self.key.role not in MAY_SEND[type(message)]:
                self.deny(m.DenialCode.ROLE, self.refuse(message))
                return
            peer = self._open(message)
            if isinstance(peer, m.Denied):
                self.audit_refusal(f"{_OPENINGS[type(message)]}: {peer.message}")
                self.deny(peer.code, peer.message)
                return
            assert self._deadline is not None
            self._deadline.cancel()
            self.intake = Intake(self.link, peer, self.gateway.committer)

    def _open(self, message: m.Attach | m.Enlist | m.Branch) -> SessionPeer | m.Denied:
        desk = self.gateway.desk
        if isinstance(message, m.Attach):
            return desk.attach(self, message)
        if isinstance(message, m.Enlist):
            return desk.enlist(self, message)
        return desk.branch(self, message)

    def _greet(self, hello: m.Hello) -> None:
        if self._hello is not None:
            self.link.abort("a second Hello")
            return
        self._hello = hello
        if hello.protocol != m.PROTOCOL:
            self._is_proved = True  # not a matter of keys
            self.deny(
                m.DenialCode.PROTOCOL,
                f"this server is multihost {multihost.__version__} with protocol {m.PROTOCOL}, "
                f"the peer is {hello.software or 'unknown'} with protocol {hello.protocol}: "
                "install the same version on both",
            )
            return
        slow_s = self.gateway.admission.failures.slow_s(self._address(), clock.mono())
        if slow_s:
            asyncio.get_running_loop().call_later(slow_s, self._challenge, hello)
        else:
            self._challenge(hello)

    def _challenge(self, hello: m.Hello) -> None:
        key_hash = self.gateway.keyring.hash_of(hello.key)
        proof = server_proof(key_hash, hello.nonce, self._nonce)
        self.link.send(m.Challenge(self._nonce, proof))

    def _check(self, message: m.Proof) -> None:
        assert self._hello is not None
        hello, keyring = self._hello, self.gateway.keyring
        key, key_hash = keyring.find(hello.key), keyring.hash_of(hello.key)
        is_right = is_peer_proof(message.proof, key_hash, hello.role, hello.nonce, self._nonce)
        if key is None or not is_right:
            self.deny(m.DenialCode.KEY, "wrong key")
            return
        self._is_proved = self._is_known = True
        self.key = key
        if not key.is_live(clock.wall()):
            is_expired = key.revoked_at is None
            self.audit_refusal(f"the key is {'expired' if is_expired else 'revoked'}")
            code = m.DenialCode.EXPIRED if is_expired else m.DenialCode.REVOKED
            self.deny(code, why_ended(key))
        elif self.arrival.prove():
            self.arrival.key = key.id
            self.link.admit()
        else:
            self.deny(m.DenialCode.LIMIT, self.gateway.admission.why_full)

    def _note_failure(self) -> None:
        self.audit_refusal("a handshake that proved no key")
        self.gateway.admission.failures.note(self._address(), clock.mono())

    def _address(self) -> str:
        return self.arrival.address
