"""What goes into tasks and comes out of them: too large, not to be pickled, badly behaved."""

import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing.pool import MaybeEncodingError
from pathlib import Path

import pytest
import worker_tasks as tasks

import multihost
from multihost import Client, Pool, errors
from multihost.testing import Cluster

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there
SIZE = 5 << 20

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=1, slots=1, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster) -> Iterator[Client]:
    with multihost.connect(cluster.url, cluster.key) as client:
        yield client


@pytest.fixture
def pool(cluster):
    with Pool(1, url=cluster.url, authkey=cluster.key) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _nothing_harms_the_process_of_the_slot(cluster, client):
    before = client.submit(tasks.where).result(30)
    yield
    assert client.submit(tasks.where).result(30) == before
    assert "Traceback" not in cluster.log


# large ----------------------------------------------------------------------------------


def test_arguments_and_results_of_megabytes_come_through_unchanged(client):
    data = os.urandom(SIZE)
    assert client.submit(bytes.__add__, data, b"!").result(30) == data + b"!"
    assert client.submit(len, data).result(30) == SIZE
    assert client.submit(tasks.give_bytes, SIZE).result(30) == tasks.give_bytes(SIZE)


def test_a_function_with_megabytes_in_its_closure_runs(client):
    data = os.urandom(SIZE)
    assert client.submit(lambda n: data[n], 7).result(30) == data[7]
    assert list(client.map(lambda n: data[-n], range(1, 20))) == [data[-n] for n in range(1, 20)]


def test_payloads_around_the_limit_for_inline_ones_come_through(client):
    from multihost.wire.message import INLINE_BYTES

    sizes = [0, 1, *range(INLINE_BYTES - 100, INLINE_BYTES + 100, 7)]
    assert list(client.map(bytes, sizes)) == [bytes(size) for size in sizes]
    assert list(client.map(len, map(bytes, sizes))) == sizes


def test_large_and_small_payloads_in_turn_keep_their_places(client):
    sizes = [1, 300_000, 2, 70_000, 3, 2 << 20, 4] * 3
    assert list(client.map(bytes, sizes)) == [bytes(size) for size in sizes]


# not to be pickled ------------------------------------------------------------------------


def test_a_result_that_cannot_be_pickled_is_the_pool_s_own_error(pool):
    with pytest.raises(MaybeEncodingError, match="lock"):
        pool.apply(tasks.give_lock)


def test_a_result_that_can_neither_be_pickled_nor_shown_is_that_error_too(pool):
    with pytest.raises(MaybeEncodingError, match="not for sending"):
        pool.apply(tasks.give_what_cannot_be_shown)


def test_an_argument_that_cannot_be_pickled_is_named_and_nothing_is_sent(client, pool):
    lock = threading.Lock()
    with pytest.raises(errors.PayloadError, match=r"argument 1 of .*append.* \(_thread\.lock\)"):
        client.submit(tasks.append, "path", lock)
    with pytest.raises(errors.PayloadError, match="argument 'line'"):
        client.submit(tasks.append, "path", line=lock)
    with pytest.raises(errors.PayloadError, match="item 2 for"):
        pool.map(tasks.triple, [0, 1, lock])


@pytest.mark.parametrize("misbehaving", [tasks.LeavesOnArrival(), tasks.Leaving("gone")])
def test_an_argument_whose_arrival_ends_the_interpreter_is_an_error_of_its_task(
    client, misbehaving
):
    with pytest.raises((SystemExit, errors.TaskError)) as caught:
        client.submit(tasks.where, misbehaving).result(30)
    assert not isinstance(caught.value, errors.TaskCrashed)


def test_a_result_whose_arrival_ends_the_interpreter_is_an_error_here(client):
    with pytest.raises(errors.UnreadableResult):
        client.submit(tasks.LeavesOnArrival).result(30)


# exceptions ---------------------------------------------------------------------------------


def test_an_exception_that_cannot_be_unpickled_is_told_by_name_words_and_traceback(client):
    with pytest.raises(errors.TaskFailed, match=r"worker_tasks\.OnlyHere: this and that") as caught:
        client.submit(tasks.raise_only_here).result(30)
    assert caught.value.type_name == "worker_tasks.OnlyHere"
    assert "in raise_only_here" in caught.value.traceback
    # Of the frames only the user's own.
    assert "multihost" not in caught.value.traceback


def test_an_exception_that_cannot_be_put_in_words_comes_as_it_is(client):
    with pytest.raises(tasks.Unspeakable):
        client.submit(tasks.raise_unspeakable).result(30)


def test_an_exception_whose_arrival_ends_the_interpreter_is_told_in_words(client):
    with pytest.raises(errors.TaskFailed, match=r"worker_tasks\.Leaving: gone"):
        client.submit(tasks.raise_leaving).result(30)


def test_what_would_end_a_program_ends_only_the_task(client):
    with pytest.raises(SystemExit) as caught:
        client.submit(tasks.leave, 3).result(30)
    assert caught.value.code == 3
    with pytest.raises(KeyboardInterrupt):
        client.submit(tasks.raise_keyboard_interrupt).result(30)


def test_an_exception_carries_the_traceback_of_the_worker(client):
    with pytest.raises(ZeroDivisionError) as caught:
        client.submit(divmod, 1, 0).result(30)
    assert "ZeroDivisionError" in str(caught.value.__cause__)


# modules ---------------------------------------------------------------------------------------


def test_a_module_that_only_the_client_has_is_named_with_worker_and_remedy(
    cluster, client, tmp_path, monkeypatch
):
    (tmp_path / "not_on_the_worker.py").write_text("def work(n):\n    return n\n")
    monkeypatch.syspath_prepend(tmp_path)
    import not_on_the_worker

    worker = cluster.get("/api/workers")[0]["worker"]
    with pytest.raises(errors.MissingModule) as caught:
        client.submit(not_on_the_worker.work, 1).result(30)
    sys.modules.pop("not_on_the_worker")
    assert (caught.value.module, caught.value.worker) == ("not_on_the_worker", worker)
    for word in (worker, "not_on_the_worker", "ship=", "pip install", "--path"):
        assert word in str(caught.value)
