"""Keys: how they are written, what their roles may do, and how one is proved without sending it.

A key is a number and a secret, ``mhk_<id>_<secret>``; the server keeps the
secret's hash only. Each end shows the other that it knows the key, the server
first, so that a peer never answers a stranger. The server's proof takes the
hash, the peer's the secret itself, hidden under what only the hash and both
nonces give: whoever reads the server's store can't come in with what is there.
"""

import base64
import hashlib
import hmac
import re
from enum import StrEnum
from typing import Final, NamedTuple

from multihost.wire.message import Role

OWN_KEY: Final = "own"
"""Id of the key in the server's own key file, which may do everything."""
ID_BYTES: Final = 4
SECRET_BYTES: Final = 32
_TEXT: Final = re.compile(rb"mhk_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


class KeyRole(StrEnum):
    """What the holders of a key may do."""

    ADMIN = "admin"
    """Everything."""
    SUBMIT = "submit"
    """A client's: submit, cancel, use queues and locks, read."""
    WORK = "work"
    """A worker's: take tasks and say how they ended."""
    VIEW = "view"
    """Read listings."""


ANYBODY: Final = frozenset(KeyRole)
ADMINS: Final = frozenset({KeyRole.ADMIN})
SUBMITTERS: Final = ADMINS | {KeyRole.SUBMIT}
WORKERS: Final = ADMINS | {KeyRole.WORK}
READERS: Final = SUBMITTERS | {KeyRole.VIEW}
PEERS: Final = SUBMITTERS | WORKERS


class Key(NamedTuple):
    """A key, taken apart."""

    id: str
    secret: bytes

    @property
    def hash(self) -> bytes:
        """What the server keeps."""
        return hashlib.sha256(self.secret).digest()

    @property
    def text(self) -> str:
        """The key as it is given to people."""
        secret = base64.urlsafe_b64encode(self.secret).rstrip(b"=")
        return f"mhk_{self.id}_{secret.decode()}"

    def __repr__(self) -> str:
        return f"Key({self.id})"


def parse_key(text: bytes) -> Key:
    """The key that is written so; any other bytes are those of a server's own key file."""
    match = _TEXT.fullmatch(text)
    if match is not None:
        key = Key(match[1].decode(), base64.urlsafe_b64decode(match[2] + b"="))
        if key.text.encode() == text:  # of its last letter two bits are of no use: they are 0
            return key
    return Key(OWN_KEY, hashlib.sha256(b"multihost key\0" + text).digest())


def in_words(roles: frozenset[KeyRole]) -> str:
    """Roles as they are listed in a sentence."""
    names = [str(role) for role in KeyRole if role in roles]
    return " or ".join(names)


# --- proofs ----------------------------------------------------------------------------------


def server_proof(key_hash: bytes, peer_nonce: bytes, server_nonce: bytes) -> bytes:
    """By which the server shows a peer that it knows the key."""
    return _mac(key_hash, b"multihost server 2", peer_nonce, server_nonce)


def peer_proof(key: Key, role: Role, peer_nonce: bytes, server_nonce: bytes) -> bytes:
    """By which a peer shows the server that it knows the key."""
    return _xor(key.secret, _cover(key.hash, role, peer_nonce, server_nonce))


def is_peer_proof(
    given: bytes, key_hash: bytes, role: Role, peer_nonce: bytes, server_nonce: bytes
) -> bool:
    """Whether ``given`` is the proof of a peer that knows the key; takes the same time always."""
    if len(given) != SECRET_BYTES:
        return False
    return is_secret(_xor(given, _cover(key_hash, role, peer_nonce, server_nonce)), key_hash)


def is_secret(secret: bytes, key_hash: bytes) -> bool:
    """Whether it is the secret with this hash; takes the same time always."""
    return hmac.compare_digest(hashlib.sha256(secret).digest(), key_hash)


def is_proof(expected: bytes, given: bytes) -> bool:
    """Compare two proofs in constant time."""
    return hmac.compare_digest(expected, given)


def _cover(key_hash: bytes, role: Role, peer_nonce: bytes, server_nonce: bytes) -> bytes:
    return _mac(key_hash, b"multihost " + role.encode() + b" 2", peer_nonce, server_nonce)


def _mac(key_hash: bytes, purpose: bytes, peer_nonce: bytes, server_nonce: bytes) -> bytes:
    text = b"\0".join((purpose, peer_nonce.hex().encode(), server_nonce.hex().encode()))
    return hmac.new(key_hash, text, hashlib.sha256).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
