"""``multihost wait``: until a job has ended, over restarts of the server."""

import time
from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.connection import Connection
from multihost.cli.exits import Exit
from multihost.cli.job import find_job
from multihost.cli.jobs import title
from multihost.cli.options import as_json, connected, server_options
from multihost.errors import ServerNotFound

Row = dict[str, Any]

ASK_S = 20.0
"""Longest that one request waits."""
AWAY_S = 0.5
"""Pause before a server that is gone is tried again."""
CODES = {"succeeded": Exit.OK, "failed": Exit.FAILED, "cancelled": Exit.CANCELLED}


@click.command(
    epilog="\b\nmultihost wait run-7 --timeout 3600 && echo done\n\n"
    "Exit code: 0 succeeded, 1 a task failed, 3 cancelled, 124 --timeout is over."
)
@click.argument("job", metavar="JOB")
@click.option(
    "--timeout", "timeout_s", type=float, metavar="SECONDS", help="Give up after so long."
)
@server_options
@as_json
def wait(
    job: str, timeout_s: float | None, url: str | None, key_file: Path | None, is_json: bool
) -> int:
    """Wait for a job to end; the exit code says how it ended."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with connected(url, key_file) as connection:
        row = find_job(connection, job)
        number = str(row["job"])
        while not row["ended_at"] and not _is_over(deadline):
            row = _ask(connection, number, deadline) or row
    if is_json:
        render.show_json(row)
    else:
        render.show(_verdict(row))
    if not row["ended_at"]:
        return Exit.TIMEOUT
    return CODES[row["state"]]


def _ask(connection: Connection, number: str, deadline: float | None) -> Row | None:
    """The job when it ends or after a while; None after the server was found gone."""
    left_s = ASK_S if deadline is None else max(0.0, min(ASK_S, deadline - time.monotonic()))
    try:
        return find_job(connection, number, wait_s=left_s)
    except ServerNotFound as error:
        render.say(f"the server at {error.url} is gone ({error.reason}); waiting for it")
    while not _is_over(deadline):
        time.sleep(AWAY_S)
        try:
            return find_job(connection, number)
        except ServerNotFound:
            continue
    return None


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _verdict(row: Row) -> str:
    what = f"job {row['job']} ({title(row)})"
    if not row["ended_at"]:
        left = row["blocked"] + row["queued"] + row["running"]
        return f"{what} is {row['state']}: {render.many(left, 'task')} to go"
    took = render.duration(row["ended_at"] - row["created_at"])
    counts = [render.many(row["tasks"], "task")]
    counts += [f"{render.count(row[word])} {word}" for word in ("failed", "cancelled") if row[word]]
    return f"{what} {row['state']}: {', '.join(counts)}, in {took}"
