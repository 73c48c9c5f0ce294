"""The blocking client against a server that misbehaves on demand."""

import concurrent.futures
import itertools
import os
import sys
import threading
import time

import msgspec
import pytest
from fake_server import KEY, FakeServer

from multihost import AuthenticationError, Client, errors
from multihost.client import mapping
from multihost.client.submitter import Submitter
from multihost.core.outcome import Ending
from multihost.testing import wait_until
from multihost.wire import message as m


def triple(x):
    return 3 * x


def fail(text):
    raise LookupError(text)


interruptions = []


class Interrupting(Exception):
    """Unpickling one is interrupted, as by a signal's handler, as often as was asked for."""

    def __reduce__(self):
        return be_interrupted, (self.args,)


def be_interrupted(args):
    if interruptions:
        raise interruptions.pop()
    return Interrupting(*args)


def give(n):
    return Interrupting(n)


def give_or_raise(fails):
    if fails:
        raise Interrupting
    return Interrupting()


# --- connecting ------------------------------------------------------------------------


def test_a_wrong_key_is_refused_at_once(server):
    with pytest.raises(AuthenticationError, match="another key"):
        Client(server.url, b"wrong")


def test_nothing_listening_is_a_connection_refused_that_names_the_address(server):
    server.stop_listening()
    with pytest.raises(ConnectionRefusedError, match=server.url):
        Client(server.url, KEY)


def test_an_address_without_a_key_says_where_the_key_is(server):
    with pytest.raises(errors.ConfigError, match="MULTIHOST_KEY"):
        Client(server.url)


# --- submit ----------------------------------------------------------------------------


def test_submit_returns_the_value_and_is_stored(client):
    future = client.submit(triple, 14)
    assert future.wait_stored(20)
    assert future.result(20) == 42


def test_positional_names_do_not_collide(client):
    assert client.submit(dict, fn=1, self=2).result(20) == {"fn": 1, "self": 2}


def test_the_tasks_exception_is_raised_with_its_remote_traceback(client):
    future = client.submit(fail, "gone")
    with pytest.raises(LookupError, match="gone") as caught:
        future.result(20)
    assert "in fail" in str(caught.value.__cause__)
    assert future.exception() is caught.value


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_was_interrupted_while_it_was_unpickled_is_there_the_next_time(client, fails):
    interruptions.append(KeyboardInterrupt())
    future = client.submit(give_or_raise, fails)
    with pytest.raises(KeyboardInterrupt):
        future.result(20)
    if fails:
        with pytest.raises(Interrupting):
            future.result(20)
    else:
        assert isinstance(future.result(20), Interrupting)


def test_futures_work_with_wait_and_as_completed(client, server):
    server.gate.clear()
    futures = [client.submit(triple, i) for i in range(10)]
    done, _ = concurrent.futures.wait(futures, timeout=0)
    assert not done
    server.gate.set()
    results = {f.result() for f in concurrent.futures.as_completed(futures, timeout=20)}
    assert results == set(range(0, 30, 3))


def test_callbacks_run_in_a_thread_of_their_own_and_a_raising_one_hinders_nobody(client):
    seen, done = [], threading.Event()
    future = client.submit(triple, 1)
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda f: seen.append((f.result(), threading.current_thread().name)))
    future.add_done_callback(lambda _: done.set())
    assert done.wait(20)
    assert seen[0][0] == 3


def test_cancel_ends_the_task_on_the_server_and_wakes_those_who_wait(client, server):
    server.gate.clear()
    future = client.submit(triple, 1)
    assert future.wait_stored(20)
    assert future.cancel()
    assert concurrent.futures.wait([future], timeout=20).done == {future}
    assert future.cancelled()
    assert server.of_kind(m.Cancel)[0].indices == [0]


def test_a_task_cancelled_while_its_argument_is_uploaded_is_cancelled_when_it_is_there(
    client, server, monkeypatch
):
    uploads, cancelled = [], threading.Event()
    session, put = client.session, client.session.blobs.put
    monkeypatch.setattr(session.blobs, "put", lambda *upload: uploads.append(upload))
    server.gate.clear()
    future = client.submit(len, bytes(2 * m.INLINE_BYTES))
    wait_until(lambda: uploads)
    assert future.cancel()
    session.post(cancelled.set)
    assert cancelled.wait(20)
    session.post(lambda: put(*uploads[0]))
    sent = (m.Add, m.Cancel)
    wait_until(lambda: m.Add in map(type, server.messages))
    # A cancel that comes before its task is of nothing that the server knows.
    wait_until(lambda: [type(x) for x in server.messages if isinstance(x, sent)][-1] is m.Cancel)


def test_a_result_that_takes_too_long_is_a_timeout(client, server):
    server.gate.clear()
    with pytest.raises(TimeoutError):
        client.submit(triple, 1).result(0.01)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (m.RefusalCode.QUEUE_FULL, errors.QueueFull),
        (m.RefusalCode.STORE_FULL, errors.StoreFull),
        (m.RefusalCode.KEY_CONFLICT, errors.KeyConflict),
        (m.RefusalCode.BAD_REQUEST, errors.BadRequest),
    ],
)
def test_a_refusal_is_raised_as_what_it_is(client, server, code, kind):
    server.refuse_adds = code
    future = client.submit(triple, 1)
    with pytest.raises(kind):
        future.wait_stored(20)
    with pytest.raises(kind):
        future.result(20)
    server.refuse_adds = None
    assert client.submit(triple, 1).result(20) == 3


def test_options_reach_the_job(client, server):
    view = client.options(queue="images", priority=7, timeout_s=60.0, tags=["gpu"], max_attempts=3)
    assert view.submit(triple, 1).result(20) == 3
    spec = server.of_kind(m.Open)[-1].spec
    assert (spec.queue, spec.priority, spec.timeout_s) == ("images", 7, 60.0)
    assert spec.requires.tags == ("gpu",)
    assert spec.limits.max_attempts == 3
    with pytest.raises(TypeError, match="no option 'colour'"):
        client.options(colour="red")


def test_one_function_is_one_job_and_travels_once(client, server):
    results = [client.submit(triple, i) for i in range(100)]
    assert [r.result(20) for r in results] == [3 * i for i in range(100)]
    assert len(server.of_kind(m.Open)) == 1
    assert len(server.of_kind(m.PutBlob)) == 1


def test_many_functions_do_not_stay_open_for_ever(client, server):
    for number in range(200):
        assert client.submit(lambda number=number: number).result(20) == number
    wait_until(lambda: len(server.of_kind(m.Close)) >= 100)
    watched = server.on_loop(lambda: sum(bool(job.watchers) for job in server.jobs.values()))
    assert watched <= 64


# --- large things ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [70_000, 1_500_000, 5_000_000, 20_000_000])
def test_large_arguments_and_results_travel_as_blobs(client, server, size):
    data = os.urandom(1000) * (size // 1000)
    assert client.submit(bytes.__add__, data, b"!").result(30) == data + b"!"


def test_a_large_argument_is_uploaded_once_however_often_it_is_used(client, server):
    data = bytes(300_000)
    futures = [client.submit(bytes.count, data, b"\0") for _ in range(5)]
    assert [future.result(20) for future in futures] == [300_000] * 5
    uploads = [p for p in server.of_kind(m.PutBlob) if p.size_bytes > 200_000]
    assert len(uploads) == 1


def test_before_a_very_large_blob_is_sent_the_server_is_asked(server):
    data = bytes(m.ASK_FIRST_BYTES + 1)
    for _ in range(2):
        with Client(server.url, KEY) as client:
            assert client.submit(len, data).result(20) == len(data)
    assert len(server.of_kind(m.FindBlob)) == 2
    parts = [p for p in server.of_kind(m.PutBlob) if p.size_bytes > m.INLINE_BYTES]
    once = -(-parts[0].size_bytes // m.BLOB_PART_BYTES)
    assert len(parts) == once, "the second client found it there"


def test_a_large_function_is_stored_before_its_job_is_opened(client, server):
    ballast = os.urandom(200_000)
    assert client.submit(lambda: len(ballast)).result(20) == 200_000


def test_a_function_that_was_not_stored_fails_its_calls(client, server):
    server.refuse_blobs = True
    server.gate.clear()
    with pytest.raises(errors.StoreFull, match="disk is full"):
        client.submit(triple, 1).result(20)
    with pytest.raises(errors.StoreFull, match="disk is full"):
        client.submit(len, bytes(200_000)).result(20)
    server.refuse_blobs = False
    server.gate.set()
    assert client.submit(triple, 1).result(20) == 3


def test_a_result_that_is_gone_from_the_server_is_an_error(client, server):
    server.gate.clear()
    future = client.submit(triple, 1)
    assert future.wait_stored(20)
    job = next(iter(server.jobs.values()))
    missing = m.Blob(bytes(32), 100_000)
    alias = server.of_kind(m.Open)[-1].job
    outcome = m.Outcomes(alias, [m.Outcome(0, Ending.OK, missing)])
    server.on_loop(lambda: [c.link.send(outcome) for c in job.watchers])
    with pytest.raises(errors.TaskLost, match="no blob"):
        future.result(20)


# --- the connection breaks ----------------------------------------------------------------


def test_what_was_not_acknowledged_is_sent_again_and_outcomes_missed_are_replayed(client, server):
    futures = [client.submit(triple, i) for i in range(50)]
    server.cut()
    futures += [client.submit(triple, i) for i in range(50, 100)]
    server.cut()
    futures += [client.submit(triple, i) for i in range(100, 150)]
    assert [f.result(20) for f in futures] == [3 * i for i in range(150)]
    assert len(server.jobs) == 1
    job = next(iter(server.jobs.values()))
    assert sorted(job.payloads) == list(range(150))


def test_outcomes_that_come_while_the_client_is_away_are_not_lost(client, server):
    server.gate.clear()
    futures = [client.submit(triple, i) for i in range(10)]
    assert futures[-1].wait_stored(20)
    server.stop_listening()
    server.gate.set()
    job = next(iter(server.jobs.values()))
    wait_until(lambda: len(job.outcomes) == 10)
    server.listen_again()
    assert [f.result(20) for f in futures] == [3 * i for i in range(10)]


def test_a_large_upload_that_was_cut_goes_on(client, server):
    data = os.urandom(8_000_000)
    future = client.submit(len, data)
    wait_until(lambda: any(p.size_bytes > 7_000_000 for p in server.of_kind(m.PutBlob)))
    server.cut()
    assert future.result(20) == 8_000_000


def test_a_server_that_stays_away_makes_submits_unknown_and_tells_everybody(server):
    client = Client(server.url, KEY, patience_s=0.2)
    server.gate.clear()
    kept = client.submit(triple, 1)
    assert kept.wait_stored(20)
    server.drop_adds = True
    server.on_loop(server._server.close)
    unknown = client.submit(triple, 2)
    with pytest.raises(errors.SubmitUnknown) as caught:
        unknown.result(20)
    assert len(caught.value.uid) == 16
    with pytest.raises(errors.ConnectionLost):
        kept.result(20)
    assert not client.is_usable
    with pytest.raises(errors.ConnectionLost):
        client.submit(triple, 3).result(20)
    client.close()


def test_a_server_with_another_store_is_noticed(client, server):
    server.gate.clear()
    future = client.submit(triple, 1)
    assert future.wait_stored(20)
    server.store = b"quite another---"
    server.jobs.clear()
    server.cut()
    with pytest.raises(errors.ConnectionLost, match="another store"):
        future.result(20)


def test_closing_the_client_tells_everybody_who_waits(server):
    server.gate.clear()
    client = Client(server.url, KEY)
    future = client.submit(triple, 1)
    assert future.wait_stored(20)
    client.close()
    with pytest.raises(errors.ConnectionLost, match="closed"):
        future.result(20)
    wait_until(lambda: server.of_kind(m.Goodbye))
    client.close()


def test_a_repeated_outcome_is_told_once(client, server):
    future = client.submit(triple, 1)
    assert future.result(20) == 3
    job = next(iter(server.jobs.values()))
    again = m.Outcomes(1, [job.outcomes[0], job.outcomes[0]])
    server.on_loop(lambda: [c.link.send(again) for c in job.watchers])
    assert client.submit(triple, 2).result(20) == 6


def test_a_forked_child_drops_the_parents_client(client, server):
    assert client.submit(triple, 1).result(20) == 3
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Client(server.url, KEY) as own:
                os.write(write, b"%d %d" % (own.submit(triple, 2).result(20), client.is_usable))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"6 0"
    os.waitpid(pid, 0)
    assert client.submit(triple, 3).result(20) == 9


# --- map ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 7])
def test_map_yields_in_order(client, chunksize):
    assert list(client.map(triple, range(100), chunksize=chunksize)) == [3 * i for i in range(100)]


@pytest.mark.parametrize("chunksize", [1, 7])
def test_map_over_several_iterables_ends_with_the_shortest(client, chunksize):
    got = client.map(pow, [2, 3, 4], [5, 6, 7, 8], chunksize=chunksize)
    assert list(got) == [32, 729, 16384]


def test_map_unordered_yields_each_once(client):
    assert sorted(client.map(triple, range(100), ordered=False)) == [3 * i for i in range(100)]


def test_map_over_nothing_is_empty(client):
    assert list(client.map(triple, [])) == []


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("chunksize", [1, 2])
def test_who_is_interrupted_while_a_result_is_unpickled_gets_it_from_the_next(
    client, ordered, chunksize
):
    results = client.map(give, range(4), ordered=ordered, chunksize=chunksize)
    interruptions.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert sorted(result.args for result in results) == [(n,) for n in range(4)]


@pytest.mark.parametrize("number", range(1, 40))
def test_who_is_interrupted_while_inputs_are_submitted_loses_and_repeats_none(
    client, server, number
):
    left = number

    def interrupt(frame, event, _):
        nonlocal left
        if event in ("call", "c_return") and frame.f_code.co_filename == mapping.__file__:
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    results = client.map(triple, range(7), chunksize=2)
    taken = []
    sys.setprofile(interrupt)
    try:
        while True:
            try:
                taken.append(results.next(20))
            except KeyboardInterrupt:
                continue
            except StopIteration:
                break
    finally:
        sys.setprofile(None)
    assert taken == [3 * n for n in range(7)]
    (job,) = server.jobs.values()
    assert len(job.payloads) == 4


def test_map_never_pulls_more_than_its_window_ahead(client):
    counter = itertools.count()
    pulled = [0]

    def inputs():
        for number in counter:
            pulled[0] = number + 1
            yield number

    furthest = 0
    for taken, _ in enumerate(client.map(triple, inputs(), window=50), 1):
        furthest = max(furthest, pulled[0] - taken)
        if taken == 1000:
            break
    assert furthest <= 50


def test_an_error_takes_its_inputs_place_and_the_map_goes_on(client):
    results = client.map(divmod, [6, 6, 6], [3, 0, 2])
    assert next(results) == (2, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == (3, 0)
    with pytest.raises(StopIteration):
        next(results)


def test_a_task_that_raises_stop_iteration_does_not_end_the_map(client):
    results = client.map(next, [iter([1]), iter([]), iter([3])])
    assert next(results) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)
    assert next(results) == 3


def test_what_the_input_raises_comes_after_the_results_before_it(client):
    def inputs():
        yield 1
        yield 2
        raise LookupError("no more")

    results = client.map(triple, inputs())
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(LookupError, match="no more"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_a_loop_over_a_map_that_returns_exceptions_goes_on_after_them(client):
    def third(n):
        return 9 // n

    results = list(client.map(third, [3, 0, 9, threading.Lock(), 1], return_exceptions=True))
    assert [results[0], results[2], results[4]] == [3, 1, 9]
    assert isinstance(results[1], ZeroDivisionError)
    assert isinstance(results[3], errors.PayloadError)


def test_what_is_the_error_of_no_single_input_is_raised_all_the_same(client):
    def inputs():
        yield 1
        raise LookupError("no more")

    results = client.map(triple, inputs(), return_exceptions=True)
    assert next(results) == 3
    with pytest.raises(LookupError, match="no more"):
        next(results)
    with pytest.raises(ValueError, match="chunksize=1"):
        client.map(triple, [1], return_exceptions=True, chunksize=2)


def test_an_input_that_cannot_be_pickled_is_named_and_the_map_goes_on(client):
    results = client.map(bool, [1, threading.Lock(), 0])
    assert next(results) is True
    with pytest.raises(errors.PayloadError, match="lock"):
        next(results)
    assert next(results) is False


def test_a_map_that_is_dropped_is_cancelled(client, server):
    server.gate.clear()
    results = client.map(triple, range(10), window=5)
    with pytest.raises(errors.TimeoutError):
        results.next(0.01)
    results.close()
    wait_until(lambda: server.of_kind(m.Close))
    assert server.of_kind(m.Cancel)[0].indices is None


def test_delivered_outcomes_of_a_long_map_may_be_dropped_by_the_server(client, server):
    assert sum(client.map(triple, range(5000))) == 3 * sum(range(5000))
    wait_until(lambda: server.of_kind(m.Close))
    job = next(iter(server.jobs.values()))
    assert [t.upto for t in server.of_kind(m.Taken)][-1] == 5000
    assert len(server.of_kind(m.Taken)) <= 6
    assert job.total == 5000


# --- named maps ----------------------------------------------------------------------------


def test_a_named_map_run_again_attaches_and_does_only_the_rest(server):
    with Client(server.url, KEY) as first:
        results = first.map(triple, range(10), name="run-7")
        assert [next(results) for _ in range(10)] == [3 * i for i in range(10)]
    ran = []
    server.start = lambda job, index, payload: ran.append(index)
    with Client(server.url, KEY) as second:
        assert list(second.map(triple, range(10), name="run-7")) == [3 * i for i in range(10)]
    assert ran == []
    assert len(server.jobs) == 1
    assert not next(iter(server.jobs.values())).spec.is_transient


def test_a_named_map_whose_function_changed_says_so(server):
    with Client(server.url, KEY) as client:
        assert list(client.map(lambda x: x + 1, range(3), name="run-7")) == [1, 2, 3]
        with pytest.raises(errors.InputChanged, match=r"run-7.*function differs"):
            list(client.map(lambda x: x + 2, range(3), name="run-7"))


def test_a_named_map_whose_inputs_changed_says_which(server):
    with Client(server.url, KEY) as client:
        assert list(client.map(triple, [1, 2, 3], name="run-7")) == [3, 6, 9]
        with pytest.raises(errors.InputChanged, match="input 1 differs") as caught:
            list(client.map(triple, [1, 5, 3], name="run-7"))
        assert caught.value.indices == (1,)


def test_a_named_map_with_fewer_inputs_than_before_says_so(server):
    with Client(server.url, KEY) as client:
        assert list(client.map(triple, [1, 2, 3], name="run-7")) == [3, 6, 9]
        with pytest.raises(errors.InputChanged, match="had 3 inputs"):
            list(client.map(triple, [1, 2], name="run-7"))


def test_a_named_map_with_more_inputs_than_before_says_so(server):
    with Client(server.url, KEY) as client:
        assert list(client.map(triple, [1, 2, 3], name="run-7")) == [3, 6, 9]
        with pytest.raises(errors.InputChanged, match="more inputs than the 3"):
            list(client.map(triple, [1, 2, 3, 4], name="run-7"))


def test_a_named_map_whose_input_raised_can_be_run_again_with_all_of_it(server):
    def inputs(count):
        yield from range(count)
        raise OSError("the file server is away")

    for count in (3, 2):
        with Client(server.url, KEY) as client:
            results = client.map(triple, inputs(count), name="run-7")
            assert [next(results) for _ in range(count)] == [3 * i for i in range(count)]
            with pytest.raises(OSError, match="file server"):
                next(results)
            with pytest.raises(StopIteration):
                next(results)
    with Client(server.url, KEY) as client:
        assert list(client.map(triple, range(10), name="run-7")) == [3 * i for i in range(10)]
    seals = wait_until(lambda: server.of_kind(m.Seal), "the job was sealed")
    assert [seal.total for seal in seals] == [10]


# --- speed that must not be lost by accident -------------------------------------------------


def test_a_batch_of_submits_travels_in_few_messages(client, server):
    assert client.submit(triple, 0).result(20) == 0
    before = len(server.messages)
    futures = [client.submit(triple, i) for i in range(3000)]
    concurrent.futures.wait(futures, timeout=30)
    adds = [msg for msg in server.messages[before:] if isinstance(msg, m.Add)]
    assert sum(len(add.payloads) for add in adds) == 3000
    assert len(adds) < 1500


def test_time_of_the_job_is_in_its_uid(client, server):
    assert client.submit(triple, 0).result(20) == 0
    uid = server.of_kind(m.Open)[0].uid
    assert abs(int.from_bytes(uid[:6], "big") / 1000 - time.time()) < 3600
    assert isinstance(server, FakeServer)


def test_a_bug_in_what_was_posted_keeps_nothing_else_waiting(client):
    loop, told, ran = client.session.loop, threading.Event(), threading.Event()
    loop.call_soon_threadsafe(loop.set_exception_handler, lambda _, __: told.set())

    def post_both():
        client.session.post(lambda: 1 / 0)
        client.session.post(ran.set)

    loop.call_soon_threadsafe(post_both)
    assert told.wait(20)
    assert ran.wait(20)


def test_what_the_server_can_not_read_is_sent_three_times_and_then_given_up(client, server):
    """It was sent for ever, as fast as connections could be made for it."""
    view = client.options()
    spec = msgspec.structs.replace(client._spec, priority="high")
    view._submitter = Submitter(client.session, spec, (), is_watched=True)
    with pytest.raises(errors.ProtocolError, match=r"Expected `int`, got `str`.*same version"):
        view.submit(triple, 3).result(20)
    assert sum(isinstance(message, m.Attach) for message in server.messages) == 3
