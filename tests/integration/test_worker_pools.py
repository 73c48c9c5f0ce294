"""Children of pools: what they share, what they don't, when they are replaced."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker_tasks as tasks

import multihost
from multihost import Client, Pool
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


@pytest.fixture
def new_pool(cluster):
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            Pool(*args, **kwargs, url=cluster.url, authkey=cluster.key)
        )


@pytest.fixture(autouse=True)
def _the_worker_is_usable_afterwards(cluster, client):
    yield
    assert list(client.map(tasks.triple, range(10))) == [3 * n for n in range(10)]
    assert "Traceback" not in cluster.log


def test_what_an_initializer_sets_is_seen_in_its_pool_alone(client, new_pool):
    one = new_pool(1, tasks.set_setting, ("one",))
    two = new_pool(1, tasks.set_setting, ("two",))
    seen = {"one": [], "two": [], "plain": []}
    for _ in range(5):
        seen["one"] += [one.apply_async(tasks.setting)]
        seen["two"] += [two.apply_async(tasks.setting)]
        seen["plain"] += [client.submit(tasks.setting)]
    assert {result.get(30) for result in seen["one"]} == {"one"}
    assert {result.get(30) for result in seen["two"]} == {"two"}
    assert {future.result(30) for future in seen["plain"]} == {"unset"}


def test_more_pools_than_slots_take_turns(new_pool):
    pools = [new_pool(2, tasks.set_setting, (n,)) for n in range(5)]
    results = [pool.map_async(tasks.setting, range(6), 1) for pool in pools]
    assert [set(result.get(40)) for result in results] == [{n} for n in range(5)]


def test_an_initializer_that_raises_hangs_nothing_and_harms_no_other_pool(client, new_pool):
    broken, sound = new_pool(2, tasks.fail_to_start), new_pool(1, tasks.set_setting, ("sound",))
    failing = [broken.apply_async(tasks.triple, (n,)) for n in range(10)]
    working = [sound.apply_async(tasks.setting) for _ in range(10)]
    plain = [client.submit(tasks.setting) for _ in range(10)]
    for result in failing:
        with pytest.raises(LookupError, match="no such licence"):
            result.get(30)
    assert {result.get(30) for result in working} == {"sound"}
    assert {future.result(30) for future in plain} == {"unset"}


def test_an_initializer_that_kills_its_process_hangs_nothing(new_pool):
    from multihost import errors

    pool = new_pool(1, tasks.exit_at_once, (4,))
    with pytest.raises(errors.TaskCrashed) as caught:
        pool.apply_async(tasks.triple, (1,)).get(30)
    assert [certificate.exit_code for certificate in caught.value.certificates] == [4, 4, 4]


@pytest.mark.parametrize("limit", [1, 3])
def test_children_are_replaced_after_so_many_tasks(new_pool, limit):
    pids = Counter(new_pool(2, maxtasksperchild=limit).map(tasks.where, range(12), 1))
    assert max(pids.values()) <= limit
    assert len(pids) >= 12 // limit


def test_a_pool_of_one_runs_one_at_a_time_though_its_children_are_replaced(new_pool, tmp_path):
    pool = new_pool(1, maxtasksperchild=1)
    assert set(pool.map(tasks.count_overlap, [str(tmp_path)] * 12, 1)) == {1}


def test_what_waits_for_a_pool_of_one_leaves_the_other_slot_to_others(client, new_pool, tmp_path):
    list(client.map(tasks.triple, range(300)))  # so that feeding ahead is on
    pool, paths = new_pool(1), [str(tmp_path / str(n)) for n in range(4)]
    results = [pool.apply_async(tasks.until_there, (path,)) for path in paths]
    wait_until(lambda: any(Path(f"{path}.begun").exists() for path in paths))
    assert client.submit(tasks.triple, 5).result(20) == 15
    for path in paths:
        Path(path).touch()
    assert all(result.get(30) for result in results)


def test_children_that_served_a_pool_are_gone_when_others_were_needed(cluster, client, new_pool):
    for n in range(4):
        with new_pool(2, tasks.set_setting, (n,)) as pool:
            assert set(pool.map(tasks.setting, range(4), 1)) == {n}
    assert client.submit(tasks.setting).result(30) == "unset"
    wait_until(lambda: len(cluster.children()) == 2)


def test_a_task_may_use_a_pool_of_the_same_server(client):
    futures = [client.submit(tasks.nested_map, 5)]
    assert [future.result(40) for future in futures] == [[0, 3, 6, 9, 12]]


def test_a_pool_within_a_pool_s_task_completes(new_pool):
    assert new_pool(1).map(tasks.nested_map, [3, 4], 1) == [[0, 3, 6], [0, 3, 6, 9]]


def test_a_pool_of_one_runs_one_at_a_time_though_its_functions_are_many(client, new_pool, tmp_path):
    assert len(list(client.map(tasks.triple, range(1000)))) == 1000  # feeding ahead is on
    pool, directory = new_pool(1), str(tmp_path)
    results = []
    for _ in range(10):
        results.append(pool.apply_async(tasks.count_overlap, (directory,)))
        results.append(pool.map_async(tasks.count_overlap, [directory], 1))
        results.append(pool.apply_async(lambda path: tasks.count_overlap(f"{path}"), (directory,)))
    assert {str(result.get(30)).strip("[]") for result in results} == {"1"}
