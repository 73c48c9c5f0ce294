"""``multihost tasks``, ``task`` and ``logs``: the tasks of a job, one of them, its output."""

import signal
import time
from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.connection import Connection, NotThereError, path_of
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json, connected, parse_place, parse_task, server_options
from multihost.cli.render import Column

Row = dict[str, Any]

STATES = ("blocked", "queued", "running", "succeeded", "failed", "cancelled")
PAGE = 1000
"""Most rows that the server gives at once."""
OUTPUT_LINES = 10
"""Lines of a task's output shown with the task; ``logs`` has the rest."""
_IS_TOLD = "it has ended, and its program has its outcome; jobs that have a name keep their tasks"
COLUMNS = (
    Column("TASK"),
    Column("STATE"),
    Column("WORKER", gives_way=True),
    Column("ERRORS", is_number=True),
    Column("CRASHES", is_number=True),
    Column("LOST", is_number=True),
)


@click.command(epilog="\b\nmultihost tasks 42 --state failed\nmultihost tasks run-7 --json")
@click.argument("job", metavar="JOB")
@click.option("--state", type=click.Choice(STATES), help="Only tasks in this state.")
@click.option("--after", type=int, default=-1, help="Only tasks with a larger index.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@server_options
@as_json
def tasks(
    *,
    job: str,
    state: str | None,
    after: int,
    limit: int,
    url: str | None,
    key_file: Path | None,
    is_json: bool,
) -> None:
    """List the tasks of a job, by index."""
    from multihost.cli.job import find_job

    with connected(url, key_file) as connection:
        whole = find_job(connection, job)
        rows = all_tasks(connection, str(whole["job"]), state, after, limit)
        names = worker_names(connection)
    if is_json:
        render.show_json(rows)
    elif not rows and whole["tasks"] and whole["ended_at"] and state is None and after < 0:
        render.say(f"Nothing is kept of the tasks of job {job}: {_IS_TOLD}.")
    elif not rows:
        render.say(f"No such task in job {job}; 'multihost job {job}' has the counts.")
    else:
        print_tasks(rows, names)
        if len(rows) == limit:
            last = rows[-1]["index"]
            render.say(f"There may be more: --after {last} goes on, --limit shows more at once.")


@click.command(epilog="\b\nmultihost task 42/7\nmultihost task run-7/0 --json")
@click.argument("task", metavar="JOB/INDEX")
@server_options
@as_json
def task(task: str, url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Show a task: its attempts, errors, death certificates and last output."""
    with connected(url, key_file) as connection:
        row = find_task(connection, task)
        names = worker_names(connection)
    if is_json:
        render.show_json(row)
        return
    render.show(f"task {row['task']}  {render.state(row['state'])}")
    for line in _facts(row, names):
        render.show(f"  {line}")
    for at, attempt in enumerate(row["attempts"], 1):
        _show_attempt(at, attempt, names)
    _show_tail(row)


@click.command(epilog="\b\nmultihost logs 42/7\nmultihost logs 42/7 > out.txt")
@click.argument("task", metavar="JOB[/INDEX]")
@server_options
@as_json
def logs(task: str, url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Print what a task wrote to stdout and stderr (the last 256 KiB are kept)."""
    job, index = parse_place(task)
    with connected(url, key_file) as connection:
        if index is None:
            task = f"{job}/{_only_index(connection, job)}"
        row = find_task(connection, task)
    if is_json:
        render.show_json({"task": row["task"], "output": row["output"]})
    elif row["output"]:
        click.echo(row["output"], nl=not row["output"].endswith("\n"))
    else:
        render.say(f"Task {row['task']} ({row['state']}) has written nothing.")


def find_task(connection: Connection, text: str) -> Row:
    """The task that ``text`` names; CommandError when there is none."""
    from multihost.cli.job import find_job

    job, index = parse_task(text)
    row = find_job(connection, job)
    try:
        found: Row = connection.get(f"/api/tasks/{row['job']}/{index}")
    except NotThereError:
        count = row["tasks"]
        if 0 <= int(index) < count:
            raise CommandError(f"nothing is kept of task {text}: {_IS_TOLD}", Exit.USAGE) from None
        has = f"it has {row['job']}/0 to {row['job']}/{count - 1}" if count else "the job has none"
        raise CommandError(f"there is no task {text}; {has}", Exit.USAGE) from None
    return found


def all_tasks(
    connection: Connection,
    job: str,
    state: str | None = None,
    after: int = -1,
    limit: int | None = None,
) -> list[Row]:
    """Tasks of job number ``job``, a page at a time; all of them without ``limit``."""
    rows: list[Row] = []
    while limit is None or len(rows) < limit:
        asked = PAGE if limit is None else min(PAGE, limit - len(rows))
        last = rows[-1]["index"] if rows else after
        page = connection.get(path_of(job, "tasks"), state=state, after=last, limit=asked)
        rows += page
        if len(page) < asked:
            break
    return rows


def worker_names(connection: Connection) -> dict[int, str]:
    """Names of workers by the number of their session, of those that went lately, too."""
    gone = connection.get("/api/workers", gone=1)
    names = {row["session"]: f"{row['worker']} (gone)" for row in gone}
    return names | {row["session"]: row["worker"] for row in connection.get("/api/workers")}


def print_tasks(rows: list[Row], names: dict[int, str]) -> None:
    """The table of tasks."""
    cells = [
        [
            row["task"],
            row["state"],
            _worker(row["worker"], names),
            *(str(row[what]) if row[what] else "-" for what in ("errors", "crashes", "losses")),
        ]
        for row in rows
    ]
    render.show(render.table(COLUMNS, cells))


def what_went_wrong(task: Row, names: dict[int, str]) -> list[str]:
    """The last attempt of a failed task in a few lines."""
    attempts = task["attempts"]
    if not attempts:
        return ["nothing is known of its attempts"]
    last = attempts[-1]
    lines = _deaths(last) or [_headline(last)]
    at = _worker(last["worker"], names)
    times = f"after {render.many(len(attempts), 'attempt')}" if len(attempts) > 1 else ""
    where = f"on {at}" if at != "-" else ""
    lines.append(" ".join(filter(None, (where, times))))
    return [line for line in lines if line]


def _headline(attempt: Row) -> str:
    """What an attempt died of, in one line."""
    error, message = attempt["error"], attempt["message"].strip()
    first = message.splitlines()[0] if message else ""
    if error and first:
        return f"{error}: {first}"
    return error or first or attempt["ending"].replace("_", " ")


def _deaths(attempt: Row) -> list[str]:
    """The death certificates of an attempt, which say more than its message."""
    return [line for certificate in attempt["certificates"] for line in _certificate(certificate)]


def _certificate(certificate: Row) -> list[str]:
    """A death certificate in two lines: how it died, and what it said last."""
    code = certificate.get("exit_code")
    parts = [f"process {certificate.get('pid', '?')} {_death(code)}"]
    if certificate.get("is_out_of_memory"):
        parts.append("because memory ran out")
    parts.append(f"after {render.duration(certificate.get('run_s', 0.0))}")
    if certificate.get("peak_memory_bytes"):
        parts.append(f"with {render.size(certificate['peak_memory_bytes'])} at most")
    lines = [" ".join(parts)]
    tail = certificate.get("output_tail", "").strip()
    if tail:
        lines.append(f"last output: {render.shorten(tail.splitlines()[-1], 200)}")
    return lines


def _death(code: int | None) -> str:
    if code is None:
        return "died unseen"
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _facts(row: Row, names: dict[int, str]) -> list[str]:
    facts = []
    if row["worker"] is not None:
        facts.append(f"worker   {_worker(row['worker'], names)}")
    if row["state"] == "queued" and row["due_at"]:
        wait_s = row["due_at"] - time.time()
        if wait_s > 0:
            facts.append(f"starts   not before {render.duration(wait_s)} from now")
    return facts


def _show_attempt(at: int, attempt: Row, names: dict[int, str]) -> None:
    when = render.age(time.time() - attempt["ended_at"])
    where = _worker(attempt["worker"], names)
    ending = attempt["ending"].replace("_", " ")
    place = f" on {where}" if where != "-" else ""
    render.show(f"\nattempt {at}: {ending}{place}, {when}")
    text = attempt["traceback"].rstrip() or _headline(attempt)
    for line in _deaths(attempt) or text.splitlines():
        render.show(f"  {line}")


def _show_tail(row: Row) -> None:
    lines = row["output"].splitlines()
    if not lines:
        return
    render.show("\noutput")
    for line in lines[-OUTPUT_LINES:]:
        render.show(f"  {line}")
    if len(lines) > OUTPUT_LINES:
        render.say(f"'multihost logs {row['task']}' prints all {render.many(len(lines), 'line')}.")


def _worker(session: int | None, names: dict[int, str]) -> str:
    if session is None:
        return "-"
    return names.get(session, f"session {session} (gone)")


def _only_index(connection: Connection, job: str) -> int:
    from multihost.cli.job import find_job

    row = find_job(connection, job)
    if row["tasks"] != 1:
        raise CommandError(
            f"job {job} has {render.many(row['tasks'], 'task')}; say which, such as "
            f"'multihost logs {row['job']}/0'",
            Exit.USAGE,
        )
    return 0
