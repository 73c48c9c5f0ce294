"""Pool's own behaviour; CPython's tests judge the rest on a real cluster."""

import gc
import itertools
import os
import pickle
import threading
import weakref

import pytest
from fake_server import KEY

import multihost
from multihost import Pool, errors
from multihost.client.session import Session
from multihost.core.job import Style
from multihost.testing import wait_until
from multihost.wire import message as m


def triple(x):
    return 3 * x


def add(x, y=0):
    return x + y


def test_every_method_gives_what_the_builtin_would(pool):
    assert pool.apply(add, (1,), {"y": 2}) == 3
    assert pool.apply_async(add, [1, 2]).get(20) == 3
    assert pool.map(triple, range(10)) == [3 * i for i in range(10)]
    assert pool.map(triple, iter(range(10)), 3) == [3 * i for i in range(10)]
    assert pool.map_async(triple, []).get(20) == []
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(add, [(1, 2), (3, 4)], 1).get(20) == [3, 7]
    assert list(pool.imap(triple, range(10))) == [3 * i for i in range(10)]
    assert list(pool.imap(triple, range(10), 4)) == [3 * i for i in range(10)]
    assert sorted(pool.imap_unordered(triple, range(10))) == [3 * i for i in range(10)]
    assert sorted(pool.imap_unordered(triple, range(10), 4)) == [3 * i for i in range(10)]
    assert list(pool.imap(triple, (i for i in range(3000)))) == [3 * i for i in range(3000)]


def test_calls_of_one_function_share_one_job(pool, server):
    for i in range(5):
        pool.apply(triple, (i,))
        pool.map(triple, [i, i])
        pool.starmap(triple, [(i,)])
    styles = sorted(message.spec.style for message in server.of_kind(m.Open))
    assert styles == [Style.CALL, Style.MAP, Style.STARMAP]


def test_the_width_travels_with_the_job_only_when_it_was_given(server):
    with Pool(3, url=server.url, authkey=KEY) as pool:
        pool.apply(triple, (1,))
    with Pool(url=server.url, authkey=KEY) as pool:
        pool.apply(triple, (1,))
    narrow, wide = (message.spec for message in server.of_kind(m.Open))
    assert narrow.width == 3
    assert narrow.requires.context
    assert narrow.context is None
    assert (wide.width, wide.requires.context) == (None, None)


def test_initializer_and_maxtasksperchild_become_the_jobs_context(server):
    with Pool(2, triple, (1,), maxtasksperchild=5, url=server.url, authkey=KEY) as pool:
        pool.apply(triple, (1,))
    spec = server.of_kind(m.Open)[0].spec
    assert spec.context.uid == spec.requires.context
    assert spec.context.max_tasks == 5
    function, args = pickle.loads(server.blobs[spec.context.initializer])
    assert (function(2), args) == (6, (1,))


def test_wrong_arguments_are_refused_as_the_standard_library_does(server):
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            Pool(wrong, url=server.url, authkey=KEY)
    for wrong in (0, -1, 0.5, "12"):
        with pytest.raises(ValueError, match="positive int"):
            Pool(3, maxtasksperchild=wrong, url=server.url, authkey=KEY)
    with pytest.raises(TypeError, match="callable"):
        Pool(3, initializer=7, url=server.url, authkey=KEY)
    with Pool(1, url=server.url, authkey=KEY) as pool:
        with pytest.raises(ValueError, match="Chunksize"):
            pool.imap(triple, [], 0)
        with pytest.raises(NotImplementedError):
            pickle.dumps(pool)


def test_states_of_a_pool(server):
    pool = Pool(1, url=server.url, authkey=KEY)
    assert "state=RUN pool_size=1" in repr(pool)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for method, args in (
        (pool.apply, (triple, (1,))),
        (pool.map, (triple, [])),
        (pool.imap, (triple, [])),
    ):
        with pytest.raises(ValueError, match="not running"):
            method(*args)
    with pytest.raises(ValueError, match="not running"), pool:
        pass
    pool.join()
    pool.terminate()
    pool.join()


def test_results_know_whether_they_are_ready(pool, server):
    server.gate.clear()
    result = pool.apply_async(triple, (1,))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multihost.TimeoutError):
        result.get(0.001)
    result.wait(0.001)
    server.gate.set()
    assert result.get(20) == 3
    assert result.ready()
    assert result.successful()
    failed = pool.apply_async(divmod, (1, 0))
    failed.wait(20)
    assert not failed.successful()


def test_callbacks_have_run_when_the_result_is_ready(pool):
    seen = []
    pool.apply_async(triple, (1,), callback=seen.append).wait(20)
    pool.apply_async(
        divmod, (1, 0), callback=seen.append, error_callback=lambda e: seen.append(type(e))
    ).wait(20)
    pool.map_async(triple, [1, 2], callback=seen.append).wait(20)
    pool.map_async(int, ["x"], error_callback=lambda e: seen.append(type(e))).wait(20)
    assert seen == [3, ZeroDivisionError, [3, 6], ValueError]


def test_a_raising_callback_is_reported_and_hangs_nothing(pool, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    result = pool.apply_async(triple, (1,), callback=lambda _: 1 / 0)
    assert result.get(20) == 3
    assert pool.apply_async(triple, (2,), callback=lambda _: None).get(20) == 6
    assert [report.exc_type for report in reported] == [ZeroDivisionError]


def test_what_cannot_be_pickled_fails_its_own_result_and_the_pool_goes_on(pool):
    errors_seen = []
    result = pool.apply_async(bool, (threading.Lock(),), error_callback=errors_seen.append)
    with pytest.raises(errors.PayloadError, match="argument 0"):
        result.get(20)
    assert isinstance(errors_seen[0], errors.PayloadError)
    with pytest.raises(errors.PayloadError, match="item 3"):
        pool.map(bool, [1, 2, 3, threading.Lock()])
    lazy = pool.imap(bool, [1, threading.Lock(), 0])
    assert next(lazy) is True
    with pytest.raises(errors.PayloadError):
        next(lazy)
    assert next(lazy) is False
    assert pool.apply(triple, (1,)) == 3


def test_imap_goes_on_after_an_error_but_a_chunked_one_ends(pool):
    single = pool.imap(int, ["1", "x", "3"])
    assert next(single) == 1
    with pytest.raises(ValueError):
        next(single)
    assert next(single) == 3
    chunked = pool.imap(int, ["1", "2", "x", "4", "5"], 2)
    assert [next(chunked), next(chunked)] == [1, 2]
    with pytest.raises(ValueError):
        next(chunked)
    assert list(chunked) == []


def test_a_task_that_raises_stop_iteration_does_not_end_the_results_of_others(pool):
    results = pool.imap(next, [iter([1]), iter([]), iter([3])])
    assert results.next(20) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        results.next(20)
    assert results.next(20) == 3


def test_imap_of_an_endless_input_yields_and_stops_with_the_pool(pool):
    def endless():
        number = 0
        while True:
            yield number
            number += 1

    results = pool.imap(triple, endless())
    assert [next(results) for _ in range(100)] == [3 * i for i in range(100)]


def test_an_input_that_exits_ends_the_results_with_what_it_raised(pool):
    def inputs():
        yield 1
        raise SystemExit("on purpose")

    results = pool.imap(triple, inputs())
    assert results.next(20) == 3
    with pytest.raises(SystemExit, match="on purpose"):
        results.next(20)
    with pytest.raises(StopIteration):
        results.next(20)


def test_results_end_when_the_client_is_closed_under_their_input(pool):
    waits = threading.Event()

    def inputs():
        yield 1
        assert waits.wait(20)
        yield 2

    results = pool.imap(triple, inputs())
    assert results.next(20) == 3
    pool._crew._client.close()
    waits.set()
    with pytest.raises(errors.ConnectionLost):
        results.next(20)
    with pytest.raises(StopIteration):
        results.next(20)


def test_terminate_does_not_wait_for_an_input_that_never_comes(server):
    never = threading.Event()

    def stuck():
        yield 1
        never.wait()

    pool = Pool(2, url=server.url, authkey=KEY)
    results = pool.imap(triple, stuck())
    assert next(results) == 3
    pool.terminate()
    pool.join()
    with pytest.raises(errors.TaskCancelled):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    never.set()


@pytest.mark.filterwarnings("ignore:unclosed running")
def test_an_iterator_keeps_its_pool_alive(server):
    results = Pool(2, url=server.url, authkey=KEY).imap(triple, (i for i in range(2000)))
    gc.collect()
    assert list(results) == [3 * i for i in range(2000)]


def test_an_imap_nobody_reads_is_finished_by_close_and_join(server):
    pool = Pool(2, url=server.url, authkey=KEY)
    results = pool.imap_unordered(triple, (i for i in range(2500)))
    pool.close()
    pool.join()
    assert sum(len(job.outcomes) for job in server.jobs.values()) == 2500
    assert sorted(results) == [3 * i for i in range(2500)]


def test_terminate_tells_those_who_wait(server):
    server.gate.clear()
    pool = Pool(2, url=server.url, authkey=KEY)
    single, many = pool.apply_async(triple, (1,)), pool.map_async(triple, range(10))
    lazy = pool.imap(triple, range(10))
    pool.terminate()
    pool.join()
    for wait in (lambda: single.get(20), lambda: many.get(20), lambda: lazy.next(20)):
        with pytest.raises(errors.TaskCancelled, match="terminated"):
            wait()
    wait_until(lambda: len(server.of_kind(m.Close)) == 2)
    assert len(server.of_kind(m.Cancel)) == 2


def test_a_pool_that_is_dropped_warns_and_lets_go(server):
    pool = Pool(2, url=server.url, authkey=KEY)
    assert pool.apply(triple, (1,)) == 3
    gone, holder = weakref.ref(pool), [pool]

    def drop():
        holder.clear()
        wait_until(lambda: server.of_kind(m.Close), "the loop has let go of it, too")

    del pool
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        drop()
    wait_until(lambda: gc.collect() + 1 and gone() is None)


def test_a_result_keeps_its_pool_alive_until_it_is_there(server):
    server.gate.clear()
    pool = Pool(2, url=server.url, authkey=KEY)
    result, gone = pool.apply_async(triple, (1,)), weakref.ref(pool)
    pool.close()
    del pool
    gc.collect()
    assert gone() is not None
    server.gate.set()
    assert result.get(20) == 3
    wait_until(lambda: gc.collect() + 1 and gone() is None)


def test_arguments_and_results_are_not_kept(pool):
    class Thing:
        pass

    things = [Thing(), Thing()]
    kept = [weakref.ref(thing) for thing in things]
    values = pool.map(repr, things)
    assert len(values) == 2
    del things
    wait_until(lambda: gc.collect() + 1 and not any(ref() for ref in kept))


def test_a_named_pool_run_again_attaches(server):
    for _ in range(2):
        with Pool(2, name="night", url=server.url, authkey=KEY) as pool:
            assert pool.map(triple, range(20), 4) == [3 * i for i in range(20)]
            assert pool.apply(add, (1, 2)) == 3
    assert len(server.jobs) == 2
    assert all(len(job.outcomes) in (1, 5) for job in server.jobs.values())
    specs = [job.spec for job in server.jobs.values()]
    assert all(spec.name.startswith("night:") and not spec.is_transient for spec in specs)


def test_a_closed_named_pool_whose_inputs_changed_says_so(server):
    with Pool(2, name="night", url=server.url, authkey=KEY) as pool:
        pool.map(triple, [1, 2, 3], 1)
    again = Pool(2, name="night", url=server.url, authkey=KEY)
    with again, pytest.raises(errors.InputChanged, match="input 2 differs"):
        again.map(triple, [1, 2, 4], 1)


def test_threads_may_share_a_pool(pool):
    results = {}

    def work(number):
        results[number] = [pool.apply(add, (number, i)) for i in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: [n + i for i in range(50)] for n in range(4)}


def test_who_is_interrupted_while_submitting_hinders_neither_the_next_nor_the_end(
    pool, server, monkeypatch
):
    assert pool.apply(triple, (1,)) == 3
    server.gate.clear()
    under_way = pool.apply_async(triple, (2,))
    (stream,), post = pool._crew.streams(), Session.post

    def interrupt(*_):
        monkeypatch.setattr(Session, "post", post)
        raise KeyboardInterrupt

    def submit_interrupted(number):
        wait_until(lambda: not stream._is_due)
        monkeypatch.setattr(Session, "post", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.apply_async(triple, (number,))

    submit_interrupted(3)
    results = [under_way, pool.apply_async(triple, (4,))]
    server.gate.set()
    assert [result.get(20) for result in results] == [6, 12]
    server.gate.clear()
    under_way = pool.apply_async(triple, (5,))
    submit_interrupted(6)
    server.gate.set()
    assert under_way.get(20) == 15
    pool.close()
    joined = threading.Thread(target=pool.join)
    joined.start()
    joined.join(20)
    assert not joined.is_alive()


def test_a_forked_child_is_told_each_time_that_the_pool_is_its_parents(pool):
    assert pool.apply(triple, (1,)) == 3
    (stream,) = pool._crew.streams()
    read, write = os.pipe()
    sends, has_forked = threading.Event(), threading.Event()

    def send():  # as the event loop does
        with stream._changing:
            sends.set()
            has_forked.wait()

    sending = threading.Thread(target=send)
    sending.start()
    assert sends.wait(20)
    stream._is_due = True
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(3):
                try:
                    pool.apply_async(triple, (2,))
                except errors.ConnectionLost:
                    os.write(write, b"lost ")
        finally:
            os._exit(0)
    has_forked.set()
    sending.join()
    stream._is_due = False
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"lost lost lost "
    os.waitpid(pid, 0)
    assert pool.apply(triple, (3,)) == 9


def test_connections_that_break_are_not_noticed(pool, server):
    results = []
    for number in range(30):
        results += [pool.apply_async(triple, (number,)) for _ in range(20)]
        if number % 10 == 5:
            server.cut()
    assert [result.get(20) for result in results] == [3 * n for n in range(30) for _ in range(20)]


def test_lone_calls_of_many_threads_survive_cuts_and_each_gets_its_own_result(pool, server):
    wrong, done = [], itertools.count(1)

    def call_alone(base):
        for number in range(base, base + 60):
            result = pool.apply(triple, (number,))
            if result != 3 * number:
                wrong.append((number, result))
            if next(done) % 30 == 0:
                server.cut()

    threads = [threading.Thread(target=call_alone, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert next(done) == 4 * 60 + 1
