"""Process on workers elsewhere: where they run, and what becomes of them when things die."""

import contextlib
import os
import signal
import socket
import threading
from multiprocessing import connection
from pathlib import Path

import process_tasks as tasks
import psutil
import pytest
from process_program import used
from programs import run

from multihost import Event, Process
from multihost.client.client import shared_client
from multihost.errors import LimitExceeded
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import process_tasks from there
WAIT_S = 60

pytestmark = pytest.mark.timeout(120)


@contextlib.contextmanager
def cluster_of(patch, **options):
    with Cluster(python_path=HERE, **options) as cluster, used(cluster, patch):
        yield cluster


@pytest.fixture(scope="module")
def lasting():
    with Cluster(python_path=HERE, workers=1, slots=1) as cluster:
        yield cluster


@pytest.fixture
def cluster(lasting, monkeypatch):
    """One worker with one slot, which many tests use one after the other."""
    with used(lasting, monkeypatch) as cluster:
        yield cluster


def started(target, *args, **options):
    process = Process(target=target, args=args, **options)
    process.start()
    return process


def ended(process):
    process.join(WAIT_S)
    return process.exitcode


def worker_of(process, cluster):
    """Position of the worker that runs a process."""
    parent = psutil.Process(process.pid).ppid()
    return [worker.pid for worker in cluster.workers].index(parent)


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_pid_and_host_say_where_a_process_runs(cluster):
    process = started(tasks.for_ever)
    assert process.host == socket.gethostname()
    assert psutil.Process(process.pid).ppid() == cluster.workers[0].pid
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL


def test_processes_wait_for_no_slot_and_take_none(cluster, tmp_path):
    processes = [started(tasks.for_ever, tmp_path / str(number)) for number in range(3)]
    wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
    assert shared_client().submit(abs, -1).result(WAIT_S) == 1
    for process in processes:
        process.terminate()
    assert [ended(process) for process in processes] == [-signal.SIGTERM] * 3


def test_host_and_tags_choose_the_worker(monkeypatch):
    with cluster_of(monkeypatch, workers=1, slots=1) as cluster:
        cluster.start_worker("--tag", "gpu")
        cluster.wait_for_workers(2)
        processes = [started(tasks.for_ever, tags=["gpu"]) for _ in range(3)]
        assert {worker_of(process, cluster) for process in processes} == {1}
        here = started(tasks.for_ever, host=socket.gethostname())
        assert here.is_alive()


def test_a_process_that_no_worker_can_run_waits_for_one(monkeypatch, caplog):
    with cluster_of(monkeypatch, workers=1, slots=1) as cluster:
        process = Process(target=tasks.for_ever, tags=["rare"])
        session = shared_client().session
        starting = threading.Thread(target=process.start)
        starting.start()
        wait_until(lambda: "lacks the tag 'rare'" in caplog.text)
        assert session.failure is None
        cluster.start_worker("--tag", "rare")
        starting.join(WAIT_S)
        assert worker_of(process, cluster) == 1


def test_processes_are_spread_over_the_workers(monkeypatch):
    with cluster_of(monkeypatch, workers=2, slots=2) as cluster:
        processes = [started(tasks.for_ever) for _ in range(4)]
        homes = sorted(worker_of(process, cluster) for process in processes)
        assert homes == [0, 0, 1, 1]


def test_one_more_than_a_workers_limit_is_refused_and_says_so(monkeypatch):
    with cluster_of(monkeypatch, workers=0) as cluster:
        cluster.start_worker("--processes", "2")
        first = [started(tasks.for_ever) for _ in range(2)]
        third = Process(target=tasks.for_ever)
        with pytest.raises(LimitExceeded, match=r"2 processes beside its slots.*--processes"):
            third.start()
        first[0].kill()
        assert ended(first[0]) == -signal.SIGKILL
        assert started(tasks.say, "there is room again").pid


def test_a_worker_that_takes_no_processes_is_left_alone(monkeypatch):
    with cluster_of(monkeypatch, workers=1) as cluster:
        cluster.start_worker("--processes", "0", slots=8)
        cluster.wait_for_workers(2)
        assert worker_of(started(tasks.for_ever), cluster) == 0


def test_a_process_whose_worker_is_killed_was_killed_and_is_not_started_again(
    monkeypatch, tmp_path
):
    with cluster_of(monkeypatch, workers=2) as cluster:
        process = started(tasks.note, tmp_path / "starts")
        wait_until((tmp_path / "starts.begun").exists)
        sentinel = process.sentinel
        cluster.kill_worker(worker_of(process, cluster))
        assert connection.wait([sentinel], WAIT_S) == [sentinel]
        assert ended(process) == -signal.SIGKILL
        wait_until(lambda: is_gone(process.pid))
        # What is queued after it and runs: nothing of it waits anywhere.
        assert ended(started(tasks.say, "after it")) == 0
        assert len((tmp_path / "starts").read_text().split()) == 1


def test_a_process_of_a_worker_that_leaves_ends_and_is_not_started_again(monkeypatch, tmp_path):
    with cluster_of(monkeypatch, workers=2) as cluster:
        process = started(tasks.note, tmp_path / "starts")
        wait_until((tmp_path / "starts.begun").exists)
        worker = cluster.workers[worker_of(process, cluster)]
        worker.terminate()
        wait_until(lambda: "is draining" in cluster.log)
        assert process.is_alive()
        worker.terminate()
        assert ended(process) == -signal.SIGKILL
        assert ended(started(tasks.say, "after it")) == 0
        assert len((tmp_path / "starts").read_text().split()) == 1


def test_a_restart_of_the_server_ends_no_process(cluster, tmp_path):
    process = started(tasks.until_there, tmp_path / "begun", tmp_path / "go-on", 3)
    wait_until((tmp_path / "begun").exists)
    cluster.kill_server()
    (tmp_path / "go-on").touch()
    wait_until(lambda: is_gone(process.pid))
    assert process.is_alive()
    cluster.start_server()
    assert ended(process) == 3


def test_a_signal_sent_while_the_server_is_away_arrives(cluster, tmp_path):
    process = started(tasks.for_ever, tmp_path / "begun")
    wait_until((tmp_path / "begun").exists)
    cluster.kill_server()
    process.terminate()
    cluster.start_server()
    assert ended(process) == -signal.SIGTERM


def test_what_is_printed_while_the_server_is_away_appears_afterwards(cluster, tmp_path, capsys):
    process = started(tasks.until_there, tmp_path / "begun", tmp_path / "go-on")
    talker = started(tasks.say_when, tmp_path / "ready", tmp_path / "say", "said alone")
    wait_until((tmp_path / "ready").exists)
    cluster.kill_server()
    (tmp_path / "say").touch()
    wait_until(lambda: is_gone(talker.pid))
    cluster.start_server()
    assert ended(talker) == 0
    assert capsys.readouterr().out == "said alone\n"
    assert process.is_alive()


def test_a_killed_process_takes_along_what_it_started(cluster, tmp_path):
    process = started(tasks.with_a_program, tmp_path / "program")
    pid = int(
        wait_until(lambda: (tmp_path / "program").exists() and "x")
        and (tmp_path / "program").read_text()
    )
    process.kill()
    assert ended(process) == -signal.SIGKILL
    wait_until(lambda: is_gone(pid))


def test_a_process_that_failed_can_be_looked_at(cluster):
    process = started(os._exit, 4, name="the failing one")
    assert ended(process) == 4
    session = shared_client()
    job = next(row for row in session.jobs() if row["label"] == "the failing one")
    assert job["state"] == "failed"


def test_a_child_notices_that_its_parent_was_killed(cluster, tmp_path):
    parent = started(tasks.with_an_orphan, tmp_path / "begun", tmp_path / "noticed")
    wait_until((tmp_path / "begun").exists)
    assert not (tmp_path / "noticed").exists()
    parent.kill()
    assert ended(parent) == -signal.SIGKILL
    wait_until((tmp_path / "noticed").exists)


def test_a_thread_that_outlives_run_may_be_the_first_to_use_the_server(cluster, tmp_path):
    event = Event()
    process = started(tasks.set_by_a_thread, event, tmp_path / "go-on")
    (tmp_path / "go-on").touch()
    assert ended(process) == 0
    assert event.is_set()


def test_a_program_on_the_workers_machine_has_its_modules_and_its_directory(cluster, tmp_path):
    (tmp_path / "beside.py").write_text(
        "import os, sys\ndef tell(word):\n    print(word, os.path.basename(os.getcwd()))\n"
    )
    out, err = run(
        tmp_path,
        """
        import beside
        from multihost import Process
        process = Process(target=beside.tell, args=("hello",))
        process.start()
        process.join()
        print(process.exitcode)
        """,
        environment=cluster.environment,
    )
    assert err == ""
    assert out == f"hello {tmp_path.name}\n0\n"


def test_output_of_processes_elsewhere_can_be_attributed(cluster, tmp_path):
    out, _ = run(
        tmp_path,
        """
        from multihost import Process
        for name in ("ann", "bob"):
            process = Process(target=print, args=("hello",), name=name)
            process.start()
            process.join()
        """,
        environment={**cluster.environment, "MULTIHOST_OUTPUT": "named"},
    )
    host = socket.gethostname()
    assert out == f"[ann@{host}] hello\n[bob@{host}] hello\n"
