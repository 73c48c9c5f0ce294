"""A worker from the shell: what it says, and how it goes when told."""

import signal
from pathlib import Path

import pytest
from cli_runner import Shell
from cli_tasks import fail_on_odd, until_there

import multihost
from multihost.cli.exits import Exit
from multihost.testing import Cluster, wait_until

HERE = str(Path(__file__).parent)


@pytest.fixture
def cluster():
    with Cluster(workers=0) as cluster:
        yield cluster


@pytest.fixture
def shell(cluster):
    return Shell(**cluster.environment, PYTHONPATH=HERE)


def expect(process, text):
    """The next line on stderr, which has to contain ``text``."""
    line = process.stderr.readline()
    assert text in line, line
    return line


def test_a_worker_offers_what_it_was_started_with(cluster, shell):
    options = ["--slots", "3", "--name", "w-7", "--tag", "gpu", "--queue", "images", "--queue", "b"]
    with shell.start("worker", *options) as process:
        expect(process, f"worker w-7 is connected to {cluster.url}: 3 slots, images, b")
        (row,) = cluster.get("/api/workers")
        process.terminate()
        expect(process, "is draining")
        expect(process, "has left")
    assert process.returncode == Exit.OK
    assert (row["worker"], row["slots"], row["queues"], row["tags"]) == (
        *("w-7", 3, ["images", "b"], ["gpu"]),
    )


def test_a_task_names_the_worker_that_ran_it_when_that_has_gone(cluster, shell):
    with (
        multihost.connect(cluster.url, cluster.key) as client,
        shell.start("worker", "--slots", "1", "--name", "w-8") as process,
    ):
        assert len(list(client.map(fail_on_odd, [1], name="one", return_exceptions=True))) == 1
        process.terminate()
        process.communicate(timeout=30)
        wait_until(lambda: cluster.get("/api/workers") == [], "its session is closed")
    assert "attempt 1: raised on w-8 (gone), " in shell.run("task", "one/0")[1]
    assert "on w-8 (gone)" in shell.run("job", "one")[1]


def test_the_first_signal_finishes_what_runs(cluster, shell, tmp_path):
    with (
        multihost.connect(cluster.url, cluster.key) as client,
        shell.start("worker", "--slots", "1") as process,
    ):
        expect(process, "is connected")
        future = client.submit(until_there, str(tmp_path / "go"))
        wait_until((tmp_path / "go.begun").exists)
        process.send_signal(signal.SIGTERM)
        expect(process, "is draining: it finishes what runs")
        (tmp_path / "go").touch()
        assert future.result(30) == str(tmp_path / "go")
        assert process.wait(30) == Exit.OK


def test_the_second_signal_gives_back_what_runs_and_no_attempt_is_used_up(cluster, shell, tmp_path):
    with multihost.connect(cluster.url, cluster.key) as client:
        future = client.submit(until_there, str(tmp_path / "go"))
        with shell.start("worker", "--slots", "1") as process:
            expect(process, "is connected")
            wait_until((tmp_path / "go.begun").exists)
            process.send_signal(signal.SIGINT)
            expect(process, "is draining")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == Exit.OK
        number = cluster.get("/api/jobs")[0]["job"]
        wait_until(lambda: cluster.get(f"/api/tasks/{number}/0")["state"] == "queued")
        task = cluster.get(f"/api/tasks/{number}/0")
        assert (task["errors"], task["crashes"], task["losses"]) == (0, 0, 0)
        (tmp_path / "go").touch()
        with shell.start("worker") as process:
            assert future.result(30) == str(tmp_path / "go")
            process.terminate()


def test_a_worker_says_that_its_server_is_gone_and_that_it_is_back(cluster, shell):
    with shell.start("worker", "--slots", "1") as process:
        expect(process, "is connected")
        cluster.kill_server()
        expect(process, "what runs goes on, and it comes back")
        cluster.start_server()
        expect(process, "is connected")
        process.terminate()


def test_a_worker_without_a_server_says_where_it_looked():
    url = "http://127.0.0.1:9"
    code, _, errors = Shell(MULTIHOST_URL=url, MULTIHOST_KEY="x").run("worker")
    assert code is Exit.UNREACHABLE
    assert url in errors


def test_a_worker_with_another_key_is_refused(cluster):
    code, _, errors = Shell(MULTIHOST_URL=cluster.url, MULTIHOST_KEY="wrong").run("worker")
    assert code is Exit.KEY
    assert "has another key" in errors
