"""A worker that is stopped beyond its lease: others run its task, and it can't end it any more."""

import os
import signal
from pathlib import Path

import pytest
import worker_tasks as tasks
from hasty import HastyCluster
from worker_probe import faults_of, is_gone, task_of

import multihost
from multihost.testing import wait_until

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def cluster():
    with HastyCluster(workers=1, slots=1, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with multihost.connect(cluster.url, cluster.key) as client:
        yield client


def pid_of(path):
    """The process that began the task last; 0 while it is being written."""
    try:
        return int(Path(f"{path}.begun").read_text() or 0)
    except FileNotFoundError:
        return 0


def stop_the_worker_that_runs(cluster, client, path):
    """The future of a task whose worker is stopped, and the process that runs it."""
    future = client.submit(tasks.until_there, path)
    pid = wait_until(lambda: pid_of(path))
    os.kill(cluster.workers[0].pid, signal.SIGSTOP)
    return future, pid


def test_a_task_of_a_stopped_worker_is_run_by_another_and_counted_as_lost(
    cluster, client, tmp_path
):
    go = str(tmp_path / "go")
    future, first = stop_the_worker_that_runs(cluster, client, go)
    cluster.start_worker()
    # The first child is not stopped: it ends the task, too, but nobody hears of it.
    second = wait_until(lambda: (pid := pid_of(go)) != first and pid)
    Path(go).touch()
    assert future.result(30) == second
    os.kill(cluster.workers[0].pid, signal.SIGCONT)
    # It comes back, is told that its lease is gone, and goes on with other tasks.
    cluster.wait_for_workers(2)
    assert list(client.map(tasks.triple, range(50))) == [3 * n for n in range(50)]
    assert future.result() == second
    task = task_of(cluster, tasks.until_there)
    assert (task["state"], faults_of(task)) == ("succeeded", (0, 0, 1))
    assert "Traceback" not in cluster.log


def test_a_worker_that_wakes_after_its_lease_stops_the_task_that_is_another_s_now(
    cluster, client, tmp_path
):
    go = str(tmp_path / "go")
    future, first = stop_the_worker_that_runs(cluster, client, go)
    cluster.start_worker()
    second = wait_until(lambda: (pid := pid_of(go)) != first and pid)
    os.kill(cluster.workers[0].pid, signal.SIGCONT)
    cluster.wait_for_workers(2)
    # Interrupted, so its slot is free again: both can run at once.
    other = client.submit(tasks.until_there, str(tmp_path / "other"))
    wait_until((tmp_path / "other.begun").exists)
    (tmp_path / "other").touch()
    assert other.result(30) != second
    assert not is_gone(second)
    Path(go).touch()
    assert future.result(30) == second
