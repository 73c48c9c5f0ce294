"""``multihost key new``, ``list`` and ``revoke``: who may come in, and as what."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from multihost.cli import render
from multihost.cli.connection import Connection
from multihost.cli.options import as_json, connected, server_options
from multihost.cli.render import Column

Row = dict[str, Any]

ROLES = ("admin", "submit", "work", "view")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
COLUMNS = (
    Column("ID"),
    Column("NAME", gives_way=True),
    Column("ROLE"),
    Column("STATE"),
    Column("MADE"),
    Column("EXPIRES"),
)


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Seconds, from ``90s``, ``30m``, ``12h``, ``30d`` or ``8w``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 30m, 12h, 30d or 8w")
    return float(int(match[1]) * UNITS_S[match[2]])


role_option = click.option("--role", type=click.Choice(ROLES), help="What its holders may do.")
name_option = click.option("--name", default="", help="What listings and the audit trail call it.")
expires_option = click.option(
    "--expires",
    "expires_s",
    callback=_seconds,
    metavar="TIME",
    help="When it ceases to be taken: 90s, 30m, 12h, 30d or 8w from now. Default: never.",
)


def make_key(connection: Connection, role: str, name: str, expires_s: float | None) -> Row:
    """A new key; its text is under ``key``, and nowhere else."""
    body = {"role": role, "name": name, "expires_s": expires_s}
    row: Row = connection.post("/api/keys", body)
    return row


@click.command(
    short_help="Make a key for others, and print it, this once.",
    epilog="\b\nmultihost key new --role work --name gpu-3\n"
    "multihost key new --role submit --name ci --expires 30d --json\n\n"
    "admin: everything. submit: what a client does, jobs, queues, locks, and listings. work: what "
    "a worker does. view: listings. The key is shown this once; the server keeps its hash only.",
)
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its holders may do.")
@name_option
@expires_option
@server_options
@as_json
def new(
    *,
    role: str,
    name: str,
    expires_s: float | None,
    url: str | None,
    key_file: Path | None,
    is_json: bool,
) -> None:
    """Make a key for others, and print it: this is the only time that it is shown."""
    with connected(url, key_file) as connection:
        row = make_key(connection, role, name, expires_s)
    if is_json:
        render.show_json(row)
        return
    render.show(row["key"])
    until = "" if row["expires_at"] is None else f", expires {_coming(row)}"
    render.say(
        f"key {row['id']} ({row['name']}), role {row['role']}{until}; keep it in a file of mode "
        f"0600 (--key-file). 'multihost key revoke {row['id']}' takes it back"
    )


@click.command("list", epilog="\b\nmultihost key list\nmultihost key list --json")
@server_options
@as_json
def list_keys(url: str | None, key_file: Path | None, is_json: bool) -> None:
    """List the server's keys, without their secrets."""
    with connected(url, key_file) as connection:
        rows = connection.get("/api/keys")
    if is_json:
        render.show_json(rows)
        return
    render.show(render.table(COLUMNS, [_cells(row) for row in rows]))


@click.command(
    short_help="Take a key back, and cut off who came in with it.",
    epilog="\b\nmultihost key revoke 1a2b3c4d\nmultihost key revoke ci",
)
@click.argument("key", metavar="ID|NAME")
@server_options
@as_json
def revoke(key: str, url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Take a key back: it is refused from now on, and whoever came in with it is cut off."""
    with connected(url, key_file) as connection:
        row = connection.post(f"/api/keys/{quote(key, safe='')}/revoke", {})
    if is_json:
        render.show_json(row)
    else:
        render.show(f"key {row['id']} ({row['name']}), role {row['role']}, is revoked")


def _cells(row: Row) -> list[str]:
    return [
        row["id"],
        row["name"],
        row["role"],
        row["state"],
        "-" if row["age_s"] is None else render.age(row["age_s"]),
        "never" if row["expires_at"] is None else _coming(row),
    ]


def _coming(row: Row) -> str:
    left_s = row["expires_in_s"]
    return f"in {render.duration(left_s)}" if left_s else "-"
