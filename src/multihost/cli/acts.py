"""``multihost cancel``, ``retry`` and ``delete``: what people do to jobs and tasks."""

from pathlib import Path
from typing import Any

import click

from multihost.cli import render
from multihost.cli.connection import Connection, NotThereError, path_of
from multihost.cli.job import no_job
from multihost.cli.options import as_json, connected, parse_place, server_options

Row = dict[str, Any]


@click.command(
    epilog="\b\nmultihost cancel 42\nmultihost cancel run-7 43/0 43/1\n\n"
    "Running tasks are asked to stop, then killed. What has ended stays as it is."
)
@click.argument("places", metavar="JOB[/INDEX]...", nargs=-1, required=True)
@server_options
@as_json
def cancel(places: tuple[str, ...], url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Cancel whole jobs, or some of their tasks."""
    with connected(url, key_file) as connection:
        rows = _act(connection, "cancel", places)
    _report(rows, "cancelled", "nothing was left to cancel", is_json=is_json)


@click.command(epilog="\b\nmultihost retry 42\nmultihost retry run-7/3")
@click.argument("places", metavar="JOB[/INDEX]...", nargs=-1, required=True)
@server_options
@as_json
def retry(places: tuple[str, ...], url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Queue failed or cancelled tasks again, with all their attempts anew."""
    with connected(url, key_file) as connection:
        rows = _act(connection, "retry", places)
    _report(rows, "retried", "no task had failed or been cancelled", is_json=is_json)


@click.command(
    epilog="\b\nmultihost delete 42 run-7\n\n"
    "Ended jobs go by themselves when their retention is over, 7 days unless they said otherwise."
)
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@server_options
@as_json
def delete(jobs: tuple[str, ...], url: str | None, key_file: Path | None, is_json: bool) -> None:
    """Delete ended jobs, with their tasks, results and output."""
    rows = []
    with connected(url, key_file) as connection:
        for job in jobs:
            try:
                rows.append(connection.post(path_of(job, "delete"), {}))
            except NotThereError:
                raise no_job(connection, job) from None
    if is_json:
        render.show_json(rows)
        return
    for row in rows:
        render.show(f"job {row['job']}: deleted")


def _act(connection: Connection, verb: str, places: tuple[str, ...]) -> list[Row]:
    """One request a job; what the server did to each."""
    rows = []
    for job, indices in _by_job(places).items():
        body = {} if indices is None else {"indices": indices}
        try:
            rows.append(connection.post(path_of(job, verb), body))
        except NotThereError:
            raise no_job(connection, job) from None
    return rows


def _by_job(places: tuple[str, ...]) -> dict[str, list[int] | None]:
    """Indices by job; None where the whole job is meant."""
    wanted: dict[str, list[int] | None] = {}
    for place in places:
        job, index = parse_place(place)
        known = wanted.setdefault(job, [])
        if index is None:
            wanted[job] = None
        elif known is not None:
            known.append(index)
    return wanted


def _report(rows: list[Row], word: str, nothing: str, *, is_json: bool) -> None:
    if is_json:
        render.show_json(rows)
        return
    for row in rows:
        did = f"{render.many(row[word], 'task')} {word}" if row[word] else nothing
        render.show(f"job {row['job']}: {did}")
