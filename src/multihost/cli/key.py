"""``multihost key``: where the server's key is, and join strings for other machines."""

from pathlib import Path

import click

from multihost.cli import render
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json
from multihost.runtime import config


@click.group()
def key() -> None:
    """Show where the server's key is; print join strings for other machines."""


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
    secret = config.read_key(path).decode() if reveal else None
    if is_json:
        render.show_json({"path": str(path), **({"key": secret} if reveal else {})})
    else:
        render.show(secret if secret is not None else str(path))


@key.command(
    epilog="\b\nmultihost key join\nssh server multihost key join | multihost worker --join -\n"
    "multihost key join --address vpn.example.org --file join.txt\n\n"
    "On the other machine: multihost worker --join-file join.txt. Whoever has a join string may do "
    "what its key may do: treat it like a password."
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
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it into this file, with mode 0600, and print nothing.",
)
@click.option("--state", type=click.Path(path_type=Path), help="State directory of the server.")
@as_json
def join(
    addresses: tuple[str, ...],
    is_pinned: bool,
    path: Path | None,
    state: Path | None,
    is_json: bool,
) -> None:
    """Print the join string: all that another machine needs to reach this server."""
    from multihost.cli.joining import is_for_here_only, is_plain, make_join

    made = make_join(state or config.state_dir(), addresses, is_pinned=is_pinned)
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
        config.write_file(path, made.text().encode() + b"\n", mode=0o600)
    elif is_json:
        render.show_json({"join": made.text(), "urls": made.urls, "fingerprint": made.fingerprint})
    else:
        render.show(made.text())
