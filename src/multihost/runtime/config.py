"""Where things are: the state directory, the key, and which server to talk to.

*Which server?* The explicit argument, else ``MULTIHOST_URL`` and
``MULTIHOST_KEY``, else the config file, else a server that this user has
running on this machine, else none (the caller starts an embedded one).
"""

import json
import os
import secrets
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

from multihost.errors import ConfigError

URL_VARIABLE = "MULTIHOST_URL"
KEY_VARIABLE = "MULTIHOST_KEY"
STATE_VARIABLE = "MULTIHOST_STATE"
CONFIG_VARIABLE = "MULTIHOST_CONFIG"
SERVER_FILE = "server.json"
KEY_FILE = "key"
DEFAULT_PORT = 7077


class Target(NamedTuple):
    """A server and the key to it."""

    urls: tuple[str, ...]
    """Addresses of the same server or servers over the same store, tried in turn."""
    key: bytes


def state_dir() -> Path:
    """Directory in which a server of this user keeps its state, unless told otherwise."""
    given = os.environ.get(STATE_VARIABLE)
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "multihost"


def config_file() -> Path:
    """The user's config file (TOML: ``url``, ``key_file``)."""
    given = os.environ.get(CONFIG_VARIABLE)
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "multihost" / "config.toml"


def find_target(url: str | None = None, authkey: bytes | str | None = None) -> Target | None:
    """The server to talk to, or None when there is none and an embedded one is wanted.

    Raises ConfigError when an address is known but no key for it.
    """
    if url is None:
        url = os.environ.get(URL_VARIABLE) or None
    if authkey is None:
        authkey = os.environ.get(KEY_VARIABLE) or None
    if url is None:
        url, authkey = _from_config_file(authkey)
    if url is None:
        return _running_server(state_dir(), as_key(authkey))
    if authkey is None:
        running = _running_server(state_dir(), None)
        if running is not None and url in running.urls:
            return running
        message = (
            f"no key for {url}: set {KEY_VARIABLE} or pass authkey=; it is in the file "
            f"{KEY_FILE!r} of the server's state directory"
        )
        raise ConfigError(message)
    key = as_key(authkey)
    assert key is not None
    return Target(tuple(url.split(",")), key)


def as_key(authkey: bytes | str | None) -> bytes | None:
    """Key as bytes, however the user wrote it."""
    return authkey.strip().encode() if isinstance(authkey, str) else authkey


def _from_config_file(authkey: bytes | str | None) -> tuple[str | None, bytes | str | None]:
    path = config_file()
    if not path.is_file():
        return None, authkey
    try:
        config = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        message = f"can't read the config file {path}: {error}"
        raise ConfigError(message) from None
    url = config.get("url")
    if url and authkey is None and "key_file" in config:
        authkey = read_key(Path(config["key_file"]).expanduser())
    return url, authkey


def _running_server(directory: Path, key: bytes | None) -> Target | None:
    """The server that keeps its state in ``directory``, if it is running."""
    try:
        note = json.loads((directory / SERVER_FILE).read_text())
        url, pid = str(note["url"]), int(note["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not _is_alive(pid):
        return None
    return Target((url,), key if key is not None else read_key(directory / KEY_FILE))


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_key(path: Path) -> bytes:
    """Key from a file that only its owner may read; raises ConfigError."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes().strip()
    except OSError as error:
        message = f"can't read the key file {path}: {error.strerror}"
        raise ConfigError(message) from None
    if os.name == "posix" and mode & 0o077:
        message = (
            f"others may read the key file {path}: run 'chmod 600 {path}', then make a new key"
        )
        raise ConfigError(message)
    if not text:
        message = f"the key file {path} is empty: delete it, and the server makes a new one"
        raise ConfigError(message)
    return text


def make_key(path: Path) -> bytes:
    """Key in ``path``, made with 256 bits of randomness and mode 0600 if there is none."""
    if not path.exists():
        write_file(path, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
    return read_key(path)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file so that a crash leaves the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_server_note(directory: Path, url: str) -> None:
    """Tell this user's clients and workers on this machine where the server is."""
    note = {"url": url, "pid": os.getpid()}
    write_file(directory / SERVER_FILE, json.dumps(note).encode(), mode=0o600)


def remove_server_note(directory: Path) -> None:
    """Take the note back, unless another server has written its own."""
    path = directory / SERVER_FILE
    try:
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, KeyError):
        return
