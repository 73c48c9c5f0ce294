"""``multihost worker``: starts one, says when it is connected, drains and leaves as told."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from multihost.cli import render
from multihost.cli.exits import Exit
from multihost.cli.options import find_server, server_options
from multihost.runtime.secret import read_key

if TYPE_CHECKING:
    from multihost.worker.options import WorkerOptions


@click.command(
    epilog="\b\nmultihost worker\nmultihost worker --slots 8 --queue images --queue default\n"
    "multihost worker --chdir /data/project --path /data/project/src\n"
    "MULTIHOST_KEY=... multihost worker --server http://host:7077\n\n"
    "The first SIGTERM or Ctrl-C finishes what runs and takes nothing new; the second gives it "
    "back at once, for others to run. Neither uses up an attempt."
)
@click.option("--slots", type=click.IntRange(min=1), help="Tasks at once. Default: one a core.")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Serve this queue only; may be repeated. Default: every queue.",
)
@click.option("--name", default="", help="What listings call it. Default: host and process id.")
@click.option("--tag", "tags", multiple=True, help="Something it offers, for jobs that ask for it.")
@click.option(
    "--processes",
    type=click.IntRange(min=0),
    help="Processes (of multihost.Process) beside the slots, at most; 0 takes none. Default: 1000.",
)
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Directory that tasks import from first; may be repeated.",
)
@click.option(
    "--chdir",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Working directory of the tasks; they import from there, too. Default: this one.",
)
@click.option(
    "--lend/--no-lend",
    "lends",
    default=True,
    help="Whether a task that waits for the results of tasks of its own lends its slot meanwhile; "
    "without it such tasks may take every slot and wait for ever. Default: it does.",
)
@click.option(
    "--tasks-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File (mode 0600) with the key of tasks that use multihost themselves; a worker's own key "
    "of role work is not enough for them, one of role submit is. Default: the worker's key.",
)
@click.option(
    "--spool",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    help="Directory for large arguments and results on their way. Default: TMPDIR, else /var/tmp.",
)
@server_options
def worker(
    *,
    slots: int | None,
    queues: tuple[str, ...],
    name: str,
    tags: tuple[str, ...],
    processes: int | None,
    paths: tuple[str, ...],
    chdir: str | None,
    lends: bool,
    tasks_key_file: Path | None,
    spool: Path | None,
    url: str | None,
    key_file: Path | None,
) -> int:
    """Start a worker: it takes tasks and runs them, each slot in a process of its own."""
    target = find_server(url, key_file)
    from multihost.runtime import loop
    from multihost.runtime.memory import keep_freed_memory, look_less_for_cycles
    from multihost.runtime.quota import usable_cores
    from multihost.worker.options import PROCESSES, WorkerOptions

    keep_freed_memory()
    look_less_for_cycles()

    options = WorkerOptions(
        urls=target.urls,
        key=target.key,
        trust=target.trust,
        seal=target.seal,
        socket=target.socket,
        tasks_key=None if tasks_key_file is None else read_key(tasks_key_file),
        slots=slots or usable_cores(),
        name=name,
        queues=queues,
        tags=tags,
        first_path=paths,
        cwd=chdir,
        lends=lends,
        has_process=True,
        processes=PROCESSES if processes is None else processes,
        spool=None if spool is None else spool.absolute(),
    )
    return loop.run(_work(options))


async def _work(options: "WorkerOptions") -> int:
    from multihost.cli.announcing import AnnouncingWorker
    from multihost.cli.stopping import when_told_to_stop

    worker = AnnouncingWorker(options)
    with when_told_to_stop(worker.told_to_stop):
        await worker.run()
    render.tell(f"worker {worker.name} has left; what it held is finished or given back")
    return Exit.OK
