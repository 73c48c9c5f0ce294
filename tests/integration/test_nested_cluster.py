"""Tasks that wait for tasks of their own, where every slot is taken by such."""

from concurrent.futures import as_completed, wait
from pathlib import Path

import pytest
import worker_tasks as tasks

import multihost
from multihost import Executor, Pool
from multihost.testing import Cluster, wait_until
from multihost.worker.options import LENT_PER_SLOT

HERE = [str(Path(__file__).parent)]  # the workers import these modules from there

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, slots=1, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def pool(cluster):
    with Pool(url=cluster.url, authkey=cluster.key) as pool:
        yield pool


def by_pool(count):
    with Pool(2) as pool:
        return sum(pool.map(tasks.triple, range(count), 1))


def by_imap(count):
    with Pool(2) as pool:
        return sum(pool.imap_unordered(tasks.triple, range(count)))


def by_joining(count):
    results = []
    with Pool(2) as pool:
        for n in range(count):
            pool.apply_async(tasks.triple, (n,), callback=results.append)
        pool.close()
        pool.join()
    return sum(results)


def by_client(count):
    with multihost.connect() as client:
        return sum(client.map(tasks.triple, range(count)))


def by_future(count):
    with multihost.connect() as client:
        return sum(future.result() for future in [client.submit(tasks.triple, 1)] * count)


def by_waiting(count):
    with Executor() as executor:
        futures = [executor.submit(tasks.triple, n) for n in range(count)]
        wait(futures)
        return sum(future.result() for future in as_completed(futures))


def tree(depth):
    """Leaves of a tree that is grown by tasks."""
    if not depth:
        return 1
    with Pool() as pool:
        return sum(pool.map(tree, [depth - 1] * 2, 1))


@pytest.mark.parametrize("way", [by_pool, by_imap, by_joining, by_client, by_waiting])
def test_a_task_that_waits_for_its_own_lends_them_its_slot(pool, way):
    assert pool.apply_async(way, (3,)).get(40) == 9


def test_a_future_is_waited_for_like_a_pools_result(pool):
    assert pool.apply_async(by_future, (3,)).get(40) == 9


def test_many_that_wait_end_before_others_of_their_kind_begin(pool):
    """What they wait for goes first: else the others would all begin, and wait, too."""
    assert pool.map_async(by_pool, [3] * 12, 1).get(50) == [9] * 12


def test_tasks_may_wait_for_tasks_that_wait_for_tasks(pool):
    assert pool.apply_async(tree, (3,)).get(50) == 8


def test_when_nobody_waits_the_worker_runs_no_more_children_than_it_has_slots(cluster, pool):
    assert pool.apply_async(by_pool, (3,)).get(40) == 9
    wait_until(lambda: len(cluster.get("/api/workers")[0]["children"]) == 1)


def test_what_is_submitted_with_a_priority_keeps_it(cluster, pool):
    assert pool.apply_async(with_priority, (7,)).get(40) == 3
    assert pool.apply_async(by_pool, (1,)).get(40) == 0
    rows = [row for row in cluster.get("/api/jobs") if row["label"] == "worker_tasks.triple"]
    assert [row["priority"] for row in rows[:2]] == [1, 7]


def with_priority(priority):
    with multihost.connect() as client:
        return client.options(priority=priority).submit(tasks.triple, 1).result()


def behind_its_kind(n):
    with multihost.connect() as client:
        return client.options(priority=-1).submit(tasks.triple, n).result()


@pytest.mark.timeout(150)  # ten children start, one after the other
def test_when_too_many_wait_the_program_is_told(capfd):
    with (
        Cluster(workers=1, slots=1, python_path=HERE) as cluster,
        Pool(url=cluster.url, authkey=cluster.key) as pool,
    ):
        result = pool.map_async(behind_its_kind, range(LENT_PER_SLOT + 1), 1)
        told = []
        wait_until(
            lambda: told.append(capfd.readouterr().err) or "start one" in told[-1], timeout_s=60
        )
        assert f"and so do {LENT_PER_SLOT} tasks more on worker " in "".join(told)
        cluster.start_worker()
        assert result.get(40) == [3 * n for n in range(LENT_PER_SLOT + 1)]


def test_a_worker_may_lend_no_slots():
    """The option is for tasks that keep what only one can have, such as a graphics card."""
    with Cluster(workers=0, slots=1, python_path=HERE) as cluster:
        cluster.start_worker("--no-lend")
        with Pool(url=cluster.url, authkey=cluster.key) as pool:
            result = pool.apply_async(by_pool, (1,))
            wait_until(lambda: [row["queued"] for row in cluster.get("/api/queues")] == [1])
            assert not result.ready()
            cluster.start_worker("--no-lend")
            assert result.get(40) == 0
