"""Claims about keys: how they are written, and how they are proved."""

import pytest

from multihost.wire.keys import (
    OWN_KEY,
    Key,
    is_peer_proof,
    is_secret,
    parse_key,
    peer_proof,
    server_proof,
)
from multihost.wire.message import Role

KEY = Key("0123abcd", bytes(range(32)))
OTHER = Key("0123abcd", bytes(32))
MINE, THEIRS = b"a" * 32, b"b" * 32


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(range(32))])
def test_a_key_is_read_as_it_is_written(secret):
    key = Key("00ff00ff", secret)
    assert parse_key(key.text.encode()) == key


@pytest.mark.parametrize(
    "text",
    [
        KEY.text.encode()[:-1] + b"9",
        b"x",
        KEY.text.encode()[:-1],
        KEY.text.encode() + b"x",
        b"mhk_",
        b"",
        b"\xff\0",
    ],
)
def test_any_other_text_is_that_of_a_servers_own_key(text):
    key = parse_key(text)
    assert (key.id, len(key.secret)) == (OWN_KEY, 32)
    assert key != parse_key(text + b"y")


def test_a_key_does_not_show_its_secret():
    assert KEY.text[-43:] not in repr(KEY) + str(KEY)
    assert str(KEY.secret) not in repr(KEY)


def test_the_hash_tells_the_secret_from_others():
    assert is_secret(KEY.secret, KEY.hash)
    assert not is_secret(OTHER.secret, KEY.hash)
    assert not is_secret(KEY.hash, KEY.hash)


@pytest.mark.parametrize("role", Role)
def test_a_peer_proves_the_key_that_it_has(role):
    assert is_peer_proof(peer_proof(KEY, role, MINE, THEIRS), KEY.hash, role, MINE, THEIRS)


@pytest.mark.parametrize(
    "proof",
    [
        pytest.param(peer_proof(OTHER, Role.CLIENT, MINE, THEIRS), id="another secret"),
        pytest.param(peer_proof(KEY, Role.WORKER, MINE, THEIRS), id="another kind of peer"),
        pytest.param(peer_proof(KEY, Role.CLIENT, THEIRS, MINE), id="other nonces"),
        pytest.param(server_proof(KEY.hash, MINE, THEIRS), id="the server's own proof"),
        pytest.param(KEY.hash, id="the hash itself"),
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(33), id="too much"),
        pytest.param(
            peer_proof(Key(KEY.id, KEY.hash), Role.CLIENT, MINE, THEIRS), id="what the store has"
        ),
    ],
)
def test_no_other_proof_is_taken(proof):
    assert not is_peer_proof(proof, KEY.hash, Role.CLIENT, MINE, THEIRS)


def test_the_secret_is_not_in_the_proof():
    assert KEY.secret not in peer_proof(KEY, Role.CLIENT, MINE, THEIRS)
    one, other = (peer_proof(KEY, Role.CLIENT, MINE, bytes([n]) * 32) for n in (1, 2))
    assert one != other
