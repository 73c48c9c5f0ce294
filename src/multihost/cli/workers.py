"""``multihost workers``: who is there to run tasks."""

from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.options import as_json, connected, server_options
from multihost.cli.render import Column

Row = dict[str, Any]

COLUMNS = (
    Column("WORKER", gives_way=True),
    Column("STATE"),
    Column("HOST", gives_way=True),
    Column("PID", is_number=True),
    Column("SLOTS", is_number=True),
    Column("BUSY", is_number=True),
    Column("PYTHON"),
    Column("SINCE"),
    Column("QUEUES", gives_way=True),
)


@click.command(epilog="\b\nmultihost workers\nmultihost workers --json | jq '[.[].slots] | add'")
@server_options
@as_json
def workers(url: str | None, key_file: Path | None, is_json: bool) -> None:
    """List the workers, those included that are expected back."""
    with connected(url, key_file) as connection:
        rows = connection.get("/api/workers")
    if is_json:
        render.show_json(rows)
    elif rows:
        render.show(render.table(COLUMNS, [_cells(row) for row in rows]))
    else:
        render.say("No worker is connected; start one with 'multihost worker', here or elsewhere.")


def _cells(row: Row) -> list[str]:
    queues = ", ".join(row["queues"]) or "all"
    tags = f" [{', '.join(row['tags'])}]" if row["tags"] else ""
    return [
        row["worker"],
        "connected" if row["connected"] else "gone",
        row["host"],
        str(row["pid"]),
        str(row["slots"]),
        str(row["running"]),
        row["python"],
        render.age(row["since_s"]),
        queues + tags,
    ]
