"""``multihost backup``, ``check`` and ``restore``: keeping what the server keeps."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multihost.cli import render
from multihost.cli.exits import CommandError, Exit
from multihost.cli.options import as_json, connected, server_options
from multihost.runtime import config

if TYPE_CHECKING:
    from multihost.store.sqlite.check import Report

WAIT_S = 5.0
"""Of one question whether the backup is ready."""


@click.command(
    epilog="\b\nmultihost backup /backups/monday.mhb\n"
    "multihost check /backups/monday.mhb\n\n"
    "The server goes on meanwhile, and writes FILE itself: on its own machine, readable by its "
    "user alone. The file has everything but the key; 'multihost restore' makes a store of it."
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@server_options
@as_json
def backup(file: Path, url: str | None, key_file: Path | None, is_json: bool) -> int:
    """Write all that the running server keeps into FILE, which must not exist."""
    with connected(url, key_file) as connection:
        row = connection.post("/api/backup", {"path": str(file.absolute())})
        while row["state"] == "running":
            row = connection.get("/api/backup", wait_s=WAIT_S)
    if row["state"] != "done":
        raise CommandError(row.get("error", "the server was restarted meanwhile"), Exit.FAILED)
    if is_json:
        render.show_json(row)
    else:
        size, took = render.size(row["size_bytes"]), render.duration(row["took_s"])
        render.show(f"{row['path']} on {row['host']}: {size}, in {took}")
    for digest in row["damaged"]:
        render.say(f"blob {digest} is missing or damaged in the store, and not in the backup")
    return Exit.FAILED if row["damaged"] else Exit.OK


@click.command(
    epilog="\b\nmultihost check\nmultihost check --state /data/multihost\n"
    "multihost check /backups/monday.mhb\n\n"
    "Reads every row and every blob, changes nothing; of a large store this takes minutes. While "
    "a server has the store open, make a backup and check that. Exit code 1 when something is "
    "wrong."
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), help="State directory to check."
)
@as_json
def check(file: Path | None, state: Path | None, is_json: bool) -> int:
    """Check the store of a stopped server, or a backup FILE."""
    from multihost.errors import StoreLocked
    from multihost.store.sqlite.check import check as check_path

    try:
        report = check_path(file or state or config.state_dir())
    except StoreLocked as error:
        raise CommandError(
            f"the store in {state or config.state_dir()} is open in a server; check a backup of "
            "it: 'multihost backup FILE', then 'multihost check FILE'",
            Exit.SERVER,
        ) from error
    if is_json:
        render.show_json(_as_row(report))
    else:
        _show(report)
    return Exit.FAILED if report.problems else Exit.OK


@click.command(
    epilog="\b\nmultihost restore /backups/monday.mhb\n"
    "multihost restore /backups/monday.mhb --state /data/multihost --replace\n\n"
    "Stop the server first. Afterwards nothing that was leased from the old store counts: what "
    "ran when the backup was made is queued again, and no old outcome is accepted."
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="State directory to make the store in. Default: the one that 'multihost server' uses.",
)
@click.option("--replace", is_flag=True, help="Rename the store that is there already.")
@as_json
def restore(file: Path, state: Path | None, replace: bool, is_json: bool) -> None:
    """Make a store of a backup FILE, for 'multihost server' to start on."""
    from multihost.store.sqlite.backup import restore as restore_file

    directory = (state or config.state_dir()).absolute()
    done = restore_file(file, directory, time.time(), replaces=replace)
    if is_json:
        moved = None if done.moved is None else str(done.moved)
        render.show_json({**done._asdict(), "moved": moved, "state": str(directory)})
        return
    old = render.age(time.time() - done.made_at)
    render.show(f"{directory}: {render.many(done.jobs, 'job')}, as they were {old}")
    if done.requeued:
        render.say(f"{render.many(done.requeued, 'task')} ran then and will run again")
    if done.moved is not None:
        render.say(f"what was there is now {done.moved}")


def _as_row(report: "Report") -> dict[str, Any]:
    return {
        "path": str(report.path),
        "is_backup": report.is_backup,
        "is_sound": not report.problems,
        "jobs": report.jobs,
        "tasks": report.tasks,
        "items": report.items,
        "blobs": report.blobs,
        "problems": report.problems,
        "notes": report.notes,
    }


def _show(report: "Report") -> None:
    for note in report.notes:
        render.say(note)
    for problem in report.problems:
        render.show(problem)
    verdict = render.many(len(report.problems), "problem") if report.problems else "sound"
    counts = ", ".join(
        render.many(number, noun)
        for number, noun in (
            (report.jobs, "job"),
            (report.tasks, "task"),
            (report.items, "item"),
            (report.blobs, "blob"),
        )
    )
    render.show(f"{report.path}: {counts}: {verdict}")
