"""Where things are: the state directory, the key, and which server to talk to.

*Which server?* The explicit argument, else ``MULTIHOST_JOIN``, else
``MULTIHOST_URL`` and ``MULTIHOST_KEY``, else the config file, else a server
that this user has running on this machine, else none (the caller starts an
embedded one). Wherever an address may stand, a join string may.
"""

import os
from pathlib import Path
from typing import NamedTuple

from multihost.errors import ConfigError
from multihost.runtime.address import cut, is_join, is_own_host, is_reached, parse_url
from multihost.runtime.note import last_server_note, read_server_note
from multihost.runtime.secret import (
    KEY_VARIABLE,
    SEAL_OFF,
    SEAL_VARIABLE,
    make_seal,
    parse_seal,
    read_key,
    read_seal,
    seal_text,
)
from multihost.runtime.trust import CA_VARIABLE, INSECURE_VARIABLE, Trust, refuse_plain

JOIN_VARIABLE = "MULTIHOST_JOIN"
URL_VARIABLE = "MULTIHOST_URL"
STATE_VARIABLE = "MULTIHOST_STATE"
CONFIG_VARIABLE = "MULTIHOST_CONFIG"
CACHE_VARIABLE = "MULTIHOST_CACHE"
SOCKET_FILE = "socket"
KEY_FILE = "key"
SEAL_FILE = "seal"
SETTINGS = {"url": str, "join_file": str, "key_file": str, "ca_file": str, "insecure": bool}
"""What a config file may have in it."""


class Target(NamedTuple):
    """A server, the key to it, and how it is known to be the one that is meant."""

    urls: tuple[str, ...]
    """Addresses of the same server or servers over the same store, tried in turn."""
    key: bytes
    trust: Trust = Trust()
    seal: bytes | None = None
    """What submitters and workers sign with."""
    socket: str | None = None
    """Where it is reached without a network, if it runs on this machine."""

    def __repr__(self) -> str:
        return f"Target({', '.join(self.urls)})"


def state_dir() -> Path:
    """Directory in which a server of this user keeps its state, unless told otherwise."""
    return _place(STATE_VARIABLE, "XDG_STATE_HOME", ".local/state", "multihost")


def cache_dir() -> Path:
    """Directory in which workers of this user unpack what jobs ship."""
    return _place(CACHE_VARIABLE, "XDG_CACHE_HOME", ".cache", "multihost/shipped")


def config_file() -> Path:
    """The user's config file (TOML: ``url``, ``key_file``)."""
    return _place(CONFIG_VARIABLE, "XDG_CONFIG_HOME", ".config", "multihost/config.toml")


def _place(variable: str, base_variable: str, base: str, name: str) -> Path:
    """What ``variable`` says, else ``name`` below the user's directory for such things."""
    given = os.environ.get(variable)
    if given:
        return Path(given)
    below = os.environ.get(base_variable)
    return (Path(below) if below else Path.home() / base) / name


def find_target(
    url: str | Target | None = None, authkey: bytes | str | None = None
) -> Target | None:
    """The server to talk to, or None when there is none and an embedded one is wanted.

    Raises ConfigError when an address is known but no key for it, or when it
    would be spoken to in clear over a network and nobody said that it may.
    """
    if isinstance(url, Target):
        return url
    target = _find(url or os.environ.get(JOIN_VARIABLE) or None, authkey)
    if target is not None:
        refuse_plain(target.urls, target.trust)
        target = target._replace(seal=find_seal(target.seal))
    return target


def _find(url: str | None, authkey: bytes | str | None) -> Target | None:
    trust = Trust(None, os.environ.get(CA_VARIABLE) or None, _is_set(INSECURE_VARIABLE))
    url = url or os.environ.get(URL_VARIABLE) or None
    if url is not None and is_join(url):
        return _joined(url, authkey, trust)
    if authkey is None:
        authkey = os.environ.get(KEY_VARIABLE) or None
    if url is None:
        url, authkey, trust = _from_config_file(authkey, trust)
        if url is not None and is_join(url):
            return _joined(url, authkey, trust)
    key = as_key(authkey)
    if url is None:
        return running_server(state_dir(), key)
    urls = tuple(url.split(","))
    for each in urls:
        parse_url(each)  # what is no address needs no key
    running = None if trust.ca_file else _own_server(urls, key)
    if running is not None:
        return running
    if key is None:
        message = (
            f"no key for {cut(url)}: set {KEY_VARIABLE}, or --key-file (authkey= in a program); it "
            f"is in the file {KEY_FILE!r} of the server's state directory"
        )
        raise ConfigError(message)
    return Target(urls, key, trust)


def _own_server(urls: tuple[str, ...], key: bytes | None) -> Target | None:
    """The server that this user has running on this machine, if it is the one at ``urls``."""
    note = read_server_note(state_dir())
    if note is None:
        return None
    own = parse_url(note.url)
    for url in urls:
        address = parse_url(url)
        if (address.is_tls, address.port) != (own.is_tls, own.port):
            return None
        if address.host != own.host and not (
            is_reached(note.host, address.host) and is_own_host(address.host)
        ):
            return None
    return running_server(state_dir(), key)


def _joined(text: str, authkey: bytes | str | None, trust: Trust) -> Target:
    """The server of a join string; ``authkey`` instead of its own key, if given."""
    from multihost.runtime.join import parse_join

    join = parse_join(text)
    key = as_key(authkey) or join.key.encode()
    # Whoever made it for a server without TLS has said there that the network is to be trusted.
    is_plain = not all(parse_url(url).is_tls for url in join.urls)
    trust = trust._replace(fingerprint=join.fingerprint, is_insecure=is_plain)
    return Target(join.urls, key, trust, join.seal)


def environment_of(target: Target) -> dict[str, str]:
    """Variables by which a child process finds ``target``; others of ours are emptied."""
    key = target.key.decode(errors="surrogateescape")
    trust, url = target.trust, ",".join(target.urls)
    if trust.fingerprint is not None or target.seal is not None:
        from multihost.runtime.join import Join

        url = Join(target.urls, trust.fingerprint, key, target.seal).text()
    seal = SEAL_OFF if target.seal is None else seal_text(target.seal)
    found = {URL_VARIABLE: url, KEY_VARIABLE: key, SEAL_VARIABLE: seal}
    if JOIN_VARIABLE in os.environ:
        found[JOIN_VARIABLE] = ""
    if trust.ca_file is not None:
        found[CA_VARIABLE] = trust.ca_file
    if trust.is_insecure:
        found[INSECURE_VARIABLE] = "1"
    return found


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "no", "false")


def as_key(authkey: bytes | str | None) -> bytes | None:
    """Key as bytes, however the user wrote it."""
    return authkey.strip().encode() if isinstance(authkey, str) else authkey


def _from_config_file(
    authkey: bytes | str | None, trust: Trust
) -> tuple[str | None, bytes | str | None, Trust]:
    path = config_file()
    if not path.is_file():
        return None, authkey, trust
    import tomllib  # few have such a file

    try:
        config = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        message = f"can't read the config file {path}: {error}; correct it, or delete it"
        raise ConfigError(message) from None
    _refuse_unknown(path, config)
    url = config.get("url")
    if "join_file" in config:
        from multihost.runtime.join import read_join

        url = read_join(Path(config["join_file"]).expanduser())
    elif url and is_join(url):
        _refuse_readable(path)
    elif url and authkey is None and "key_file" in config:
        authkey = read_key(Path(config["key_file"]).expanduser())
    if "ca_file" in config and trust.ca_file is None:
        trust = trust._replace(ca_file=str(Path(config["ca_file"]).expanduser()))
    return (
        url,
        authkey,
        trust._replace(is_insecure=trust.is_insecure or config.get("insecure") is True),
    )


def _refuse_unknown(path: Path, config: dict[str, object]) -> None:
    """Raise ConfigError for a setting that would be passed over: its writer relies on it."""
    for name, value in config.items():
        kind = SETTINGS.get(name)
        if kind is None:
            import difflib

            near = difflib.get_close_matches(name, SETTINGS, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"the config file {path} has a setting {name!r}, and there is none of that name; "
                f"{meant}There are {', '.join(SETTINGS)}"
            )
        if not isinstance(value, kind):
            wanted = "true or false" if kind is bool else "a text in quotes"
            raise ConfigError(f"the config file {path}: {name} has to be {wanted}, not {value!r}")


def _refuse_readable(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        message = f"others may read {path}, which has a join string in it: run 'chmod 600 {path}'"
        raise ConfigError(message)


def running_server(directory: Path, key: bytes | None = None) -> Target | None:
    """The server that keeps its state in ``directory``, if it is running."""
    note = read_server_note(directory)
    if note is None:
        return None
    # It is this machine's own address, whatever it is.
    trust = Trust(note.fingerprint, is_insecure=parse_url(note.url).is_plain_and_far)
    key = key if key is not None else read_key(directory / KEY_FILE)
    return Target((note.url,), key, trust, socket=note.socket)


def dead_server() -> tuple[str, int] | None:
    """Address and pid of a server of this user on this machine that died, if one did."""
    note = last_server_note(state_dir())
    return None if note is None or note.is_true else (note.url, note.pid)


def seal_file() -> Path:
    """File with the user's seal, beside the config file."""
    return config_file().with_name(SEAL_FILE)


def find_seal(joined: bytes | None = None) -> bytes | None:
    """The seal to use: of MULTIHOST_SEAL, else of the join string, else of the user's file.

    Raises ConfigError for one that is damaged, or that others may read.
    """
    text = os.environ.get(SEAL_VARIABLE)
    if text:
        return None if text.strip() == SEAL_OFF else parse_seal(text, SEAL_VARIABLE)
    if joined is not None:
        return joined
    path = seal_file()
    return read_seal(path) if path.exists() else None


def seal_to_give() -> bytes | None:
    """The seal that join strings carry: the one in use, else a new one in the user's file.

    None when this user wants none.
    """
    if os.environ.get(SEAL_VARIABLE):
        return find_seal()
    return make_seal(seal_file())
