"""``multihost job``: one job, how far it is, what went wrong, why it waits."""

import time
from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.connection import Connection, NotThereError, path_of
from multihost.cli.exits import CommandError, Exit
from multihost.cli.jobs import newest, share_done, share_lost, title
from multihost.cli.options import as_json, connected, server_options
from multihost.cli.tasks import all_tasks, print_tasks, what_went_wrong, worker_names

Row = dict[str, Any]

FAILURES = 5
"""Failed tasks that are shown without being asked for."""
NAMED = 5
"""Jobs that are named when the one asked for does not exist."""


@click.command(
    epilog="\b\nmultihost job 42\nmultihost job run-7 --tasks\nmultihost job 42 --json | jq .waits"
)
@click.argument("job", metavar="JOB")
@click.option("--tasks", "with_tasks", is_flag=True, help="List its tasks, too.")
@server_options
@as_json
def job(job: str, with_tasks: bool, url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Show a job, by its number or name: progress, failed tasks, why it waits."""
    with connected(url, key_file) as connection:
        row = find_job(connection, job)
        number = str(row["job"])
        failures = []
        if row["failed"]:
            failed = connection.get(path_of(number, "tasks"), state="failed", limit=FAILURES)
            failures = [connection.get(f"/api/tasks/{task['task']}") for task in failed]
        tasks = all_tasks(connection, number) if with_tasks else []
        names = worker_names(connection) if failures or with_tasks else {}
    if is_json:
        listed = {"task_list": tasks} if with_tasks else {}
        render.show_json({**row, "failures": failures, **listed})
        return
    _show(row)
    if failures:
        _show_failures(row, failures, names)
    if with_tasks:
        render.show("")
        print_tasks(tasks, names)


def find_job(connection: Connection, job: str, *, wait_s: float = 0.0) -> Row:
    """The job of that number or name; CommandError says what exists when it does not."""
    try:
        row: Row = connection.get(path_of(job), wait_s=wait_s)
    except NotThereError:
        raise no_job(connection, job) from None
    return row


def no_job(connection: Connection, job: str) -> CommandError:
    """The error for a job that does not exist, naming those that do."""
    there = newest(connection, None, NAMED)
    if not there:
        return CommandError(f"there is no job {job!r}; the server has no jobs at all", Exit.USAGE)
    known = ", ".join(
        f"{row['job']} ({row['name']})" if row["name"] else str(row["job"]) for row in there
    )
    return CommandError(
        f"there is no job {job!r}; the newest are {known}; 'multihost jobs' lists them", Exit.USAGE
    )


def _show(row: Row) -> None:
    now = time.time()
    lines = [
        ("what", title(row)),
        ("state", render.state(row["state"])),
        ("tasks", _counts(row)),
        ("queue", f"{row['queue']}, priority {row['priority']}"),
        ("created", _since(row, now)),
    ]
    if row["ended_at"]:
        took = render.duration(row["ended_at"] - row["created_at"])
        lines.append(("ended", f"{render.age(now - row['ended_at'])}, after {took}"))
    if row.get("waits"):
        lines.append(("waits", row["waits"]))
    done = share_done(row)
    render.show(f"job {row['job']}  {render.bar(done, lost=share_lost(row))}  {int(done * 100)}%")
    for name, text in lines:
        render.show(f"  {name:<9}{text}")


def _since(row: Row, now: float) -> str:
    by = f" by {row['user']}" if row["user"] else ""
    return f"{render.age(now - row['created_at'])}{by}"


def _counts(row: Row) -> str:
    total = row["total"]
    of = render.count(row["tasks"]) if total is not None else f"{render.count(row['tasks'])} so far"
    words = ("running", "queued", "blocked", "succeeded", "failed", "cancelled")
    parts = [f"{render.count(row[word])} {word}" for word in words if row[word]]
    return f"{of}: {', '.join(parts)}" if parts else of


def _show_failures(row: Row, failures: list[Row], names: dict[int, str]) -> None:
    render.show("\nfailed tasks")
    for task in failures:
        render.show(f"  {task['task']}")
        for line in what_went_wrong(task, names):
            render.show(f"    {line}")
    left = row["failed"] - len(failures)
    number = row["job"]
    if left > 0:
        render.say(
            f"{render.count(left)} more: 'multihost tasks {number} --state failed' lists them."
        )
    render.say(
        f"'multihost task {failures[0]['task']}' has the traceback; "
        f"'multihost retry {number}' runs what failed again."
    )
