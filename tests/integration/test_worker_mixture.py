"""Tasks fed ahead, long ones among tiny ones, and children killed at random among them."""

import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_tasks as tasks

import multihost
from multihost import Client
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there
ROUNDS = 20
TASKS = 150

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
def _the_worker_runs_on_and_says_nothing(cluster, client):
    yield
    assert list(client.map(tasks.triple, range(50))) == [3 * n for n in range(50)]
    wait_until(lambda: len(cluster.children()) == 2)
    assert "Traceback" not in cluster.log


def feed_ahead(client):
    """Tasks so tiny that others are fed ahead of need after them."""
    assert len(list(client.map(tasks.triple, range(1000)))) == 1000


def test_tasks_fed_behind_a_long_one_are_run_by_the_other_slot(client, tmp_path):
    feed_ahead(client)
    log, go = str(tmp_path / "log"), tmp_path / "go"
    # What the long one waits for is made by the last that came behind it.
    futures = [client.submit(tasks.note_and_make, log, n) for n in range(50)]
    long = client.submit(tasks.until_there, str(go))
    futures += [client.submit(tasks.note_and_make, log, n) for n in range(50, 100)]
    futures += [client.submit(tasks.note_and_make, log, 100, str(go))]
    assert long.result(20)
    assert [future.result(20) for future in futures] == list(range(101))
    assert sorted(map(int, tasks.lines(log))) == list(range(101))


def test_two_long_tasks_in_both_slots_are_overtaken_by_another_worker(cluster, client, tmp_path):
    feed_ahead(client)
    log, go = str(tmp_path / "log"), tmp_path / "go"
    long = [client.submit(tasks.until_there, str(go)) for _ in range(2)]
    futures = [client.submit(tasks.note_and_make, log, n) for n in range(100)]
    futures += [client.submit(tasks.note_and_make, log, 100, str(go))]
    helper = cluster.start_worker(slots=1)
    cluster.wait_for_workers(2)  # else it may be told to go before it listens
    assert [future.result(20) for future in futures] == list(range(101))
    assert all(future.result(20) for future in long)
    assert sorted(map(int, tasks.lines(log))) == list(range(101))
    cluster.workers.remove(helper)
    helper.terminate()
    assert helper.wait(20) == 0


def test_long_tasks_among_tiny_ones_are_started_once_each(client, tmp_path):
    feed_ahead(client)
    log = str(tmp_path / "log")
    chance = random.Random("durations")
    seconds = [chance.choice([0, 0, 0, 0, 0.001, 0.03]) for _ in range(300)]
    futures = [client.submit(tasks.note_and_sleep, log, n, s) for n, s in enumerate(seconds)]
    assert [future.result(30) for future in futures] == list(range(300))
    assert Counter(map(int, tasks.lines(log))) == Counter(range(300))


def kill_a_child(cluster, chance):
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(chance.choice(cluster.children()), signal.SIGKILL)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_whatever_is_killed_and_cancelled_every_task_ends_once(cluster, client, tmp_path, seed):
    chance = random.Random(seed)
    log = str(tmp_path / "log")
    if chance.random() < 0.5:
        feed_ahead(client)
    kill_at = set(chance.sample(range(TASKS), 2))
    cancel = set(chance.sample(range(TASKS), 10))
    tiny_s, long_s = chance.choice([(0, 0.03), (0, 0.001), (0.001, 0.01)])
    seconds = [long_s if chance.random() < 0.1 else tiny_s for _ in range(TASKS)]
    futures = [client.submit(tasks.note_and_sleep, log, n, s) for n, s in enumerate(seconds)]
    for n, future in enumerate(futures):
        if n in cancel:
            future.cancel()
        if n in kill_at:
            kill_a_child(cluster, chance)
        if n not in cancel:
            assert future.result(30) == n
    starts = Counter(map(int, tasks.lines(log)))
    # Only what was running when its process was killed may have begun again.
    assert sum(starts[n] > 1 for n in range(TASKS)) <= len(kill_at)
    assert max(starts.values()) <= 1 + len(kill_at)
    assert all(starts[n] for n in range(TASKS) if n not in cancel)
