"""The key and the seal in their files, which only their owner may read.

Which of them are used is ``runtime.config``'s to decide. What can't be used is a
ConfigError that says what to do, and never has the secret in it.
"""

import base64
import os
import secrets
from pathlib import Path

from multihost.errors import ConfigError
from multihost.runtime.files import write_file

KEY_VARIABLE = "MULTIHOST_KEY"
SEAL_VARIABLE = "MULTIHOST_SEAL"
SEAL_OFF = "off"
"""In the place of a seal: neither sign nor check, whatever else is configured."""
SEAL_BYTES = 32


def read_key(path: Path) -> bytes:
    """Key from a file that only its owner may read; raises ConfigError."""
    remedy = (
        "copy the server's, which 'multihost key show' names there, or set "
        f"{KEY_VARIABLE} to what is in it"
    )
    return _read_secret(path, "key", remedy)


def read_authkey(path: Path) -> bytes:
    """The authkey of others' scripts, as ``read_key``."""
    remedy = "write the authkey into it that your scripts have, for nobody else to read"
    return _read_secret(path, "authkey", remedy, remedy)


def _read_secret(
    path: Path, what: str, remedy: str, when_empty: str = "delete it, and a new one will be made"
) -> bytes:
    try:
        mode = path.stat().st_mode
        text = path.read_bytes().strip()
    except OSError as error:
        message = f"can't read the {what} file {path}: {error.strerror}; {remedy}"
        raise ConfigError(message) from None
    if os.name == "posix" and mode & 0o077:
        message = (
            f"others may read the {what} file {path}: run 'chmod 600 {path}', then make another "
            f"{what}"
        )
        raise ConfigError(message)
    if not text:
        message = f"the {what} file {path} is empty: {when_empty}"
        raise ConfigError(message)
    return text


def make_key(path: Path) -> bytes:
    """Key in ``path``, made with 256 bits of randomness and mode 0600 if there is none."""
    if not path.exists():
        write_file(path, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
    return read_key(path)


def read_seal(path: Path) -> bytes:
    """Seal from a file that only its owner may read; raises ConfigError."""
    remedy = f"copy it from where it was made, or set {SEAL_VARIABLE} to what is in it"
    return parse_seal(_read_secret(path, "seal", remedy).decode(errors="replace"), str(path))


def make_seal(path: Path) -> bytes:
    """Seal in ``path``, made with 256 bits of randomness and mode 0600 if there is none."""
    if not path.exists():
        write_file(path, seal_text(secrets.token_bytes(SEAL_BYTES)).encode() + b"\n", mode=0o600)
    return read_seal(path)


def seal_text(seal: bytes) -> str:
    """A seal as it is written into files and variables."""
    return base64.urlsafe_b64encode(seal).decode().rstrip("=")


def parse_seal(text: str, where: str) -> bytes:
    """Seal as ``seal_text`` wrote it; ``where`` it stood is said if it can't be."""
    data = text.strip().encode(errors="replace")
    try:
        seal = base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
    except ValueError:
        seal = b""
    if len(seal) != SEAL_BYTES:
        message = (
            f"the seal in {where} is damaged or cut short: copy it again from where it was made, "
            f"or say {SEAL_VARIABLE}={SEAL_OFF} to neither sign nor check"
        )
        raise ConfigError(message)
    return seal


def wrong_key(url: str) -> str:
    """What is told to who has a key that is not the server's."""
    return (
        f"the server at {url} has another key; set MULTIHOST_KEY, or --key-file (authkey= in a "
        "program), to one of its own: 'multihost key new' makes one there, and the file 'key' in "
        "its state directory has one that may do everything"
    )
