"""Workers that go, are killed, or lose their server: what ran is finished, given back or gone."""

import signal
from pathlib import Path

import psutil
import pytest
import worker_tasks as tasks
from worker_probe import faults_of, is_gone, task_of

import multihost
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there
NOTICED_S = 5.0
"""Within which a killed worker leaves nothing behind."""

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def cluster():
    with Cluster(workers=1, slots=2, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with multihost.connect(cluster.url, cluster.key) as client:
        yield client


def begin(client, path):
    """A task that runs until ``path`` is there, running."""
    future = client.submit(tasks.until_there, str(path))
    wait_until(Path(f"{path}.begun").exists)
    return future


def pid_of(path):
    """The process that runs the task."""
    return int(wait_until(lambda: Path(f"{path}.begun").read_text()))


def test_a_worker_that_drains_finishes_what_runs_and_others_run_the_rest(cluster, client, tmp_path):
    log = str(tmp_path / "log")
    running = [begin(client, tmp_path / str(n)) for n in range(2)]
    waiting = [client.submit(tasks.note_and_make, log, n) for n in range(20)]
    leaving = cluster.workers.pop()
    leaving.terminate()
    cluster.start_worker()
    # The others' slots run what waits, while the first is still at its own.
    assert [future.result(30) for future in waiting] == list(range(20))
    assert leaving.poll() is None
    pids = [pid_of(tmp_path / str(n)) for n in range(2)]
    for n in range(2):
        (tmp_path / str(n)).touch()
    assert [future.result(30) for future in running] == pids
    assert leaving.wait(20) == 0
    assert sorted(map(int, tasks.lines(log))) == list(range(20))
    for index in range(20):
        assert faults_of(task_of(cluster, tasks.note_and_make, index)) == (0, 0, 0)


def test_tasks_fed_ahead_to_a_worker_that_drains_are_run_elsewhere_once(cluster, client, tmp_path):
    log = str(tmp_path / "log")
    list(client.map(tasks.triple, range(500)))  # so that feeding ahead is on
    futures = [client.submit(tasks.note_and_make, log, n) for n in range(2000)]
    futures[0].result(30)
    leaving = cluster.workers.pop()
    leaving.terminate()
    cluster.start_worker()
    assert [future.result(40) for future in futures] == list(range(2000))
    assert leaving.wait(20) == 0
    assert sorted(map(int, tasks.lines(log))) == list(range(2000))


def test_a_second_signal_gives_back_what_runs_without_an_attempt(cluster, client, tmp_path):
    future = begin(client, tmp_path / "go")
    pid = pid_of(tmp_path / "go")
    leaving = cluster.workers.pop()
    leaving.terminate()
    # Only a worker that drains takes a signal for the second.
    wait_until(lambda: "is draining" in cluster.log)
    leaving.terminate()
    assert leaving.wait(20) == 0
    assert is_gone(pid)
    (tmp_path / "go").touch()
    cluster.start_worker()
    assert future.result(30) != pid
    assert faults_of(task_of(cluster, tasks.until_there)) == (0, 0, 0)


@pytest.mark.parametrize("function", [tasks.start_program, tasks.start_program_and_hold_the_gil])
def test_a_killed_worker_leaves_no_child_and_no_program_behind(cluster, client, tmp_path, function):
    path = tmp_path / "pids"
    client.submit(function, str(path))
    wait_until(lambda: len(tasks.lines(path)) == 2)
    pids = [*map(int, tasks.lines(path)), *cluster.children()]
    cluster.kill_worker()
    try:
        wait_until(lambda: all(map(is_gone, pids)), "all are gone", NOTICED_S)
    finally:
        for pid in pids:
            if not is_gone(pid):
                psutil.Process(pid).kill()


def test_what_a_killed_worker_ran_is_lost_once_and_run_elsewhere(cluster, client, tmp_path):
    future = begin(client, tmp_path / "go")
    pid = pid_of(tmp_path / "go")
    cluster.kill_worker()
    (tmp_path / "go").touch()
    cluster.start_worker()
    assert future.result(30) != pid
    assert faults_of(task_of(cluster, tasks.until_there)) == (0, 0, 1)


def test_a_program_that_a_finished_task_left_behind_does_not_outlive_its_worker(cluster, client):
    program = client.submit(tasks.leave_program_behind).result(30)
    leaving = cluster.workers.pop()
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(20) == 0
    wait_until(lambda: is_gone(program), "the program is gone", NOTICED_S)


def test_a_restart_of_the_server_does_not_touch_what_runs(cluster, client, tmp_path):
    futures = [begin(client, tmp_path / str(n)) for n in range(2)]
    pids = [pid_of(tmp_path / str(n)) for n in range(2)]
    cluster.kill_server()
    (tmp_path / "0").touch()  # one ends while there is no server, the other afterwards
    wait_until((tmp_path / "0").exists)
    cluster.start_server()
    (tmp_path / "1").touch()
    assert [future.result(30) for future in futures] == pids
    assert set(pids) <= set(cluster.children())
    for index in range(2):
        assert faults_of(task_of(cluster, tasks.until_there, index)) == (0, 0, 0)


def test_many_restarts_of_the_server_lose_and_repeat_nothing(cluster, client, tmp_path):
    log = str(tmp_path / "log")
    futures = [client.submit(tasks.note_and_sleep, log, n, 0.002) for n in range(600)]
    before = set(cluster.children())
    for taken in (50, 200, 350):
        futures[taken].result(30)
        cluster.kill_server()
        cluster.start_server()
    assert [future.result(40) for future in futures] == list(range(600))
    assert sorted(map(int, tasks.lines(log))) == list(range(600))
    assert set(cluster.children()) == before


def test_large_results_on_their_way_survive_a_restart_of_the_server(cluster, client, tmp_path):
    futures = [client.submit(tasks.until_there_then_bytes, str(tmp_path / "go"), 3 << 20)]
    futures.append(client.submit(tasks.until_there_then_bytes, str(tmp_path / "go"), 1 << 20))
    wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
    cluster.kill_server()
    (tmp_path / "go").touch()
    cluster.start_server()
    assert [len(future.result(30)) for future in futures] == [3 << 20, 1 << 20]
