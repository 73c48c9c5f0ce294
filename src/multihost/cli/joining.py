"""Join strings at the command line: made from a server's state, taken from where secrets belong.

Arguments of a process can be seen by every user of the machine, so a join
string among them is taken with a warning.
"""

import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from multihost.cli import render
from multihost.cli.exits import CommandError, Exit
from multihost.errors import ConfigError
from multihost.runtime import config
from multihost.runtime.address import (
    DEFAULT_PORT,
    is_join,
    is_loopback,
    is_wildcard,
    parse_url,
    url_of,
)
from multihost.runtime.join import Join, parse_join, read_join
from multihost.runtime.note import ServerNote, read_server_note
from multihost.runtime.secret import read_key

INNER = ("docker", "br-", "veth", "virbr", "cni", "podman", "lxc")
"""Interfaces that hardly another machine reaches: their addresses come last."""


# --- making ----------------------------------------------------------------------------------


def make_join(
    state: Path,
    addresses: Sequence[str] = (),
    *,
    is_pinned: bool = False,
    has_seal: bool = True,
) -> Join:
    """The join string of the server that keeps its state in ``state``.

    ``addresses``: under which others reach it (HOST or HOST:PORT), else what the
    server says, else all of this machine's.
    ``is_pinned``: expect its very certificate, even if an authority vouches for it.
    ``has_seal``: with the user's seal, which is made if there is none.
    Raises CommandError or ConfigError.
    """
    note = read_server_note(state)
    if note is None:
        note = _note_without_server(state, addresses)
    is_tls = note.fingerprint is not None
    port = parse_url(note.url).port
    pin = note.fingerprint if note.is_own or is_pinned else None
    places = [_place(text, port) for text in addresses or note.addresses]
    if not places:
        places = [(host, port) for host in _hosts(note, is_named=is_tls and pin is None)]
    urls = dict.fromkeys(url_of(*place, is_tls=is_tls) for place in places)
    text = read_key(state / config.KEY_FILE).decode()
    return Join(tuple(urls), pin, text, _seal() if has_seal else None)


def _seal() -> bytes | None:
    """The user's seal; one that is new concerns what runs on this machine already."""
    path = config.seal_file()
    was_there = path.exists()
    seal = config.seal_to_give()
    if path.exists() and not was_there:
        render.tell(
            f"made the seal {path}: from now on workers and programs that start here sign and "
            "check with it, as do those with the join string. Start those again that run here by "
            "now: without it they refuse each other's tasks"
        )
    return seal


def machine_addresses(*, has_ipv6: bool) -> list[str]:
    """Addresses by which other machines may reach this one, the likelier ones first."""
    import psutil

    states = psutil.net_if_stats()
    found: list[tuple[bool, str]] = []
    for name, addresses in psutil.net_if_addrs().items():
        if name in states and not states[name].isup:
            continue
        for each in addresses:
            host = each.address
            is_ipv6 = each.family == socket.AF_INET6
            if each.family != socket.AF_INET and not (is_ipv6 and has_ipv6):
                continue
            if not is_loopback(host) and "%" not in host and not host.startswith("fe80:"):
                found.append((name.startswith(INNER), host))
    return [host for _, host in sorted(found, key=lambda each: each[0])]


def _note_without_server(state: Path, addresses: Sequence[str]) -> ServerNote:
    """What is known of a server that does not run now."""
    from multihost.server.certificate import CERTIFICATE_FILE, read_fingerprint

    path = state / CERTIFICATE_FILE
    if not addresses or not path.exists():
        raise CommandError(
            f"no server runs with the state directory {state}: start it with 'multihost server "
            "--host 0.0.0.0', then ask again"
            + (", or say where it will be with --address HOST:PORT" if path.exists() else ""),
            Exit.USAGE,
        )
    url = url_of("127.0.0.1", DEFAULT_PORT, is_tls=True)
    return ServerNote(url, 0, read_fingerprint(path))


def _place(text: str, port: int) -> tuple[str, int]:
    """Host and port of ``HOST`` or ``HOST:PORT``; an IPv6 address with a port is in brackets."""
    if text.count(":") > 1 and not text.startswith("["):
        return text, port
    host, colon, tail = text.rpartition(":")
    if not colon or tail.endswith("]"):
        return text.strip("[]"), port
    if not host or not tail.isdecimal():
        raise ConfigError(f"{text!r} is no HOST or HOST:PORT, such as server.example.org:7077")
    return host.strip("[]"), int(tail)


def _hosts(note: ServerNote, *, is_named: bool) -> list[str]:
    if not is_wildcard(note.host):
        return [note.host]
    name = socket.gethostname()
    if is_named:
        return [socket.getfqdn()]  # what its certificate is likely to say
    # Last its name, under which it is found if its addresses change.
    return [*machine_addresses(has_ipv6=":" in note.host), name]


# --- how to come in -----------------------------------------------------------------------------


def is_for_here_only(join: Join) -> bool:
    """Whether all its addresses are of loopback."""
    return all(is_loopback(parse_url(url).host) for url in join.urls)


def is_plain(join: Join) -> bool:
    """Whether what is said to one of its addresses crosses a network in clear."""
    return any(parse_url(url).is_plain_and_far for url in join.urls)


def command_here() -> str:
    """How this program is called on this machine, by whoever logs in over ssh."""
    program = Path(sys.argv[0])
    if program.name in ("multihost", "mh") and program.exists():
        return shlex.quote(str(program.absolute()))
    return f"{shlex.quote(sys.executable)} -m multihost"


# --- taking -----------------------------------------------------------------------------------


def take_join(text: str | None, path: Path | None, url: str | None) -> str | None:
    """What ``--join``, ``--join-file`` or ``--server`` say, as an address for ``find_target``."""
    if sum(each is not None for each in (text, path, url)) > 1:
        raise ConfigError("say one of --server, --join and --join-file")
    if path is not None:
        return read_join(path)
    if text == "-":
        text = sys.stdin.readline()
        parse_join(text)
        return text
    if text is not None:
        parse_join(text)
    given = text if text is not None else url
    if given is not None and is_join(given):
        render.tell(
            "warning: a join string among the arguments can be seen by every user of this "
            f"machine ('ps'); better: --join-file FILE, --join - or {config.JOIN_VARIABLE}"
        )
    return given
