"""``multihost key``: where the server's key is."""

from pathlib import Path

import click

from multihost.cli import render
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json
from multihost.runtime import config


@click.group()
def key() -> None:
    """Show where the server's key is."""


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
