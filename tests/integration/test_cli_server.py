"""Starting and stopping a server: what it says, how it ends, why it refuses."""

import json
import re
import signal
import socket

import pytest
from cli_runner import Shell

from multihost.cli.exits import Exit
from multihost.runtime.join import parse_join
from multihost.runtime.secret import read_seal


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def shell(state):
    return Shell(MULTIHOST_STATE=str(state))


@pytest.fixture
def running(shell):
    """A server and its note."""
    process = shell.start("server", "--port", "0", "--json")
    with process:
        yield process, json.loads(process.stdout.readline())
        process.kill()


def ended(process):
    """Exit code and what was printed, of a server that was told to stop."""
    output, errors = process.communicate(timeout=30)
    return Exit(process.returncode), output, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_ends_well(running, number):
    process, _ = running
    process.send_signal(number)
    assert ended(process) == (Exit.OK, "", "")


def test_the_note_says_where_everything_is(running, state):
    process, note = running
    assert note == {
        "url": note["url"],
        "pid": process.pid,
        "state": str(state),
        "key_file": str(state / "key"),
        "fingerprint": None,
        "durability": "power",
        "managers": None,
        "sqlite": note["sqlite"],
    }
    assert (state / "key").stat().st_mode & 0o777 == 0o600


def test_listings_find_the_server_by_themselves(running, shell):
    _, note = running
    assert shell.json("workers") == []
    assert "multihost worker" in shell.run("workers")[2]
    assert shell.json("doctor")
    assert note["url"] in shell.run("doctor")[1]


def introduction(shell, *options):
    """What a server says on stderr until it is ready."""
    with shell.start("server", "--port", "0", *options) as process:
        lines = []
        while not lines or "start a worker on another machine" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        while lines[-1].strip():
            lines.append(process.stderr.readline())
        process.terminate()
        assert "stopped; everything acknowledged is stored" in process.stderr.read()
    assert process.returncode == Exit.OK
    return "".join(lines)


def test_the_introduction_can_be_copied_and_keeps_the_key_to_itself(shell, state):
    text = introduction(shell)
    assert str(state) in text
    assert "durability  power: acknowledged work survives kill -9 and a power cut" in text
    assert "TLS         off: only this machine reaches the server" in text
    assert "  multihost worker\n" in text
    assert "multihost key join | multihost worker --join -" in text
    assert "ssh -fNL" in text
    key = (state / "key").read_text().strip()
    assert key not in text
    assert "mhj1." not in text
    shown = introduction(shell, "--show-key")
    join = parse_join(re.search(r"MULTIHOST_JOIN=(\S+) multihost worker", shown)[1])
    assert (join.key, join.fingerprint) == (key, None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tls"], "TLS         on, its own certificate, SHA-256 "),
        (["--host", "0.0.0.0"], "TLS         on, its own certificate, SHA-256 "),
        (
            ["--host", "0.0.0.0", "--insecure"],
            "off (--insecure): whoever is on the network can read",
        ),
    ],
)
def test_the_introduction_says_what_protects_the_server_and_what_does_not(shell, options, says):
    assert says in introduction(shell, *options)


def test_a_server_makes_no_seal_but_for_a_join_string_that_it_is_to_show(tmp_path):
    mine = {"MULTIHOST_CONFIG": str(tmp_path / "config.toml"), "MULTIHOST_SEAL": ""}
    shell = Shell(MULTIHOST_STATE=str(tmp_path / "state"), **mine)
    introduction(shell)
    assert not (tmp_path / "seal").exists()
    shown = introduction(shell, "--show-key")
    join = parse_join(re.search(r"MULTIHOST_JOIN=(\S+) multihost worker", shown)[1])
    assert join.seal == read_seal(tmp_path / "seal")


def test_a_server_elsewhere_names_its_state_to_the_worker_here(tmp_path):
    other = tmp_path / "an other"
    text = introduction(Shell(MULTIHOST_STATE=str(tmp_path)), "--state", str(other))
    assert f"MULTIHOST_STATE='{other}' multihost worker" in text


def test_a_second_server_on_the_store_is_refused_by_name(running, shell):
    process, _ = running
    code, _, errors = shell.run("server", "--port", "0")
    assert code is Exit.SERVER
    assert f"is open in process {process.pid}" in errors


def test_a_server_that_runs_already_is_named_and_not_said_to_be_anothers(running, shell):
    process, note = running
    code, _, errors = shell.run("server", "--port", note["url"].rpartition(":")[2])
    assert code is Exit.SERVER
    assert f"server is running already, at {note['url']}, process {process.pid}" in errors


def test_a_taken_port_says_what_to_do(shell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, errors = shell.run("server", "--port", str(port))
    assert code is Exit.SERVER
    assert errors.startswith(f"multihost: 127.0.0.1:{port} is taken by another process")
    assert "--port" in errors


def test_an_address_for_managers_that_is_no_good_is_named_as_such(shell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        managers = ("server", "--port", "0", "--insecure", "--managers")
        code, _, errors = shell.run(*managers, f"127.0.0.1:{port}")
        assert code is Exit.SERVER
        assert errors.startswith(f"multihost: --managers 127.0.0.1:{port} is taken by another")
    for host in ("192.0.2.1", "no.such.host.invalid"):
        code, _, errors = shell.run(*managers, f"{host}:{port}")
        assert code is Exit.SERVER
        assert f"this machine has no address {host}" in errors


def test_an_address_of_another_machine_is_refused(shell):
    code, _, errors = shell.run("server", "--host", "192.0.2.1", "--port", "0", "--insecure")
    assert code is Exit.SERVER
    assert "this machine has no address 192.0.2.1" in errors


def test_a_damaged_store_is_refused(shell, state):
    state.mkdir()
    (state / "store.sqlite").write_bytes(b"this is no store " * 1000)
    code, _, errors = shell.run("server", "--port", "0")
    assert code is Exit.SERVER
    assert "store.sqlite" in errors


def test_a_key_that_others_can_read_is_refused(shell, state):
    state.mkdir()
    (state / "key").write_text("secret\n")
    (state / "key").chmod(0o644)
    code, _, errors = shell.run("server", "--port", "0")
    assert code is Exit.USAGE
    assert "chmod 600" in errors
    assert "secret" not in errors


def test_key_show_prints_the_path_and_the_key_only_when_asked(running, shell, state):
    key = (state / "key").read_text()
    assert shell.run("key", "show") == (Exit.OK, f"{state / 'key'}\n", "")
    assert shell.run("key", "show", "--reveal") == (Exit.OK, key, "")
    assert shell.json("key", "show") == {"path": str(state / "key")}


def test_key_show_without_a_key_says_who_makes_it(shell):
    code, _, errors = shell.run("key", "show")
    assert code is Exit.USAGE
    assert "'multihost server' makes one" in errors
