"""The command table, what help costs, and that the documents say the same."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from multihost.cli.exits import MEANINGS, CommandError, Exit, exit_for
from multihost.cli.main import COMMANDS, cli, run
from multihost.errors import (
    AuthenticationError,
    ConfigError,
    ServerNotFound,
    StoreError,
    StoreLocked,
)
from multihost.server.guard import GUARD_VARIABLE

ROOT = Path(__file__).parents[3]
SLOW = ("asyncio", "rich", "uvicorn", "msgspec", "starlette", "uvloop", "apsw", "psutil")


def modules_after(*arguments):
    """Modules that a process has once it has run a command."""
    program = (
        "import sys\nfrom multihost.cli.main import run\n"
        f"run({list(arguments)!r})\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["jobs"], ["job", "--help"], ["server", "-h"]])
def test_help_and_listings_import_nothing_slow(arguments):
    assert modules_after(*arguments).isdisjoint(SLOW)


def test_help_imports_no_command():
    loaded = modules_after("--help")
    assert not {f"multihost.cli.{place.module}" for place in COMMANDS.values()} & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says_and_has_help_with_an_example(name, capsys):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert run([name, "--help"]) == Exit.OK
    text = capsys.readouterr().out
    assert command.help
    assert f"multihost {name}" in text.split("Options:")[1] or isinstance(command, click.Group)


def test_help_lists_every_command_and_exit_code(capsys):
    assert run(["--help"]) == Exit.OK
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in text
    for code in MEANINGS:
        assert f"\n  {int(code)} " in text


def test_the_reference_has_every_command_and_exit_code():
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for name in COMMANDS:
        assert f"`multihost {name}" in text
    for code, meaning in MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in text


def test_every_exit_code_is_explained():
    assert MEANINGS.keys() == set(Exit)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AuthenticationError("key"), Exit.KEY),
        (ServerNotFound("http://x", "refused"), Exit.UNREACHABLE),
        (ConfigError("odd"), Exit.USAGE),
        (StoreLocked("locked", "path", 7), Exit.SERVER),
        (CommandError("no", Exit.CANCELLED), Exit.CANCELLED),
        (CommandError("no"), Exit.FAILED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (OSError("disk"), Exit.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_for(error) is code


def test_an_error_is_one_line_on_stderr(capsys, tmp_path):
    assert run(["key", "show", "--state", str(tmp_path)]) == Exit.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("multihost: there is no key at ")
    assert printed.err.count("\n") == 1


class BrokenServer:
    """A server whose store fails as soon as it runs."""

    def __init__(self, options):
        self.options = options
        self.url, self.key = "http://127.0.0.1:1", b"key"
        self.fingerprint = self.door = self.failure = None

    def request_stop(self):
        raise AssertionError("nobody asks")

    async def start(self):
        self.failure = StoreError("the disk reported an error")

    async def wait(self):
        return

    async def stop(self):
        return


def test_a_server_whose_store_fails_says_so_and_has_its_own_exit_code(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.delenv(GUARD_VARIABLE)  # of this process, which is more than a server
    monkeypatch.setattr("multihost.server.app.Server", BrokenServer)
    assert run(["server", "--state", str(tmp_path), "--json"]) == Exit.SERVER
    errors = capsys.readouterr().err
    assert "the server stopped: the disk reported an error; what it had acknowledged" in errors
    assert "start it again" in errors


def test_the_version_is_printed(capsys):
    assert run(["--version"]) == Exit.OK
    assert capsys.readouterr().out.startswith("multihost 0.")


@pytest.mark.parametrize("group", ["key", "queues", "locks"])
def test_what_a_group_can_do_is_said_in_whole_sentences(capsys, group):
    assert run([group, "--help"]) == Exit.OK
    commands = capsys.readouterr().out.partition("\nCommands:\n")[2].partition("\n\n")[0]
    assert commands
    assert "..." not in commands


def test_an_authkeys_file_is_not_taken_for_the_servers_key(capsys, tmp_path):
    """Whoever follows 'multihost key show' then would put the wrong secret there."""
    path = tmp_path / "authkey"
    command = ["server", "--managers", "127.0.0.1:0", "--managers-authkey-file", str(path)]
    command += ["--state", str(tmp_path)]
    says = f"{path}{{}}write the authkey into it that your scripts have"
    assert run(command) == Exit.USAGE
    assert says.format(": No such file or directory; ") in capsys.readouterr().err
    path.touch(0o600)
    assert run(command) == Exit.USAGE
    assert says.format(" is empty: ") in capsys.readouterr().err
