"""Links between machines are cut, lose packets and are long: nothing is lost, nothing hangs."""

import contextlib
import json
import os
import random
import sys

import pytest
from links import Link, Proxy, need_nft, working
from networks import Network, tell

from multihost.runtime.join import Join, parse_join

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PORT = 7077
HOSTS = ("server", "client", "one", "two")
TASKS = 200
CUTS_S = (1, 10, 60) if os.environ.get("MULTIHOST_LONG_CUTS") else (1,)
"""How long links are cut; the long ones take minutes."""
LOSS_PERCENT = 10
DELAY_S = 0.1
"""One way; a question and its answer take twice as long."""

PROGRAM = """
import sys, time
import multihost


def work(n):
    time.sleep(0.02)
    return n * n


if __name__ == "__main__":
    name, tasks = sys.argv[1], int(sys.argv[2])
    with multihost.connect() as client:
        for result in client.map(work, range(tasks), name=name or None, ordered=False):
            print(result, flush=True)
"""
BATCHES = """
import multihost


def work(n):
    return n * n


if __name__ == "__main__":
    with multihost.Pool() as pool:
        assert pool.map(work, range(200_000)) == [n * n for n in range(200_000)]
    print("done")
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    need_nft()
    with Network(tmp_path_factory.mktemp("links"), *HOSTS) as network:
        (network.directory / "program.py").write_text(PROGRAM)
        (network.directory / "batches.py").write_text(BATCHES)
        yield network


@pytest.fixture(scope="module")
def links(network):
    return {host: Link(network, host) for host in HOSTS}


@pytest.fixture(scope="module")
def join(network):
    """The join string of a server that runs while the module's tests do."""
    server = network.start_multihost(
        *("server", "server", "--host", "0.0.0.0", "--port", PORT, "--json"),
        stdout=-1,
        stderr=None,
    )
    json.loads(server.stdout.readline())
    code, output, errors = network.multihost("server", "key", "join")
    assert code == 0, errors
    yield parse_join(output)
    tell(server)
    server.stdout.close()


@pytest.fixture(scope="module")
def workers(network, join):
    with working(network, join):
        yield


@contextlib.contextmanager
def running(network, join, *arguments):
    """A program on the client's host, with its lines as they come."""
    program = network.start(
        "client",
        *(sys.executable, network.directory / arguments[0], *arguments[1:]),
        environment={"MULTIHOST_JOIN": join.text()},
        stdout=-1,
        stderr=None,
    )
    with program:
        yield program
    assert program.returncode == 0


def assert_each_ended_once(network, join, name, results):
    assert sorted(results) == [n * n for n in range(TASKS)]
    if not name:
        return
    code, output, errors = network.multihost(
        "client", "job", name, "--json", environment={"MULTIHOST_JOIN": join.text()}
    )
    assert code == 0, errors
    job = json.loads(output)
    counts = job.get("counts", job)
    assert (counts["succeeded"], counts["failed"], counts["cancelled"]) == (TASKS, 0, 0)


@pytest.mark.parametrize("cut_s", CUTS_S)
@pytest.mark.parametrize("host", ["server", "client", "one"])
@pytest.mark.usefixtures("workers")
def test_a_link_that_is_cut_under_load_loses_nothing(network, links, join, host, cut_s):
    chance = random.Random(f"{host} {cut_s}")
    # A job without a name lives with its client's session, which has to outlive a cut.
    name = "" if host == "client" else f"cut-{host}-{cut_s}"
    with running(network, join, "program.py", name, TASKS) as program:
        lines = iter(program.stdout)
        results = [int(next(lines)) for _ in range(chance.randrange(5, TASKS // 2))]
        with links[host].cut():
            network.start("two", "sleep", cut_s).wait(2 * cut_s + 60)
        results += [int(line) for line in lines]
    assert_each_ended_once(network, join, name, results)


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.usefixtures("workers")
def test_a_link_that_is_cut_one_way_loses_nothing(network, links, join, way):
    name = f"one-way-{way}"
    with running(network, join, "program.py", name, TASKS) as program:
        lines = iter(program.stdout)
        results = [int(next(lines)) for _ in range(TASKS // 8)]
        with links["two"].cut(way):
            network.start("client", "sleep", 1).wait(60)
        results += [int(line) for line in lines]
    assert_each_ended_once(network, join, name, results)


@pytest.mark.usefixtures("workers")
def test_batches_come_through_a_link_that_loses_every_tenth_packet(network, links, join):
    with (
        links["server"].losing(LOSS_PERCENT),
        running(network, join, "batches.py") as program,
    ):
        assert program.stdout.read() == "done\n"


def test_batches_and_single_tasks_come_through_a_link_that_is_long(network, join):
    with Proxy(network, "server", PORT, DELAY_S) as proxy:
        far = Join((proxy.url,), join.fingerprint, join.key, join.seal)
        with working(network, far):
            with running(network, far, "batches.py") as program:
                assert program.stdout.read() == "done\n"
            with running(network, far, "program.py", "far", TASKS) as program:
                results = [int(line) for line in program.stdout]
        assert_each_ended_once(network, join, "far", results)
