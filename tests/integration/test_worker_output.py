"""What tasks print: kept, in order, with the task that printed it, and not without bound."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_tasks as tasks
from worker_probe import newest_job, task_of

import multihost
from multihost import Client
from multihost.server.workers import OUTPUT_BYTES
from multihost.testing import Cluster, wait_until
from multihost.worker.options import TASK_OUTPUT_BYTES

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


def test_whatever_way_a_task_prints_it_is_there_as_soon_as_the_outcome(cluster, client):
    client.submit(tasks.print_in_every_way, "words").result(30)
    kept = task_of(cluster, tasks.print_in_every_way)["output"].splitlines()
    assert sorted(kept) == [
        "words of Python",
        "words of Python's stderr",
        "words of a descriptor",
        "words of a program",
    ]
    # Each way by itself is in order.
    assert kept.index("words of Python") < kept.index("words of Python's stderr")
    assert kept.index("words of a program") < kept.index("words of a descriptor")


def test_every_task_has_its_own_prints_however_many_run(cluster, client):
    words = [f"words {n}" for n in range(40)]
    view = client.options(priority=1)  # a job of its own
    futures = [view.submit(tasks.print_in_every_way, word) for word in words]
    assert [future.result(30) for future in futures] == words
    job = newest_job(cluster, tasks.print_in_every_way)["job"]
    for index, expected in enumerate(words):
        kept = cluster.get(f"/api/tasks/{job}/{index}")["output"].splitlines()
        assert len(kept) == 4
        assert all(line.startswith(f"{expected} of ") for line in kept), kept


def test_prints_of_tiny_tasks_that_are_fed_ahead_stay_apart(cluster, client):
    futures = [client.submit(print, f"number {n}") for n in range(300)]
    assert all(future.result(30) is None for future in futures)
    job = next(job for job in cluster.get("/api/jobs") if job["label"] == "print")["job"]
    for index in range(0, 300, 13):
        kept = cluster.get(f"/api/tasks/{job}/{index}")["output"]
        assert kept == f"number {index}\n"


def test_what_a_stopped_agent_could_not_read_is_still_the_task_s_that_printed_it(tmp_path):
    begun = tmp_path / "begun"
    with (
        Cluster(workers=1, slots=1, python_path=HERE) as cluster,
        multihost.connect(cluster.url, cluster.key) as client,
    ):
        # Of tasks so tiny several are fed to a child ahead.
        assert [*client.map(abs, range(300))] == [*range(300)]
        view = client.options(priority=1)  # a job of its own
        function = tasks.print_while_the_agent_stands_still
        futures = [view.submit(function, number, str(begun)) for number in range(5)]
        wait_until(begun.exists)
        # However long that lasts, nothing else begins before the agent has read the first's.
        with pytest.raises(AssertionError):
            wait_until(lambda: len(begun.read_text().split()) > 1, timeout_s=0.5)
        cluster.workers[0].send_signal(signal.SIGCONT)
        assert [future.result(30) for future in futures] == [None] * 5
        for number in range(5):
            kept = sorted(task_of(cluster, function, number)["output"].splitlines())
            assert kept == [f"number {number} ", f"number {number}, aside"]


def test_what_a_failing_task_printed_is_kept(cluster, client):
    future = client.submit(tasks.print_and_die, "before the end")
    assert future.exception(30) is not None
    assert "before the end" in task_of(cluster, tasks.print_and_die)["output"]


def test_of_too_much_the_rest_is_not_kept_and_that_is_said(cluster, client):
    client.submit(tasks.print_much, 3).result(30)
    kept = task_of(cluster, tasks.print_much)["output"]
    assert "output beyond 1 MiB is not kept" in kept.splitlines()[-1]
    assert len(kept) <= OUTPUT_BYTES
    numbers = [int(line[:6]) for line in kept.splitlines()[1:-2]]
    # The last that is kept is the last before the limit.
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert abs(numbers[-1] - TASK_OUTPUT_BYTES // 1024) <= 1
    assert client.submit(tasks.triple, 2).result(30) == 6


def test_a_task_that_prints_nothing_has_no_output(cluster, client):
    client.submit(tasks.triple, 1).result(30)
    assert task_of(cluster, tasks.triple)["output"] == ""


def test_processes_that_a_task_forked_print_for_it_and_tear_nothing(cluster, client):
    assert client.submit(tasks.print_from_forks, 3).result(30) == 3
    kept = task_of(cluster, tasks.print_from_forks)["output"]
    lines = [f"fork {fork} line {n} ".ljust(2999, ".") for fork in range(3) for n in range(10)]
    lines += [f"parent line {n} ".ljust(9999, ".") for n in range(10)]
    # They come on two ways, so one may come in the middle of another: but none is lost.
    assert Counter(kept) == Counter("".join(f"{line}\n" for line in lines))
    assert [client.submit(tasks.triple, n).result(30) for n in range(20)] == [
        3 * n for n in range(20)
    ]
    assert "Traceback" not in cluster.log
