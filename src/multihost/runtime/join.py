"""Join strings: all that another machine needs to reach a server, in one line to copy.

Whoever has one may do what its key may do, so it is treated like a key: taken
from a file that others can't read, from standard input or from the
environment, shown only when asked for, and cut out of what is told to people.
"""

import base64
import binascii
import os
import re
from pathlib import Path

import msgspec

from multihost.errors import ConfigError
from multihost.runtime.address import JOIN_PREFIX, is_join, parse_url

MAX_TEXT = 8192
MAX_URLS = 64
FINGERPRINT_BYTES = 32
SEAL_BYTES = 32
_SECRET = re.compile(r"mhj[0-9]+\.[A-Za-z0-9_=-]+")


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    """What is inside. Fields are only ever added at the end, with defaults."""

    urls: list[str]
    fingerprint: bytes | None
    key: str
    seal: bytes | None = None


class Join(msgspec.Struct, frozen=True):
    """What a join string says."""

    urls: tuple[str, ...]
    """Addresses of the same server, tried in turn."""
    fingerprint: str | None
    """SHA-256 of its certificate; None: an authority vouches for it, or there is no TLS."""
    key: str
    seal: bytes | None = None
    """What submitters and workers sign with; the server never has it."""

    def text(self) -> str:
        """The join string."""
        pin = None if self.fingerprint is None else bytes.fromhex(self.fingerprint)
        packed = _Packed(list(self.urls), pin, self.key, self.seal)
        data = base64.urlsafe_b64encode(msgspec.msgpack.encode(packed))
        return JOIN_PREFIX + data.rstrip(b"=").decode()

    def __repr__(self) -> str:
        return f"Join({', '.join(self.urls)})"


def parse_join(text: str) -> Join:
    """What a join string says; raises ConfigError, which does not repeat it."""
    text = text.strip()
    if not is_join(text) or len(text) > MAX_TEXT:
        raise ConfigError(f"this is no join string: it begins with {JOIN_PREFIX} and is one line")
    data = text.removeprefix(JOIN_PREFIX).encode()
    try:
        packed = msgspec.msgpack.decode(
            base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True), type=_Packed
        )
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise ConfigError(
            "the join string is damaged or cut short; copy the whole line that "
            "'multihost key join' prints"
        ) from None
    _check(packed)
    pin = None if packed.fingerprint is None else packed.fingerprint.hex()
    return Join(tuple(packed.urls), pin, packed.key, packed.seal)


def _check(packed: _Packed) -> None:
    """Raise ConfigError for what no server of ours writes."""
    if not 0 < len(packed.urls) <= MAX_URLS or not packed.key:
        raise ConfigError("the join string names no server or no key; make another")
    addresses = [parse_url(url) for url in packed.urls]
    for field, size in ((packed.fingerprint, FINGERPRINT_BYTES), (packed.seal, SEAL_BYTES)):
        if field is not None and len(field) != size:
            raise ConfigError("the join string has a field of another length; make another")
    if packed.fingerprint is not None and not all(address.is_tls for address in addresses):
        raise ConfigError("the join string has a fingerprint and an address without TLS")


def read_join(path: Path) -> str:
    """The join string in a file that only its owner may read; raises ConfigError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(errors="replace").strip()
    except OSError as error:
        message = f"can't read the join file {path}: {error.strerror}"
        raise ConfigError(message) from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(
            f"others may read the join file {path}: run 'chmod 600 {path}'; if they are not to be "
            "trusted, make a new key on the server"
        )
    parse_join(text)
    return text


def hide(text: str) -> str:
    """``text`` without the join strings that are in it."""
    return _SECRET.sub(f"{JOIN_PREFIX}(hidden)", text)
