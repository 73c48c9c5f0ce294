"""Executor on a real server with real workers; CPython's own tests say the rest."""

import concurrent.futures
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from multihost import Executor
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=1, slots=2, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def new_executor(cluster):
    made = []

    def make(*args, **kwargs):
        made.append(Executor(*args, **kwargs, url=cluster.url, authkey=cluster.key))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(cancel_futures=True)


def triple(x):
    return 3 * x


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)
    return "open"


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def refuse_to_start():
    raise LookupError("no such licence")


def test_futures_start_run_and_end(new_executor, tmp_path):
    executor = new_executor(2)
    future = executor.submit(wait_for, str(tmp_path / "gate"))
    wait_until(future.running)
    assert not future.cancel()
    assert executor.submit(triple, 14).result(30) == 42
    (tmp_path / "gate").touch()
    assert future.result(30) == "open"


def test_a_task_that_kills_its_process_breaks_only_itself(new_executor):
    executor = new_executor(2)
    doomed = executor.submit(die)
    others = [executor.submit(triple, i) for i in range(20)]
    with pytest.raises(BrokenProcessPool, match="signal 9"):
        doomed.result(60)
    assert [future.result(30) for future in others] == [3 * i for i in range(20)]


def test_an_initializer_that_fails_breaks_the_executor(new_executor):
    executor = new_executor(1, initializer=refuse_to_start)
    futures = [executor.submit(triple, i) for i in range(3)]
    for future in futures:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="no such licence"):
            future.result(60)
    with pytest.raises(BrokenProcessPool, match="initializer"):
        executor.submit(triple, 1)


def test_children_are_replaced_after_so_many_tasks(new_executor):
    executor = new_executor(1, max_tasks_per_child=3)
    pids = [executor.submit(os.getpid).result(30) for _ in range(6)]
    assert pids[:3] == [pids[0]] * 3
    assert pids[3:] == [pids[3]] * 3
    assert pids[0] != pids[3]


def test_a_named_executor_run_again_attaches(cluster, tmp_path):
    log = tmp_path / "log"
    for _ in range(2):
        with Executor(2, name="night", url=cluster.url, authkey=cluster.key) as executor:
            assert list(executor.map(note, [str(log)] * 5, range(5))) == list(range(5))
    assert sorted(map(int, log.read_text().split())) == list(range(5))


def note(path, x):
    with Path(path).open("a") as file:
        file.write(f"{x}\n")
    return x
