"""Which message is legal when, and which role of a key it takes.

Tables decide. Both ends check what they receive against the first two: an
illegal message ends the connection. The server looks into ``MAY_SEND`` as well:
what a key may not do is answered with an error, and the connection goes on.
"""

from enum import StrEnum
from typing import Final

from multihost.wire import message as m
from multihost.wire.keys import ANYBODY, PEERS, READERS, SUBMITTERS, WORKERS, KeyRole
from multihost.wire.message import Message, Role


class Phase(StrEnum):
    """How far a connection has come."""

    NEW = "new"
    """Nothing said yet."""
    CHALLENGED = "challenged"
    """The server has proved itself and waits for the peer's proof."""
    PROVED = "proved"
    """The peer knows the key; it has still to say which session it opens."""
    OPEN = "open"
    BRANCH = "branch"
    """It belongs to a session that is open on another connection, and carries calls."""


def _kinds(*kinds: type[Message]) -> frozenset[type[Message]]:
    return frozenset(kinds)


_BLOBS: Final = _kinds(m.FindBlob, m.PutBlob, m.GetBlob)
_BLOB_ANSWERS: Final = _kinds(m.BlobFound, m.BlobStored, m.BlobRefused, m.BlobPart)
_ANY_TIME: Final = _kinds(m.Denied, m.Goodbye)
_WHEN_OPEN: Final = _ANY_TIME | _kinds(m.Forbidden)

LEGAL_FROM_PEER: Final[dict[tuple[Role | None, Phase], frozenset[type[Message]]]] = {
    (None, Phase.NEW): _kinds(m.Hello),
    (Role.CLIENT, Phase.CHALLENGED): _kinds(m.Proof),
    (Role.WORKER, Phase.CHALLENGED): _kinds(m.Proof),
    (Role.CLIENT, Phase.PROVED): _kinds(m.Attach, m.Branch),
    (Role.WORKER, Phase.PROVED): _kinds(m.Enlist),
    (Role.CLIENT, Phase.OPEN): _BLOBS
    | _kinds(m.Beat, m.Goodbye, m.Open, m.Add, m.Seal, m.Cancel, m.Taken, m.Close, m.Resize)
    | _kinds(m.Call, m.Withdraw, m.EndTaker, m.Signal),
    (Role.WORKER, Phase.OPEN): _BLOBS
    | _kinds(m.Beat, m.Goodbye, m.Want, m.Finished, m.GiveBack, m.Output, m.Drain)
    | _kinds(m.Began, m.Children, m.Installed),
    (Role.CLIENT, Phase.BRANCH): _kinds(m.Call),
}
"""What the server accepts from a peer of a role in a phase."""

MAY_SEND: Final[dict[type[Message], frozenset[KeyRole]]] = {
    m.Hello: ANYBODY,
    m.Proof: ANYBODY,
    m.Attach: READERS,
    m.Branch: SUBMITTERS,
    m.Enlist: WORKERS,
    m.Beat: ANYBODY,
    m.Goodbye: ANYBODY,
    m.FindBlob: PEERS,
    m.PutBlob: PEERS,
    m.GetBlob: PEERS,
    m.Open: SUBMITTERS,
    m.Add: SUBMITTERS,
    m.Seal: SUBMITTERS,
    m.Cancel: SUBMITTERS,
    m.Taken: SUBMITTERS,
    m.Close: SUBMITTERS,
    m.Resize: SUBMITTERS,
    m.Call: SUBMITTERS,
    m.Withdraw: SUBMITTERS,
    m.EndTaker: SUBMITTERS,
    m.Signal: SUBMITTERS,
    m.Want: WORKERS,
    m.Finished: WORKERS,
    m.GiveBack: WORKERS,
    m.Output: WORKERS,
    m.Drain: WORKERS,
    m.Began: WORKERS,
    m.Children: WORKERS,
    m.Installed: WORKERS,
}
"""Roles of the key with which a peer may send a message."""

LEGAL_FROM_SERVER: Final[dict[tuple[Role, Phase], frozenset[type[Message]]]] = {
    (Role.CLIENT, Phase.NEW): _ANY_TIME | _kinds(m.Challenge),
    (Role.WORKER, Phase.NEW): _ANY_TIME | _kinds(m.Challenge),
    (Role.CLIENT, Phase.CHALLENGED): _ANY_TIME,
    (Role.WORKER, Phase.CHALLENGED): _ANY_TIME,
    (Role.CLIENT, Phase.PROVED): _ANY_TIME | _kinds(m.Welcome, m.Branched),
    (Role.WORKER, Phase.PROVED): _ANY_TIME | _kinds(m.Welcome),
    (Role.CLIENT, Phase.OPEN): _WHEN_OPEN
    | _BLOB_ANSWERS
    | _kinds(
        m.BeatBack,
        m.Opened,
        m.OpenRefused,
        m.Stored,
        m.AddRefused,
        m.Outcomes,
        m.Started,
        m.Printed,
        m.Ended,
        m.Waiting,
        m.Answer,
        m.ProcessBegan,
    ),
    (Role.WORKER, Phase.OPEN): _WHEN_OPEN
    | _BLOB_ANSWERS
    | _kinds(m.BeatBack, m.Grants, m.Settled, m.Revoked, m.SetSlots, m.SignalTask, m.StarterGone),
    (Role.CLIENT, Phase.BRANCH): _ANY_TIME | _kinds(m.Answer, m.BeatBack),
}
"""What a peer of a role accepts from the server in a phase."""

_STEPS: Final[dict[type[Message], Phase]] = {
    m.Challenge: Phase.CHALLENGED,
    m.Proof: Phase.PROVED,
    m.Welcome: Phase.OPEN,
    m.Branched: Phase.BRANCH,
}
"""Messages that carry a connection on to its next phase, whoever sends them."""


class IllegalMessageError(Exception):
    """A message that the table does not allow in this phase."""


class Session:
    """Where one connection stands; each end keeps its own.

    Feed it every message sent and received. It raises IllegalMessageError for
    a received one that is not legal; the connection is then to be closed.
    """

    __slots__ = ("_incoming", "is_server", "phase", "role")

    def __init__(self, role: Role | None) -> None:
        """Begin as a peer of ``role``, or as the server (None: the role is told by Hello)."""
        self.role = role
        self.is_server = role is None
        self.phase = Phase.NEW
        self._incoming = self._legal()

    def received(self, message: Message) -> None:
        """Check a message from the other end and follow it to the next phase."""
        kind = type(message)
        if kind not in self._incoming:
            text = (
                f"{kind.__name__} is not legal from a {self.role or 'peer'} in phase {self.phase}"
            )
            raise IllegalMessageError(text)
        if kind is m.Hello:
            self.role = message.role  # type: ignore[attr-defined]
        if kind in _STEPS:
            self._step(kind)

    def sent(self, message: Message) -> None:
        """Follow a message of this end to the next phase."""
        kind = type(message)
        if kind in _STEPS:
            self._step(kind)

    def _step(self, kind: type[Message]) -> None:
        self.phase = _STEPS[kind]
        self._incoming = self._legal()

    def _legal(self) -> frozenset[type[Message]]:
        if self.is_server:
            role = None if self.phase is Phase.NEW else self.role
            return LEGAL_FROM_PEER[role, self.phase]
        assert self.role is not None
        return LEGAL_FROM_SERVER[self.role, self.phase]
