"""Both sides show that they know the authkey, without saying it.

The server challenges first, then the client does. Up to Python 3.11 the answer
is a bare HMAC-MD5 of the challenge; from 3.12 on challenges begin with
``{sha256}``, and answers name the digest they were made with. The same
challenge serves both: an old client takes the prefix for part of it.
"""

import hmac
from collections.abc import Mapping

CHALLENGE = b"#CHALLENGE#"
WELCOME = b"#WELCOME#"
FAILURE = b"#FAILURE#"
NONCE_BYTES = 40
DIGESTS = frozenset({"md5", "sha256", "sha384", "sha3_256", "sha3_384"})
MD5_BYTES = 16
OLD_NONCE_BYTES = 20
"""Length of the challenges of Python up to 3.11, which have no prefix."""


class Handshake:
    """The server's half of one connection; gets messages, returns what to send.

    Invariant: ``key`` is set exactly when the peer has shown that it knows that key;
    ``is_done`` when it has been shown the same. ``is_refused``: close after sending.
    """

    def __init__(self, keys: Mapping[bytes, object], nonce: bytes) -> None:
        """Accept who knows one of ``keys``; ``nonce`` is random, NONCE_BYTES long."""
        self._keys = keys
        self._challenge = b"{sha256}" + nonce
        self.key: bytes | None = None
        self.is_done = False
        self.is_refused = False
        self._was_answered = False

    def begin(self) -> bytes:
        """The first message."""
        return CHALLENGE + self._challenge

    def received(self, message: bytes) -> bytes | None:
        """Go on with a message of the peer; what to answer, if anything."""
        if self.key is None:
            self.key = self._who_knows(message)
            if self.key is None:
                self.is_refused = True
                return FAILURE
            return WELCOME
        if not self._was_answered:
            self._was_answered = True
            if not message.startswith(CHALLENGE) or len(message) < len(CHALLENGE) + OLD_NONCE_BYTES:
                self.is_refused = True
                return FAILURE
            answer = answer_to(self.key, message[len(CHALLENGE) :])
            self.is_refused = answer is None
            return answer
        self.is_done = message == WELCOME
        self.is_refused = not self.is_done
        return None

    def _who_knows(self, answer: bytes) -> bytes | None:
        name, mac = ("md5", answer) if len(answer) == MD5_BYTES else _split(answer)
        if name is None:
            return None
        found = None
        for key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(hmac.new(key, self._challenge, name).digest(), mac):
                found = key
        return found


def answer_to(key: bytes, challenge: bytes) -> bytes | None:
    """What a challenge of the client is answered with; None when it can't be."""
    if len(challenge) == OLD_NONCE_BYTES:
        return hmac.new(key, challenge, "md5").digest()
    name, _ = _split(challenge)
    if name is None:
        return None
    return b"{%s}" % name.encode() + hmac.new(key, challenge, name).digest()


def _split(message: bytes) -> tuple[str | None, bytes]:
    """Digest and the rest of ``{sha256}…``; None for one that is not accepted."""
    name, brace, rest = message.partition(b"}")
    text = name[1:].decode("ascii", "replace")
    if not brace or not name.startswith(b"{") or text not in DIGESTS:
        return None, b""
    return text, rest
