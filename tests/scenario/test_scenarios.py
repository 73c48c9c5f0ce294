"""The examples as separate processes, with one of them killed in the middle."""

import http.server
import os
import re
import shutil
import subprocess
import threading

import pytest
from shells import EXAMPLES, Program, standard

from multihost.testing.ports import free_port

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def address():
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def shell(tmp_path):
    """Start programs; those that still run at the end are killed."""
    started = []
    environment = {"MULTIHOST_STATE": str(tmp_path / "state"), "AUTHKEY": "a-key-of-the-test"}

    def start(script, *arguments, prefix=()):
        program = Program(script, *arguments, environment=environment, prefix=prefix)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()


def numbers(lines):
    return [int(re.search(r"\d+", line).group()) for line in lines]


def squares(tasks):
    return sorted(f"{n} * {n} = {n * n}" for n in tasks)


def results(lines):
    return sorted(line.removeprefix("result: ") for line in lines if line.startswith("result: "))


# 1. master and workers ---------------------------------------------------------------------

ONE = EXAMPLES / "master_and_workers"


@pytest.mark.parametrize("is_standard", [False, True], ids=["ours", "standard-library"])
def test_a_worker_that_dies_between_get_and_put_loses_nothing(
    shell, address, tmp_path, is_standard
):
    worker = standard(ONE / "worker.py", tmp_path) if is_standard else ONE / "worker.py"
    master = shell(ONE / "master.py", "--address", address)
    master.wait_for("waiting for results")
    victim = shell(worker, "--address", address, "--seconds", 60)
    victim.wait_for("run task")
    victim.kill()
    # What the victim held comes back within seconds, perhaps after the first has left.
    while master.process.poll() is None and len(results(master.lines)) < 10:
        shell(worker, "--address", address, "--seconds", 0.01).process.wait()
    lines = master.finish()
    assert results(lines) == squares(numbers(line for line in lines if "put task" in line))


def test_a_master_that_was_killed_finds_its_queues_as_they_were(shell, address):
    master = shell(ONE / "master.py", "--address", address)
    tasks = numbers(master.wait_for("put task", 10))
    master.wait_for("waiting for results")
    worker = shell(ONE / "worker.py", "--address", address, "--seconds", 0.01)
    got = results(master.wait_for("result:", 2))
    master.kill()
    again = shell(ONE / "master.py", "--address", address, "--count", 10 - len(got))
    again.wait_for("waiting for results")
    while again.process.poll() is None and len(results(again.lines)) < 10 - len(got):
        shell(ONE / "worker.py", "--address", address, "--seconds", 0.01).process.wait()
    lines = again.finish()
    assert not [line for line in lines if "put task" in line]
    # The last result that the first one printed may come again: it died holding it.
    assert set(got) | set(results(lines)) <= set(squares(tasks))
    assert len(results(lines)) == 10 - len(got)
    worker.process.wait()


# 2. Process and Pool -------------------------------------------------------------------------


def test_processes_and_pools_do_what_the_standard_library_s_do(shell):
    lines = shell(EXAMPLES / "process_and_pool" / "count_and_square.py").finish()
    assert "total: 60 exit codes: [0, 0, 0]" in lines
    assert [line.split(" (")[0] for line in sorted(lines) if "is done" in line] == [
        "p0",
        "p1",
        "p2",
    ]
    assert str([n * n for n in range(10)]) in lines
    assert "sum of squares: 30" in lines


# 3. job scheduler ----------------------------------------------------------------------------


def test_two_workers_share_the_jobs_even_if_one_is_killed(shell, address):
    three = EXAMPLES / "job_scheduler"
    master = shell(three / "master.py", "--address", address, "--rounds", 2)
    master.wait_for("dispatch")
    victim = shell(three / "worker.py", "--address", address)
    steady = shell(three / "worker.py", "--address", address, "--patience", 20)
    victim.wait_for("run")
    steady.wait_for("run")
    victim.kill()
    lines = master.finish()
    assert steady.finish()[-1] == "the master has ended."
    back = [line for line in lines if line.startswith("came back")]
    assert len(back) == 20
    assert all("finished, exit code 0" in line and "hello from job" in line for line in back)
    assert lines.count("all of them are finished.") == 2
    assert lines.index("all of them are finished.") < next(
        at for at, line in enumerate(lines) if line.startswith("dispatch job 11 ")
    )


# 4. image crawler ----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    """A site of three pages and nine images, one of them missing."""
    root = tmp_path / "site"
    root.mkdir()
    for page in range(3):
        images = "".join(f'<img src="{page}{image}.png">' for image in range(3))
        links = "".join(f'<a href="{other}.html">{other}</a>' for other in range(3))
        (root / f"{page}.html").write_text(f"<html>{images}{links}</html>")
        for image in range(3):
            (root / f"{page}{image}.png").write_bytes(os.urandom(2000))
    (root / "22.png").unlink()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=root)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/0.html"
        server.shutdown()
        thread.join()


def test_every_image_is_downloaded_once_and_a_missing_one_is_reported(
    shell, address, site, tmp_path
):
    four = EXAMPLES / "image_crawler"
    finder = shell(four / "finder.py", site, "--address", address)
    finder.wait_for("found")
    common = ("--address", address, "--into", tmp_path / "images")
    victim = shell(four / "downloader.py", *common)
    victim.wait_for("download")
    victim.kill()
    shell(four / "downloader.py", *common, "--patience", 20)
    lines = finder.finish()
    reports = [line for line in lines if ".png" in line and not line.startswith("found")]
    assert len(reports) == len(set(reports)) == 9
    assert len([line for line in reports if line.startswith("success")]) == 8
    assert any("404" in line for line in reports)
    assert len([path for path in (tmp_path / "images").iterdir() if path.suffix == ".png"]) == 8


# 5. god, producers, consumers ----------------------------------------------------------------

FIVE = EXAMPLES / "god_producers_consumers"


def cubes(lines):
    return sorted(
        tuple(map(int, re.findall(r"\d+", line))) for line in lines if "result: (" in line
    )


@pytest.mark.parametrize("is_standard", [False, True], ids=["ours", "standard-library"])
def test_producers_and_consumers_come_and_go(shell, address, tmp_path, is_standard):
    scripts = {name: FIVE / f"{name}.py" for name in ("producer", "consumer")}
    if is_standard:
        scripts = {name: standard(script, tmp_path) for name, script in scripts.items()}
    god = shell(FIVE / "god.py", "--address", address)
    god.wait_for("waiting for results")
    shell(scripts["producer"], 0, 20, "--address", address).finish()
    victim = shell(scripts["consumer"], "--address", address, "--seconds", 0.05)
    victim.wait_for("", 3)
    victim.kill()
    shell(scripts["producer"], 100, 20, "--address", address).finish()
    shell(scripts["consumer"], "--address", address, "--seconds", 0.01)
    god.wait_for("result:", 40)
    assert cubes(god.lines) == sorted((n, n**3) for n in [*range(20), *range(100, 120)])
    god.interrupt()
    assert god.finish()[-1] == "good night."


# other machines ------------------------------------------------------------------------------


@pytest.fixture
def other_machine():
    """A network namespace: its prefix for commands, and our address as seen from there."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    name, here, there = f"mh{os.getpid()}", f"mha{os.getpid()}", f"mhb{os.getpid()}"

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("addr", "add", "10.213.77.1/24", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "addr", "add", "10.213.77.2/24", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        yield ("ip", "netns", "exec", name), "10.213.77.1"
    finally:
        ip("netns", "delete", name)


def test_workers_on_another_machine_share_the_work(shell, address, other_machine):
    prefix, host = other_machine
    port = address.rpartition(":")[2]
    master = shell(ONE / "master.py", "--address", f"0.0.0.0:{port}")
    master.wait_for("waiting for results")
    away = (ONE / "worker.py", "--address", f"{host}:{port}", "--seconds")
    victim = shell(*away, 60, prefix=prefix)
    victim.wait_for("run task")
    victim.kill()
    while master.process.poll() is None and len(results(master.lines)) < 10:
        shell(*away, 0.01, prefix=prefix).process.wait()
    lines = master.finish()
    assert results(lines) == squares(numbers(line for line in lines if "put task" in line))
