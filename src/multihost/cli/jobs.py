"""``multihost jobs``: the list."""

import time
from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.connection import Connection
from multihost.cli.options import as_json, connected, server_options
from multihost.cli.render import Column

Row = dict[str, Any]

STATES = ("open", "succeeded", "failed", "cancelled")
PAGE = 1000
"""Most rows that the server gives at once."""
COLUMNS = (
    Column("JOB", is_number=True),
    Column("STATE"),
    Column("TASKS", is_number=True),
    Column("DONE", is_number=True),
    Column("FAILED", is_number=True),
    Column("QUEUE", gives_way=True),
    Column("CREATED"),
    Column("NAME", gives_way=True),
    Column("RUNS", gives_way=True),
)


@click.command(
    epilog="\b\nmultihost jobs --state failed\n"
    "multihost jobs --json | jq '.[] | select(.failed > 0)'"
)
@click.option("--state", type=click.Choice(STATES), help="Only these; open: not ended.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@server_options
@as_json
def jobs(
    state: str | None, limit: int, url: str | None, key_file: Path | None, is_json: bool
) -> None:
    """List jobs, newest first."""
    with connected(url, key_file) as connection:
        rows = newest(connection, state, limit + 1)
    has_more, rows = len(rows) > limit, rows[:limit]
    if is_json:
        render.show_json(rows)
        return
    if not rows:
        render.say(_nothing(state))
        return
    now = time.time()
    render.show(render.table(COLUMNS, [_cells(row, now) for row in rows]))
    if has_more:
        render.say(f"There are more; --limit {10 * limit} shows them.")


def newest(connection: Connection, state: str | None, limit: int) -> list[Row]:
    """The newest ``limit`` jobs, a page at a time."""
    rows: list[Row] = []
    while len(rows) < limit:
        before = rows[-1]["job"] if rows else None
        asked = min(PAGE, limit - len(rows))
        page = connection.get("/api/jobs", state=state, before=before, limit=asked)
        rows += page
        if len(page) < asked:
            break
    return rows


def share_done(row: Row) -> float:
    """How much of a job's tasks have succeeded, 0 to 1."""
    share: float = row["succeeded"] / (row["total"] or row["tasks"] or 1)
    return share


def share_lost(row: Row) -> float:
    """How much of a job's tasks have failed or were cancelled, 0 to 1."""
    share: float = (row["failed"] + row["cancelled"]) / (row["total"] or row["tasks"] or 1)
    return share


def title(row: Row) -> str:
    """A job's name and what it runs."""
    name, label = row["name"], row["label"]
    if name and label:
        return f"{name}: {label}"
    return name or label or "-"


def _cells(row: Row, now: float) -> list[str]:
    return [
        str(row["job"]),
        row["state"],
        render.count(row["tasks"]),
        # Never "100%" while something is left to do.
        f"{int(share_done(row) * 100)}%",
        render.count(row["failed"]) if row["failed"] else "-",
        row["queue"],
        render.age(now - row["created_at"]),
        row["name"] or "-",
        row["label"] or "-",
    ]


def _nothing(state: str | None) -> str:
    if state is not None:
        return f"No job is {state}; 'multihost jobs' lists all."
    return (
        "No job yet. A program submits them: 'with multihost.Pool() as pool: pool.map(f, xs)' "
        "finds this server by itself; 'multihost demo' shows one."
    )
