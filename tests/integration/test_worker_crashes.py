"""Tasks whose process dies: what is told of it, what runs again, what goes on."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_tasks as tasks
from worker_probe import faults_of, is_gone, task_of

import multihost
from multihost import Client, errors
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=1, slots=2, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster) -> Iterator[Client]:
    with multihost.connect(cluster.url, cluster.key) as client:
        yield client


@pytest.fixture(autouse=True)
def _the_worker_is_the_same_and_runs_on(cluster, client):
    (agent,) = cluster.workers
    yield
    assert agent.poll() is None, cluster.log
    assert list(client.map(tasks.triple, range(10))) == [3 * n for n in range(10)]
    assert "Traceback" not in cluster.log


def certificates_of(future):
    with pytest.raises(errors.TaskCrashed) as caught:
        future.result(30)
    return caught.value.certificates


def test_a_task_that_kills_its_process_every_time_fails_with_three_certificates(cluster, client):
    certificates = certificates_of(client.submit(tasks.print_and_die, "my last words"))
    assert [certificate.exit_code for certificate in certificates] == [-signal.SIGKILL] * 3
    assert len({certificate.pid for certificate in certificates}) == 3
    for certificate in certificates:
        assert certificate.worker == cluster.get("/api/workers")[0]["worker"]
        assert certificate.host
        assert certificate.pid > 0
        assert not certificate.is_out_of_memory
        # A Python takes some megabytes, and was not as large as the machine.
        assert 1 << 20 < certificate.peak_memory_bytes < 1 << 32
        assert certificate.output_tail == "my last words"


def test_a_process_that_ends_by_itself_is_told_by_its_exit_code(client):
    future = client.submit(tasks.exit_at_once, 3)
    assert [certificate.exit_code for certificate in certificates_of(future)] == [3, 3, 3]
    with pytest.raises(errors.TaskCrashed, match="ended by itself with exit code 3"):
        future.result()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGRTMIN + 3])
def test_a_process_that_a_signal_ends_is_told_by_the_signal(client, number):
    future = client.submit(tasks.die_of, int(number))
    assert [certificate.exit_code for certificate in certificates_of(future)] == [-number] * 3


def test_a_task_that_dies_once_and_then_succeeds_has_succeeded(cluster, client, tmp_path):
    view = client.options(priority=1)  # a job of its own
    assert view.submit(tasks.die_first, str(tmp_path / "died")).result(30) == "alive"
    task = task_of(cluster, tasks.die_first)
    assert (task["state"], faults_of(task)) == ("succeeded", (0, 1, 0))


def test_the_last_words_are_the_task_s_own_and_not_those_of_one_before(client):
    list(client.map(print, [f"words of another, {n}" for n in range(40)]))
    for certificate in certificates_of(client.submit(tasks.print_and_die, "mine")):
        assert certificate.output_tail == "mine"


def test_a_death_is_noticed_though_a_forked_process_has_the_same_pipes(client, tmp_path):
    forked = tmp_path / "forked"
    certificates = certificates_of(client.submit(tasks.fork_and_die, str(forked)))
    assert [certificate.exit_code for certificate in certificates] == [-9] * 3
    pids = [int(line) for line in tasks.lines(forked)]
    assert len(pids) == 3
    wait_until(lambda: all(map(is_gone, pids)))


def test_a_forked_process_that_was_not_ended_takes_no_tasks_and_answers_for_none(client):
    assert client.submit(tasks.fork_and_return, None).result(30) > 0
    with_forks = client.map(tasks.fork_and_return, range(10))
    assert all(pid > 0 for pid in with_forks)


def test_a_task_that_shuts_the_pipes_is_a_crash_and_hangs_nothing(client):
    assert len(certificates_of(client.submit(tasks.shut_all_descriptors))) == 3
