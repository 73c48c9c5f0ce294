"""Claims about the handshake and the table of legal messages."""

import pytest

from multihost.wire import message as m
from multihost.wire.session import (
    LEGAL_FROM_PEER,
    LEGAL_FROM_SERVER,
    IllegalMessageError,
    Phase,
    Session,
)

NONCE = bytes(32)


def open_session(role):
    server = Session(None)
    server.received(m.Hello(role, NONCE))
    server.sent(m.Challenge(NONCE, b""))
    server.received(m.Proof(b""))
    opening = m.Attach(b"u" * 16) if role is m.Role.CLIENT else m.Enlist(b"u" * 16, "w")
    server.received(opening)
    server.sent(m.Welcome(1, b"s"))
    return server


@pytest.mark.parametrize("role", list(m.Role))
def test_a_peer_that_follows_the_handshake_gets_an_open_session(role):
    assert open_session(role).phase is Phase.OPEN


def test_a_branch_carries_nothing_but_calls_to_the_server():
    server = Session(None)
    server.received(m.Hello(m.Role.CLIENT, NONCE))
    server.sent(m.Challenge(NONCE, b""))
    server.received(m.Proof(b""))
    server.received(m.Branch(b"u" * 16, b"ticket"))
    server.sent(m.Branched())
    assert server.phase is Phase.BRANCH
    assert LEGAL_FROM_PEER[m.Role.CLIENT, Phase.BRANCH] == {m.Call}


def test_nothing_but_hello_is_legal_at_first():
    for kind in m.Message.__subclasses__():
        assert (kind in LEGAL_FROM_PEER[None, Phase.NEW]) == (kind is m.Hello)


def test_a_worker_can_not_submit():
    with pytest.raises(IllegalMessageError, match="Open is not legal from a worker"):
        open_session(m.Role.WORKER).received(m.Open(1, b"u" * 16, None))


def test_a_client_can_not_take_leases():
    with pytest.raises(IllegalMessageError, match="Want is not legal from a client"):
        open_session(m.Role.CLIENT).received(m.Want(1))


@pytest.mark.parametrize("role", list(m.Role))
def test_nothing_is_legal_before_the_proof(role):
    server = Session(None)
    server.received(m.Hello(role, NONCE))
    server.sent(m.Challenge(NONCE, b""))
    for kind in LEGAL_FROM_PEER[role, Phase.OPEN]:
        assert kind not in LEGAL_FROM_PEER[role, Phase.CHALLENGED]


def test_every_message_is_legal_somewhere():
    everywhere = set().union(*LEGAL_FROM_PEER.values(), *LEGAL_FROM_SERVER.values())
    assert everywhere == set(m.Message.__subclasses__())


def test_tags_are_unique():
    tags = [kind.__struct_config__.tag for kind in m.Message.__subclasses__()]
    assert len(tags) == len(set(tags))
