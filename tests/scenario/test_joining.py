"""Four machines that have nothing in common but a network and one join string."""

import base64
import contextlib
import json
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from networks import Network, tell

from multihost.cli.exits import Exit
from multihost.runtime.join import Join, parse_join
from multihost.testing.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

PORT = 7077
ARGUMENT = "what the client sends; "
RESULT = "what the worker answers; "
OBJECT = "what a manager on the client's host keeps; "
PROGRAM = f"""
import os, sys
import multihost


def meet(barrier, text, shared, number):
    barrier.wait(60)  # for the other, which runs on another worker
    shared[number] = shared["given"] + {OBJECT!r}
    return os.getppid(), {RESULT!r} * len(text)


if __name__ == "__main__":
    with multihost.Pool() as pool, multihost.Manager() as manager:
        text = {ARGUMENT!r} * 2000
        barrier, shared = multihost.Barrier(2), manager.dict(given={OBJECT!r})
        tasks = [(barrier, text, shared, number) for number in range(2)]
        found = pool.starmap(meet, tasks, chunksize=1)
        assert shared[0] == shared[1] == {OBJECT!r} * 2
    assert all(result == {RESULT!r} * len(text) for _, result in found)
    print("workers:", len({{worker for worker, _ in found}}))
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with Network(tmp_path_factory.mktemp("net"), "server", "client", "one", "two") as network:
        (network.directory / "program.py").write_text(PROGRAM)
        yield network


class Site:
    """A server on one host; ``join`` is its join string, as its own command line prints it."""

    def __init__(self, network, *options):
        self.network = network
        self.server = network.start_multihost(
            *("server", "server", "--host", "0.0.0.0", "--port", PORT, "--json", *options),
            stdout=PIPE,
            stderr=PIPE,
        )
        self.note = json.loads(self.server.stdout.readline())
        code, output, errors = network.multihost("server", "key", "join")
        assert code == 0, errors
        self.text = output.strip()
        self.join = parse_join(self.text)
        self.workers = []

    @property
    def key(self):
        return self.join.key

    def start_workers(self):
        """One by a file, one by standard input; both are connected afterwards."""
        path = self.network.directory / "join"
        path.touch(0o600)
        path.write_text(self.text)
        one = ("one", "worker", "--slots", "1", "--join-file", path)
        two = ("two", "worker", "--slots", "1", "--join", "-")
        self.workers = [
            self.network.start_multihost(*one, stdout=PIPE, stderr=PIPE),
            self.network.start_multihost(*two, stdout=PIPE, stderr=PIPE, stdin=PIPE),
        ]
        self.workers[1].stdin.write(self.text + "\n")
        self.workers[1].stdin.close()
        for worker in self.workers:
            assert "is connected to" in worker.stderr.readline()

    def run_program(self):
        """A program that needs both workers, on the client's host."""
        code, output, errors = self.network.run(
            *("client", sys.executable, self.network.directory / "program.py"),
            environment={"MULTIHOST_JOIN": self.text},
        )
        assert (code, output) == (0, "workers: 2\n"), errors

    def ask(self, *arguments, join=None, host="client"):
        """Exit code and all that a command prints on a host that has only a join string."""
        text = self.text if join is None else join.text()
        code, output, errors = self.network.multihost(
            host, *arguments, environment={"MULTIHOST_JOIN": text}
        )
        assert text[:40] not in output + errors
        assert self.key not in output + errors
        return Exit(code), output + errors

    def stop(self):
        """All end well, and have told no secret."""
        for process in (*self.workers, self.server):
            assert tell(process) == 0
            for end in (process.stdout, process.stderr):
                with end:
                    told = end.read()
                assert self.key not in told
                assert self.text[:40] not in told


@pytest.fixture(scope="module")
def site(network):
    site = Site(network)
    site.start_workers()
    yield site
    site.stop()


def records(stream):
    """Kinds of the TLS records that a stream consists of, from its first byte to its last."""
    at, kinds = 0, []
    while at + 5 <= len(stream):
        kind, version, size = stream[at], stream[at + 1], int.from_bytes(stream[at + 3 : at + 5])
        assert kind in (20, 21, 22, 23), f"{stream[at : at + 40]!r} is no TLS"
        assert version == 3
        kinds.append(kind)
        at += 5 + size
    return kinds


def command_lines():
    """What ``ps`` shows to every user of the machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield path.read_text(errors="replace")


def seals_in(site, crossed):
    """Ways in which the seal, which the server never has, was written there."""
    seal = site.join.seal
    assert seal is not None
    ways = (seal, seal.hex().encode(), base64.b64encode(seal), base64.urlsafe_b64encode(seal))
    return [way for way in ways if way.rstrip(b"=") in crossed]


def test_a_join_string_is_all_that_other_machines_need(network):
    """And nothing but TLS crosses the network: the workers' coming, the work, the listings."""
    with network.recording() as recording:
        site = Site(network)
        assert site.join.urls[0] == f"https://{network.address('server')}:{PORT}"
        site.start_workers()
        site.run_program()
        assert not [line for line in command_lines() if site.key in line or site.text in line]
        code, output = site.ask("workers")
        assert (code, output.count("connected")) == (Exit.OK, 2)
        code, output = site.ask("jobs")
        assert (code, "succeeded" in output) == (Exit.OK, True)
        streams = recording.streams(PORT)
        crossed = b"".join(recording.so_far())
        site.stop()
    # Both ways: two workers and their two children, the program, two listings.
    assert len(streams) >= 14
    for stream in streams.values():
        kinds = records(stream)
        assert (kinds[0], kinds.count(23) > 1) == (22, True)
    for secret in (site.key, site.text, ARGUMENT, RESULT, OBJECT, "Authorization", "GET /ws"):
        assert secret.encode() not in crossed
    assert not seals_in(site, crossed)


def test_without_tls_the_recording_shows_all_that_crosses(network):
    with network.recording() as recording:
        site = Site(network, "--insecure")
        site.start_workers()
        site.run_program()
        crossed = b"".join(recording.so_far())
        site.stop()
    assert site.join.urls[0] == f"http://{network.address('server')}:{PORT}"
    for seen in (site.key, RESULT, OBJECT, "GET /ws"):
        assert seen.encode() in crossed
    assert not seals_in(site, crossed)  # what is signed stays so, even there


# what is refused ----------------------------------------------------------------------------------

WRONG_PIN = "cd" * 32
REFUSED = {
    "fingerprint": (
        lambda join: Join(join.urls, WRONG_PIN, join.key),
        "has another certificate than expected",
    ),
    "key": (lambda join: Join(join.urls, join.fingerprint, "wrong"), "has another key"),
}
"""By what is wrong: how a join string becomes so, and what is said about it."""


@pytest.mark.parametrize("command", ["worker", "jobs"])
@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_wrong_in_a_join_string_is_refused_by_name(site, network, wrong, command):
    alter, message = REFUSED[wrong]
    with network.recording() as recording:
        code, told = site.ask(command, join=alter(site.join))
        streams = recording.streams(PORT)
        crossed = b"".join(recording.so_far())
    assert code is Exit.KEY
    assert message in told
    assert site.key.encode() not in crossed
    client = network.address("client")
    for ends, stream in streams.items():
        if client in (ends[0], ends[2]):
            records(stream)


@pytest.fixture(scope="module")
def keys(site, network):
    """Keys of the site, by what is the matter with them."""

    def new(*options):
        code, output, errors = network.multihost("server", "key", "new", *options)
        assert code == 0, errors
        return output.strip()

    def listed():
        _, output, _ = network.multihost("server", "key", "list", "--json")
        return {row["name"]: row["state"] for row in json.loads(output)}

    keys = {
        "expired": new("--role", "admin", "--name", "expired", "--expires", "1s"),
        "revoked": new("--role", "admin", "--name", "revoked"),
        "submit": new("--role", "submit"),
        "work": new("--role", "work"),
    }
    assert network.multihost("server", "key", "revoke", "revoked")[0] == 0
    wait_until(lambda: listed()["expired"] == "expired", "the key has expired")
    return keys


NOT_TAKEN = {
    ("expired", "worker"): "(expired) expired at ",
    ("expired", "jobs"): "(expired) expired at ",
    ("revoked", "worker"): "(revoked) was revoked at ",
    ("revoked", "jobs"): "(revoked) was revoked at ",
    ("submit", "worker"): "has the role submit, and opening a worker's session takes ",
    ("work", "jobs"): "has the role work, and GET /api/jobs takes ",
}
"""By key and command: what is said about it."""


@pytest.mark.parametrize("case", NOT_TAKEN, ids="-".join)
def test_a_key_that_is_not_taken_is_told_why_and_is_not_seen_by_others(site, network, keys, case):
    (wrong, command), message = case, NOT_TAKEN[case]
    key = keys[wrong]
    join = Join(site.join.urls, site.join.fingerprint, key)
    with network.recording() as recording:
        code, told = site.ask(command, join=join)
        streams = recording.streams(PORT)
        crossed = b"".join(recording.so_far())
    assert code is Exit.KEY
    assert message in told
    assert key.split("_", 2)[2] not in told
    client = network.address("client")
    mine = [stream for ends, stream in streams.items() if client in (ends[0], ends[2])]
    assert mine
    assert all(records(stream) for stream in mine)
    for secret in (key, key.split("_", 2)[2], site.key, message):
        assert secret.encode() not in crossed


def test_a_wrong_fingerprint_is_refused_with_both_and_before_a_word_is_said(site, network):
    join = REFUSED["fingerprint"][0](site.join)
    with network.recording() as recording:
        code, told = site.ask("jobs", join=join)
        streams = recording.streams(PORT)
    assert code is Exit.KEY
    assert WRONG_PIN in told
    assert site.join.fingerprint in told
    said = [stream for ends, stream in streams.items() if ends[0] == network.address("client")]
    # At most the end of the handshake and a close: a request would be more.
    assert [sum(len(each) for each in said) < 1500, len(said)] == [True, 1]


def test_plain_http_to_another_machine_is_refused_before_a_word_is_said(site, network):
    url = f"http://{network.address('server')}:{PORT}"
    with network.recording() as recording:
        code, _, errors = network.multihost(
            "client", "jobs", environment={"MULTIHOST_URL": url, "MULTIHOST_KEY": site.key}
        )
        streams = recording.streams(PORT)
    assert (code, "is not encrypted" in errors) == (Exit.USAGE, True)
    assert not [ends for ends in streams if network.address("client") in ends]
