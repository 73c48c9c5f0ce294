"""``multihost key``: keys and what they may do, and join strings for other machines."""

from pathlib import Path

import click

from multihost.cli import render
from multihost.cli.access import (
    expires_option,
    list_keys,
    make_key,
    name_option,
    new,
    revoke,
    role_option,
)
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json
from multihost.runtime import config
from multihost.runtime.files import write_file
from multihost.runtime.secret import read_key


@click.group()
def key() -> None:
    """Make, list and revoke keys; print join strings for other machines."""


for command in (new, list_keys, revoke):
    key.add_command(command)


@key.command(
    epilog="\b\nmultihost key show\nMULTIHOST_KEY=$(ssh host multihost key show --reveal) "
    "multihost worker --server URL"
)
@click.option("--state", type=click.Path(path_type=Path), help="State directory of the server.")
@click.option("--reveal", is_flag=True, help="Print the key itself.")
@as_json
def show(state: Path | None, reveal: bool, is_json: bool) -> None:
    """Print the path of the key's file; the key itself with --reveal."""
    path = (state or config.state_dir()) / config.KEY_FILE
    if not path.exists():
        raise CommandError(
            f"there is no key at {path}; 'multihost server' makes one when it first starts",
            Exit.USAGE,
        )
    secret = read_key(path).decode() if reveal else None
    if is_json:
        render.show_json({"path": str(path), **({"key": secret} if reveal else {})})
    else:
        render.show(secret if secret is not None else str(path))


@key.command(
    short_help="Print the join string that another machine needs.",
    epilog="\b\nmultihost key join --role work --name gpu-3\n"
    "ssh server multihost key join | multihost worker --join -\n"
    "multihost key join --address vpn.example.org --file join.txt\n\n"
    "On the other machine: multihost worker --join-file join.txt. Whoever has a join string may do "
    "what its key may do: treat it like a password.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Under which the other machine reaches the server; may be repeated. Default: what the "
    "server was started with, else all addresses of this machine.",
)
@click.option(
    "--pin",
    "is_pinned",
    is_flag=True,
    help="Expect this very certificate, though it is one of --tls-cert; else an authority that the "
    "other machine knows must vouch for it.",
)
@role_option
@name_option
@expires_option
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it into this file, with mode 0600, and print nothing.",
)
@click.option("--state", type=click.Path(path_type=Path), help="State directory of the server.")
@as_json
def join(
    *,
    addresses: tuple[str, ...],
    is_pinned: bool,
    role: str | None,
    name: str,
    expires_s: float | None,
    path: Path | None,
    state: Path | None,
    is_json: bool,
) -> None:
    """Print the join string: all that another machine needs to reach this server.

    With --role it has a new key of that role in it, else the server's own.
    """
    from multihost.cli.joining import is_for_here_only, is_plain, make_join

    state = state or config.state_dir()
    if role is None and (name or expires_s is not None):
        raise CommandError("--name and --expires are a new key's: say its --role, too", Exit.USAGE)
    made = make_join(state, addresses, is_pinned=is_pinned)
    if role is not None:
        from msgspec.structs import replace

        # Who only looks on signs nothing.
        seal = None if role == "view" else made.seal
        made = replace(made, key=_new_key(state, role, name, expires_s), seal=seal)
    if is_plain(made):
        render.tell(
            "warning: the server speaks no TLS (--insecure); who uses this join string trusts the "
            "network with it"
        )
    elif is_for_here_only(made):
        render.tell(
            "warning: the server listens on loopback, so this is of use on this machine (or behind "
            "a tunnel) only; start it with --host 0.0.0.0 for other machines"
        )
    if path is not None:
        write_file(path, made.text().encode() + b"\n", mode=0o600)
    elif is_json:
        render.show_json({"join": made.text(), "urls": made.urls, "fingerprint": made.fingerprint})
    else:
        render.show(made.text())


def _new_key(state: Path, role: str, name: str, expires_s: float | None) -> str:
    """Text of a new key of the server that keeps its state in ``state``."""
    from multihost.cli.connection import Connection

    target = config.running_server(state)
    if target is None:
        raise CommandError(
            f"no server runs with the state directory {state}, and only a running one makes keys; "
            "start it with 'multihost server'",
            Exit.USAGE,
        )
    connection = Connection(target)
    try:
        text: str = make_key(connection, role, name, expires_s)["key"]
    finally:
        connection.close()
    return text
