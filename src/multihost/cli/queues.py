"""``multihost queues``: the list; pause, resume and limit those of tasks, drop those of items."""

from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.connection import Connection
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json, connected, server_options
from multihost.cli.render import Column

Row = dict[str, Any]

COUNTS = ("queued", "blocked", "running", "succeeded", "failed", "cancelled")
COLUMNS = (
    Column("QUEUE", gives_way=True),
    Column("STATE"),
    *(Column(name.upper(), is_number=True) for name in COUNTS),
    Column("LIMIT", is_number=True),
)
ITEM_COUNTS = ("waiting", "held", "takers")
ITEM_COLUMNS = (
    Column("QUEUE OF ITEMS", gives_way=True),
    Column("STATE"),
    *(Column(name.upper(), is_number=True) for name in ITEM_COUNTS),
    Column("LIMIT", is_number=True),
)
is_new = click.option("--new", "is_new", is_flag=True, help="The queue need not exist yet.")


@click.group(
    invoke_without_command=True,
    epilog="\b\nmultihost queues\nmultihost queues pause images\n"
    "multihost queues limit images 1000\nmultihost queues drop results",
)
@server_options
@as_json
@click.pass_context
def queues(context: click.Context, url: str | None, key_file: Path | None, is_json: bool) -> None:
    """List queues; pause, resume or limit one of tasks, drop one of items."""
    if context.invoked_subcommand is not None:
        return
    with connected(url, key_file) as connection:
        rows = connection.get("/api/queues")
        item_rows = connection.get("/api/item-queues")
    if is_json:
        render.show_json([*rows, *item_rows])
        return
    tables = []
    if rows:
        tables.append(render.table(COLUMNS, [_cells(row) for row in rows]))
    if item_rows:
        tables.append(render.table(ITEM_COLUMNS, [_item_cells(row) for row in item_rows]))
    if tables:
        render.show("\n\n".join(tables))
    else:
        render.say("No queue yet; the first submit makes the queue 'default'.")


@queues.command(epilog="\b\nmultihost queues pause images")
@click.argument("name")
@is_new
@server_options
def pause(name: str, is_new: bool, url: str | None, key_file: Path | None) -> None:
    """Hand out no more tasks of a queue; what runs goes on."""
    _set(name, {"paused": True}, is_new, url, key_file)
    render.show(f"queue {name} is paused; 'multihost queues resume {name}' resumes it")


@queues.command(epilog="\b\nmultihost queues resume images")
@click.argument("name")
@server_options
def resume(name: str, url: str | None, key_file: Path | None) -> None:
    """Hand out tasks of a paused queue again."""
    _set(name, {"paused": False}, False, url, key_file)
    render.show(f"queue {name} is open")


@queues.command(
    short_help="Bound how many tasks may wait in a queue.",
    epilog="\b\nmultihost queues limit images 1000\nmultihost queues limit images none",
)
@click.argument("name")
@click.argument("limit", metavar="TASKS|none")
@is_new
@server_options
def limit(name: str, limit: str, is_new: bool, url: str | None, key_file: Path | None) -> None:
    """Bound how many tasks may wait in a queue; submits beyond are refused (QueueFull)."""
    if limit != "none" and not (limit.isdecimal() and int(limit)):
        raise click.BadParameter("a number of tasks, at least 1, or 'none'", param_hint="TASKS")
    bound = 0 if limit == "none" else int(limit)
    _set(name, {"limit": bound}, is_new, url, key_file)
    what = f"{render.many(bound, 'task')} may wait" if bound else "any number of tasks may wait"
    render.show(f"queue {name}: {what}")


@queues.command(
    short_help="Delete a queue of items.",
    epilog="\b\nmultihost queues drop results\nmultihost queues drop results --force",
)
@click.argument("name")
@click.option("--force", "is_forced", is_flag=True, help="Delete the items that are in it, too.")
@server_options
def drop(name: str, is_forced: bool, url: str | None, key_file: Path | None) -> None:
    """Delete a queue of items; whoever waits there is told that it is closed."""
    from urllib.parse import quote

    with connected(url, key_file) as connection:
        path = f"/api/item-queues/{quote(name, safe='')}/drop"
        row = connection.post(path, {"force": is_forced})
    items = render.many(row["waiting"] + row["held"], "item")
    render.show(f"queue {name} is deleted, with {items}")


def _set(name: str, change: Row, is_new: bool, url: str | None, key_file: Path | None) -> None:
    from urllib.parse import quote

    with connected(url, key_file) as connection:
        if not is_new:
            _check(connection, name)
        connection.post(f"/api/queues/{quote(name, safe='')}", change)


def _check(connection: Connection, name: str) -> None:
    """Raise CommandError, naming what exists, when there is no such queue."""
    names = [row["queue"] for row in connection.get("/api/queues")]
    if name not in names:
        has = f"there are {', '.join(names)}" if names else "there is none yet"
        raise CommandError(
            f"there is no queue {name!r}; {has}; --new sets up one that is to come", Exit.USAGE
        )


def _cells(row: Row) -> list[str]:
    return [
        row["queue"],
        "paused" if row["is_paused"] else "open",
        *(render.count(row[name]) if row[name] else "-" for name in COUNTS),
        render.count(row["limit"]) if row["limit"] else "-",
    ]


def _item_cells(row: Row) -> list[str]:
    return [
        row["queue"],
        "closed" if row["is_closed"] else "open",
        *(render.count(row[name]) if row[name] else "-" for name in ITEM_COUNTS),
        render.count(row["limit"]) if row["limit"] else "-",
    ]
