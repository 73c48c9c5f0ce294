"""The entry point: finds the command, runs it, turns its end into an exit code.

The table below is all that ``multihost --help`` needs; a command's module is
imported when that command is used.
"""

import io
import os
import sys
from typing import Any, NamedTuple, NoReturn

import click

import multihost
from multihost.cli.exits import MEANINGS, exit_for
from multihost.errors import MultihostError


class Place(NamedTuple):
    """Where a command is, and what its one line in the help says."""

    module: str
    summary: str


SECTIONS: dict[str, dict[str, Place]] = {
    "Run": {
        "server": Place("server", "Start a server: it keeps the queues and the results."),
        "worker": Place("worker", "Start a worker: it takes tasks and runs them."),
        "demo": Place("demo", "Run a real job, kill things in the middle, prove nothing is lost."),
    },
    "Look": {
        "jobs": Place("jobs", "List jobs, newest first."),
        "job": Place("job", "Show a job: progress, failures, why it waits."),
        "tasks": Place("tasks", "List the tasks of a job."),
        "task": Place("tasks", "Show a task: its attempts, errors and last output."),
        "logs": Place("tasks", "Print what a task wrote to stdout and stderr."),
        "queues": Place("queues", "List queues; pause, resume, limit or drop one."),
        "locks": Place("locks", "List locks, semaphores, events and the like; drop one."),
        "workers": Place("workers", "List connected workers."),
    },
    "Act": {
        "wait": Place("wait", "Wait for a job to end; the exit code says how it ended."),
        "cancel": Place("acts", "Cancel jobs or tasks."),
        "delete": Place("acts", "Delete ended jobs and their results now."),
        "retry": Place("acts", "Queue failed or cancelled tasks again."),
    },
    "Care": {
        "doctor": Place("doctor", "Find what is wrong here, and say how to mend it."),
        "backup": Place("backup", "Write all that the running server keeps into a file."),
        "check": Place("backup", "Check the store of a stopped server, or a backup."),
        "restore": Place("backup", "Make a store of a backup."),
        "key": Place("key", "Make, list and revoke keys; print join strings."),
    },
}
COMMANDS = {name: place for section in SECTIONS.values() for name, place in section.items()}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        from importlib import import_module

        command = getattr(import_module(f"multihost.cli.{place.module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near:
                ctx.fail(f"there is no command {args[0]!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, place.summary) for name, place in commands.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), text) for code, text in MEANINGS.items()])
        with formatter.section("Which server"):
            formatter.write_text(
                "--join-file, --join or --server, else MULTIHOST_JOIN, else MULTIHOST_URL and "
                "MULTIHOST_KEY, else the config file, else the one that you have running on this "
                "machine. 'multihost key join' prints what another machine needs; "
                "'multihost doctor' says which server is meant."
            )


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="multiprocessing, across machines: a durable server, workers anywhere, the API you know.",
)
@click.version_option(multihost.__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Do nothing by itself; the commands do."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a bar in ASCII is "?"
    try:
        result: Any = cli.main(args=arguments, prog_name=_program(), standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        sys.stderr.write(_without_secrets(shown.getvalue()))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return exit_for(KeyboardInterrupt())
    except BrokenPipeError as error:
        # Whoever read our output has gone; Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_for(error)
    except (MultihostError, OSError) as error:
        from multihost.cli import render

        render.complain(_without_secrets(f"multihost: {error}"))
        return exit_for(error)
    return result if isinstance(result, int) else 0


def _without_secrets(text: str) -> str:
    """What is told about a wrong argument, should that be a join string in the wrong place."""
    if "mhj" not in text:
        return text
    from multihost.runtime.join import hide

    return hide(text)


def _program() -> str:
    name = os.path.basename(sys.argv[0])  # noqa: PTH119 - pathlib is not worth its import here
    return name if name in ("multihost", "mh") else "multihost"
