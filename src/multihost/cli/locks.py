"""``multihost locks``: locks and whatever else programs synchronize by, by name; drop one."""

from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.options import as_json, connected, server_options
from multihost.cli.render import Column

Row = dict[str, Any]

COLUMNS = (
    Column("LOCK", gives_way=True),
    Column("KIND"),
    Column("STATE"),
    Column("WAITING", is_number=True),
    Column("HELD BY", gives_way=True),
)


@click.group(
    invoke_without_command=True,
    epilog="\b\nmultihost locks\nmultihost locks --json\nmultihost locks drop printer",
)
@server_options
@as_json
@click.pass_context
def locks(context: click.Context, url: str | None, key_file: Path | None, is_json: bool) -> None:
    """List locks, semaphores, conditions, events, barriers and values that have a name."""
    if context.invoked_subcommand is not None:
        return
    with connected(url, key_file) as connection:
        rows = connection.get("/api/locks")
    if is_json:
        render.show_json(rows)
    elif rows:
        render.show(render.table(COLUMNS, [_cells(row) for row in rows]))
    else:
        render.say("No lock or the like has a name yet; multihost.Lock(name=...) makes one.")


@locks.command(epilog="\b\nmultihost locks drop printer\nmultihost locks drop printer --force")
@click.argument("name")
@click.option("--force", "is_forced", is_flag=True, help="Even if somebody holds it or waits.")
@server_options
def drop(name: str, is_forced: bool, url: str | None, key_file: Path | None) -> None:
    """Delete a lock or its kin; whoever waits for it gets an error."""
    from urllib.parse import quote

    with connected(url, key_file) as connection:
        connection.post(f"/api/locks/{quote(name, safe='')}/drop", {"force": is_forced})
    render.show(f"{name} is deleted")


def _cells(row: Row) -> list[str]:
    return [
        row["lock"],
        row["kind"].replace("_", " "),
        row["state"],
        render.count(row["waiting"]) if row["waiting"] else "-",
        ", ".join(row["holders"]) or "-",
    ]
