"""Options that several commands share, and what they lead to."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from multihost.cli.connection import Connection
from multihost.cli.exits import CommandError, Exit
from multihost.errors import ConfigError
from multihost.runtime import config
from multihost.runtime.config import Target
from multihost.runtime.secret import read_key
from multihost.runtime.variables import unknown

C = TypeVar("C", bound=Callable[..., Any])

as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON, for scripts.")
_server = click.option(
    "--server",
    "url",
    metavar="URL",
    help="Address of the server, such as https://host:7077; several, separated by commas.",
)
_join = click.option(
    "--join",
    metavar="STRING|-",
    help="Join string of the server; - reads it from standard input. Others can see arguments: "
    "better --join-file, or the variable MULTIHOST_JOIN.",
)
_join_file = click.option(
    "--join-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File (mode 0600) with what 'multihost key join' prints on the server's machine.",
)
_key_file = click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with the server's key (mode 0600), instead of MULTIHOST_KEY.",
)


def server_options(command: C) -> C:
    """Give ``command`` the options that say which server.

    It is called with ``url``, an address or a join string that is for ``find_server``
    alone and never shown, and ``key_file``.
    """

    @functools.wraps(command)
    def resolved(
        *args: Any, url: str | None, join: str | None, join_file: Path | None, **options: Any
    ) -> Any:
        if join is not None or join_file is not None or url is not None:
            from multihost.cli.joining import take_join

            url = take_join(join, join_file, url)
        return command(*args, url=url, **options)

    return _server(_join(_join_file(_key_file(cast("C", resolved)))))


def find_server(url: str | None, key_file: Path | None) -> Target:
    """The server that is meant; raises ConfigError, or CommandError when none is known."""
    key = read_key(key_file) if key_file is not None else None
    target = config.find_target(url, key)
    if target is None:
        dead = config.dead_server()
        if dead is not None:
            raise CommandError(
                "your server on this machine ({}, pid {}) has died; 'multihost server' starts it "
                "again, with all that it kept".format(*dead),
                Exit.UNREACHABLE,
            )
        raise CommandError(
            "no server is known: none of yours runs on this machine (state directory "
            f"{config.state_dir()}), and neither {config.JOIN_VARIABLE}, "
            f"{config.URL_VARIABLE} nor "
            f"{config.config_file()} names one; start one with 'multihost server', or "
            f"join one with what 'multihost key join' prints on its machine{_typos()}",
            Exit.UNREACHABLE,
        )
    return target


def _typos() -> str:
    """What may have been meant to name a server."""
    meant = {name: near for name, near in unknown().items() if near is not None}
    return "".join(
        f". {name} is set, and means nothing: did you mean {near}?" for name, near in meant.items()
    )


@contextmanager
def connected(url: str | None, key_file: Path | None) -> Iterator[Connection]:
    """A connection to the server that is meant, closed at the end."""
    connection = Connection(find_server(url, key_file))
    try:
        yield connection
    finally:
        connection.close()


def parse_place(text: str) -> tuple[str, int | None]:
    """Job (number or name) and index from ``42/7`` or ``run-7``; index None for a whole job."""
    job, slash, index = text.rpartition("/")
    if slash and index.isdecimal():
        return job, int(index)
    if not text:
        raise ConfigError("a job is a number (42) or a name (run-7), a task is 42/7")
    return text, None


def parse_task(text: str) -> tuple[str, int]:
    """Job and index from ``42/7``; raises ConfigError for anything else."""
    job, index = parse_place(text)
    if index is None:
        raise ConfigError(f"{text!r} is not a task; write job and index, such as 42/7")
    return job, index
