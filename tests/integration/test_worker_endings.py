"""Tasks that run too long or are not wanted any more: they end, and nothing else does."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
import worker_tasks as tasks
from worker_probe import faults_of, newest_job, task_of

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
def _both_slots_are_usable_afterwards(cluster, client, tmp_path):
    yield
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    # Each waits for what the other does, so both have to run at once.
    futures = [client.submit(tasks.until_there, f"{one}.begun")]
    futures.append(client.submit(tasks.until_there, f"{two}.begun"))
    wait_until(lambda: Path(f"{one}.begun.begun").exists() and Path(f"{two}.begun.begun").exists())
    Path(f"{one}.begun").touch()
    Path(f"{two}.begun").touch()
    assert all(future.result(20) for future in futures)
    wait_until(lambda: len(cluster.children()) == 2, "those that were killed are gone")
    assert "Traceback" not in cluster.log


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (tasks.sleep_long, ()),
        (tasks.hold_the_gil, ()),
        (tasks.block_all_signals, ()),
    ],
)
def test_a_task_that_runs_too_long_is_ended_whatever_it_does(client, function, arguments):
    future = client.options(timeout_s=0.3).submit(function, *arguments)
    with pytest.raises(errors.TaskTimeout, match=r"timeout of 0\.3 s"):
        future.result(20)


def test_a_task_that_catches_the_interrupt_is_ended_too(client, tmp_path):
    log = tmp_path / "log"
    future = client.options(timeout_s=0.5).submit(tasks.ignore_the_interrupt, str(log))
    with pytest.raises(errors.TaskTimeout):
        future.result(20)
    assert tasks.lines(log) == ["TaskInterrupted"]


def test_a_timeout_is_an_error_and_no_crash_and_is_tried_as_often_as_asked(cluster, client):
    future = client.options(timeout_s=0.3, max_attempts=2).submit(tasks.sleep_long)
    with pytest.raises(errors.TaskTimeout):
        future.result(20)
    task = task_of(cluster, tasks.sleep_long)
    assert (task["state"], faults_of(task)) == ("failed", (2, 0, 0))
    assert [attempt["ending"] for attempt in task["attempts"]] == ["timed_out"] * 2


def test_a_task_ended_by_interrupt_leaves_its_process_for_the_next(cluster, client):
    assert client.submit(tasks.triple, 1).result(20) == 3
    before = set(cluster.children())
    with pytest.raises(errors.TaskTimeout):
        client.options(timeout_s=0.3).submit(tasks.sleep_long).result(20)
    assert set(cluster.children()) == before


def test_tasks_that_wait_behind_one_that_runs_too_long_are_unharmed(cluster, client, tmp_path):
    log = str(tmp_path / "log")
    hurry = client.options(timeout_s=0.3, priority=5)
    stuck = [hurry.submit(tasks.sleep_long, n) for n in range(4)]
    behind = [client.submit(tasks.note_and_make, log, n) for n in range(100)]
    assert [future.result(30) for future in behind] == list(range(100))
    for future in stuck:
        with pytest.raises(errors.TaskTimeout):
            future.result(20)
    assert sorted(map(int, tasks.lines(log))) == list(range(100))
    assert faults_of(task_of(cluster, tasks.note_and_make)) == (0, 0, 0)


def test_a_short_task_with_a_timeout_is_not_ended_by_it(client):
    hurry = client.options(timeout_s=5)
    assert list(hurry.map(tasks.triple, range(300))) == [3 * n for n in range(300)]


def test_a_running_task_that_is_cancelled_ends_and_frees_its_slot(cluster, client, tmp_path):
    path = str(tmp_path / "never")
    futures = [client.submit(tasks.until_there, f"{path}{n}") for n in range(2)]
    wait_until(lambda: all(Path(f"{path}{n}.begun").exists() for n in range(2)))
    before = set(cluster.children())
    assert all(future.cancel() for future in futures)
    assert client.submit(tasks.triple, 5).result(20) == 15
    assert set(cluster.children()) == before
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)


def test_a_cancelled_task_that_ignores_it_is_killed(cluster, client, tmp_path):
    logs = [tmp_path / f"log{n}" for n in range(2)]
    futures = [client.submit(tasks.ignore_the_interrupt, str(log)) for log in logs]
    assert all(future.wait_stored(20) for future in futures)
    job = newest_job(cluster, tasks.ignore_the_interrupt)["job"]
    wait_until(lambda: cluster.get(f"/api/jobs/{job}")["running"] == 2)
    assert all(future.cancel() for future in futures)
    assert client.submit(tasks.triple, 5).result(20) == 15
    wait_until(lambda: cluster.get(f"/api/jobs/{job}")["cancelled"] == 2)


def test_cancelled_tasks_that_wait_are_never_begun(cluster, client, tmp_path):
    log, gos = str(tmp_path / "log"), [tmp_path / f"go{n}" for n in range(2)]
    running = [client.submit(tasks.until_there, str(go)) for go in gos]
    wait_until(lambda: all(Path(f"{go}.begun").exists() for go in gos))
    waiting = [client.submit(tasks.note_and_make, log, n) for n in range(20)]
    assert all(future.wait_stored(20) for future in waiting)
    assert all(future.cancel() for future in waiting[::2])
    job = newest_job(cluster, tasks.note_and_make)["job"]

    def are_cancelled():
        row = cluster.get(f"/api/jobs/{job}")
        return (row["cancelled"], row["running"]) == (10, 0)

    wait_until(are_cancelled, "the server has heard it, and the worker has none of them in hand")
    for go in gos:
        go.touch()
    assert [future.result(20) for future in waiting[1::2]] == list(range(1, 20, 2))
    assert all(future.result(20) for future in running)
    assert sorted(map(int, tasks.lines(log))) == list(range(1, 20, 2))


def test_a_task_that_signals_itself_as_the_agent_would_is_not_begun_again_and_again(
    client, tmp_path
):
    log = tmp_path / "log"
    assert client.submit(tasks.interrupt_myself, str(log)).result(20) == "done"
    assert tasks.lines(log) == ["started"]
