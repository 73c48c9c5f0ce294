"""Executor's own behaviour; CPython's tests judge the rest on a real cluster."""

import concurrent.futures
import os
import pickle
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest
from fake_server import KEY

from multihost import Executor, Pool
from multihost.core.outcome import Certificate, Ending, Failure, encode_failure
from multihost.executor import _finish_all
from multihost.testing import wait_until
from multihost.wire import message as m


def triple(x):
    return 3 * x


@pytest.fixture
def executor(server):
    with Executor(2, url=server.url, authkey=KEY) as executor:
        yield executor
        server.gate.set()


def first_job(server):
    return wait_until(lambda: next(iter(server.jobs.values()), None))


def test_a_forked_child_ends_in_peace_whatever_its_parent_has_open(executor, client):
    pool = Pool(2, url=client.url, authkey=KEY)
    results = client.map(triple, range(3))
    assert executor.submit(triple, 1).result(20) == pool.apply(triple, (1,)) == 3
    assert next(results) == 0
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for end in (pool.terminate, pool._crew.abandon, results.close, _finish_all):
                end()
            os.write(write, b"peace")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"peace"
    os.waitpid(pid, 0)
    assert list(results) == [3, 6]
    pool.terminate()


def test_submit_gives_a_real_future(executor):
    future = executor.submit(triple, 14)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(20) == 42
    assert future.done()
    with pytest.raises(TypeError):
        executor.submit(fn=triple, x=1)


def test_map_gives_results_in_order_and_checks_its_chunksize(executor):
    assert list(executor.map(pow, [2, 3, 4], [5, 6, 7])) == [32, 729, 16384]
    assert list(executor.map(pow, range(40), range(40), chunksize=6)) == [i**i for i in range(40)]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(pow, [1], [1], chunksize=-1)


def test_maps_timeout_is_for_all_of_it_and_cancels_the_rest(executor, server):
    server.gate.clear()
    results = executor.map(triple, range(5), timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    wait_until(lambda: server.of_kind(m.Cancel))


def test_a_future_runs_once_a_worker_has_it_and_can_no_longer_be_cancelled(executor, server):
    server.gate.clear()
    pending = executor.submit(triple, 1)
    assert not pending.running()
    job = first_job(server)
    wait_until(lambda: job.payloads)
    server.on_loop(lambda: server._started(job, 0))
    wait_until(pending.running)
    assert not pending.cancel()
    server.gate.set()
    assert pending.result(20) == 3


def test_a_pending_future_can_be_cancelled(executor, server):
    server.gate.clear()
    future = executor.submit(triple, 1)
    assert future.cancel()
    done, _ = concurrent.futures.wait([future], timeout=20)
    assert done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


def test_shutdown_with_cancel_futures_leaves_as_many_as_may_run(server):
    server.gate.clear()
    executor = Executor(2, url=server.url, authkey=KEY)
    futures = [executor.submit(triple, i) for i in range(10)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 8
    server.gate.set()
    executor.shutdown()
    assert [future.result() for future in futures[:2]] == [0, 3]


def test_after_shutdown_nothing_is_taken(server):
    executor = Executor(url=server.url, authkey=KEY)
    future = executor.submit(triple, 1)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(triple, 1)
    executor.shutdown()


def test_wrong_arguments_are_refused(server):
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            Executor(wrong, url=server.url, authkey=KEY)
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        Executor(1, max_tasks_per_child=0, url=server.url, authkey=KEY)
    with pytest.raises(TypeError):
        Executor(1, max_tasks_per_child="1", url=server.url, authkey=KEY)


def test_what_cannot_be_pickled_fails_the_future(executor):
    future = executor.submit(bool, threading.Lock())
    with pytest.raises((pickle.PicklingError, TypeError), match="argument 0"):
        future.result(20)
    assert executor.submit(triple, 1).result(20) == 3


def test_the_cause_of_an_error_is_that_of_concurrent_futures(executor):
    future = executor.submit(divmod, 1, 0)
    assert isinstance(future.exception(20), ZeroDivisionError)
    assert type(future.exception().__cause__) is concurrent.futures.process._RemoteTraceback


def test_a_task_that_keeps_killing_its_processes_breaks_only_itself(executor, server):
    server.gate.clear()
    doomed = executor.submit(triple, 1)
    job = first_job(server)
    wait_until(lambda: job.payloads)
    failure = Failure(Ending.CRASHED, message="died", certificates=(Certificate(exit_code=-11),))
    server.on_loop(lambda: server.finish(job, 0, Ending.CRASHED, encode_failure(failure)))
    with pytest.raises(BrokenProcessPool, match="signal 11"):
        doomed.result(20)
    server.gate.set()
    assert executor.submit(triple, 2).result(20) == 6


def test_an_initializer_that_fails_breaks_the_executor(server):
    server.gate.clear()
    executor = Executor(1, initializer=triple, initargs=(1,), url=server.url, authkey=KEY)
    futures = [executor.submit(triple, i) for i in range(3)]
    job = first_job(server)
    wait_until(lambda: len(job.payloads) == 3)
    failure = Failure(Ending.UNRUNNABLE, "ValueError", "the initializer raised ValueError: no")
    server.on_loop(lambda: server.finish(job, 0, Ending.UNRUNNABLE, encode_failure(failure)))
    for future in futures:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="initializer"):
            future.result(20)
    with pytest.raises(BrokenProcessPool, match="initializer raised ValueError"):
        executor.submit(triple, 1)
    executor.shutdown()


def test_a_dropped_executor_lets_go(server):
    executor = Executor(1, url=server.url, authkey=KEY)
    assert executor.submit(triple, 1).result(20) == 3
    del executor
    wait_until(lambda: server.of_kind(m.Close))
