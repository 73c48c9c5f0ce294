"""Locks, conditions, barriers, values and pipes on a real server, and holders that die."""

import asyncio
import ctypes
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from pathlib import Path

import programs
import pytest

from multihost import AsyncClient, Client, Queue, connection, shared_memory
from multihost.client.thread_taker import run
from multihost.connection import Pipe, wait
from multihost.sharedctypes import Array, RawArray, RawValue, Value
from multihost.synchronize import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    RLock,
    Semaphore,
)
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there
SOON_S = 20
_names = (f"thing-{number}" for number in itertools.count())

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, slots=2, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster.url, cluster.key) as client:
        yield client


@pytest.fixture
def other(cluster):
    """A second client, as of another program."""
    with Client(cluster.url, cluster.key) as client:
        yield client


@pytest.fixture
def name():
    return next(_names)


@pytest.fixture
def start(cluster, tmp_path):
    """Start programs that talk to the cluster and have said something; kill those that are left."""
    started = []

    def start(source):
        directory = tmp_path / str(len(started))
        directory.mkdir()
        environment = cluster.environment
        program = programs.start(directory, source, environment=environment, stderr=None)
        started.append(program)
        assert program.stdout.readline() == "ready\n"
        return program

    yield start
    for program in started:
        program.kill()
        program.wait()
        program.stdout.close()


def in_thread(work):
    """Run ``work`` in a thread; what it returns or raises comes out when asked for."""
    box = []

    def run():
        try:
            box.append((True, work()))
        except BaseException as error:
            box.append((False, error))

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(SOON_S)
        assert not thread.is_alive()
        is_ok, value = box[0]
        if not is_ok:
            raise value
        return value

    return result


# --- locks and semaphores ------------------------------------------------------------------


def test_a_lock_is_held_by_one_and_its_token_rises(client, other, name):
    mine, theirs = Lock(name=name, client=client), Lock(name=name, client=other)
    assert mine.acquire() is True
    assert mine.token is not None
    assert theirs.acquire(False) is False
    assert theirs.acquire(timeout=0.01) is False
    waiting = in_thread(lambda: (theirs.acquire(), theirs.token))
    first = mine.token
    mine.release()
    is_acquired, second = waiting()
    assert is_acquired
    assert second > first
    assert mine.token is None


def test_releasing_what_is_not_held_raises_as_in_the_standard_library(client):
    with pytest.raises(
        ValueError, match=r"^lock \d+ is released too many times: it is held by nobody"
    ):
        Lock(client=client).release()
    with pytest.raises(
        AssertionError, match=r"^lock \d+ is not held by this thread or task, and only"
    ):
        RLock(client=client).release()
    with pytest.raises(
        ValueError, match=r"^semaphore \d+ is released too many times: its value is 2 of at most 2"
    ):
        BoundedSemaphore(2, client=client).release()
    with pytest.raises(ValueError, match=">= 0"):
        Semaphore(-1, client=client)


def test_a_reentrant_lock_is_free_when_released_as_often_as_acquired(client, other, name):
    mine, theirs = RLock(name=name, client=client), RLock(name=name, client=other)
    with mine, mine:
        assert theirs.acquire(False) is False
    assert theirs.acquire(False) is True


def test_a_semaphore_counts(client):
    semaphore = Semaphore(2, client=client)
    with semaphore, semaphore:
        assert semaphore.get_value() == 0
        assert semaphore.acquire(False) is False
    assert semaphore.get_value() == 2


HOLDER = """
    import multihost
    from multihost.synchronize import *
    {acquire}
    print("ready", flush=True)
    import signal
    signal.pause()
"""


def test_the_lock_of_a_killed_holder_is_free_within_seconds(start, client, name):
    holder = start(HOLDER.format(acquire=f"lock = Lock(name={name!r}); lock.acquire()"))
    lock = Lock(name=name, client=client)
    assert lock.acquire(False) is False
    holder.kill()
    assert lock.acquire(timeout=SOON_S)


def test_what_a_killed_holder_had_of_a_semaphore_is_given_back(start, client, name):
    acquire = f"s = Semaphore(1, name={name!r}); s.acquire()"
    holder = start(HOLDER.format(acquire=acquire))
    semaphore = Semaphore(1, name=name, client=client)
    assert semaphore.acquire(False) is False
    holder.kill()
    assert semaphore.acquire(timeout=SOON_S)


def test_a_killed_waiter_gets_nothing(start, client, name):
    lock = Lock(name=name, client=client)
    lock.acquire()
    waiter = start(
        HOLDER.format(
            acquire=f"lock = Lock(name={name!r})\n    import threading\n"
            "    threading.Thread(target=lock.acquire, daemon=True).start()"
        )
    )
    waiter.kill()
    waiter.wait()
    lock.release()
    assert lock.acquire(timeout=SOON_S)


def test_locks_are_held_through_a_restart_of_the_server(cluster, client, other, name):
    mine, theirs = Lock(name=name, client=client), Lock(name=name, client=other)
    mine.acquire()
    waiting = in_thread(theirs.acquire)
    cluster.kill_server()
    cluster.start_server()
    mine.release()
    assert waiting() is True


def count_up(total, times):
    for _ in range(times):
        with total.get_lock():
            total.value += 1


def test_tasks_count_exactly_under_a_values_lock(client):
    total = Value("i", 0, client=client)
    for future in [client.submit(count_up, total, 25) for _ in range(4)]:
        future.result(SOON_S)
    assert total.value == 100


# --- conditions, events, barriers ----------------------------------------------------------


def test_a_notify_wakes_one_and_notify_all_the_rest(client, name):
    condition = Condition(name=name, client=client)
    woken = threading.Semaphore(0)

    def wait():
        with condition:
            assert condition.wait(SOON_S)
            woken.release()

    waits = [in_thread(wait) for _ in range(3)]
    wait_until(lambda: condition._measure()[0] == 3, "three wait")
    with condition:
        condition.notify()
    assert woken.acquire(timeout=SOON_S)
    assert condition._measure()[0] == 2
    with condition:
        condition.notify_all()
    for each in waits:
        each()


def test_waiting_for_what_never_comes_ends_in_time_and_holds_the_lock_again(client):
    condition = Condition(client=client)
    with condition:
        assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: False, timeout=0.01) is False
        assert condition._lock.token is not None


def test_conditions_are_for_who_holds_the_lock(client):
    condition = Condition(Lock(client=client))
    for use in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(AssertionError):
            use()


def test_a_notify_goes_past_a_waiter_that_was_killed(start, client, name):
    waiter = start(f"""
        import threading
        from multihost.synchronize import Condition
        condition = Condition(name={name!r})
        def wait():
            with condition:
                print("ready", flush=True)
                condition.wait()
        threading.Thread(target=wait, daemon=True).start()
        import signal
        signal.pause()
    """)
    condition = Condition(name=name, client=client)
    wait_until(lambda: condition._measure()[0] == 1, "the program waits")
    waiter.kill()
    wait_until(lambda: condition._measure()[0] == 0, "it waits no more")

    def wait():
        with condition:
            return condition.wait(SOON_S)

    waiting = in_thread(wait)
    wait_until(lambda: condition._measure()[0] == 1, "this thread waits")
    with condition:
        condition.notify()
    assert waiting() is True


def test_an_event_wakes_all_and_stays_set(client, other, name):
    mine, theirs = Event(name=name, client=client), Event(name=name, client=other)
    assert theirs.wait(0.01) is False
    waiting = in_thread(lambda: theirs.wait(SOON_S))
    mine.set()
    assert waiting() is True
    assert theirs.is_set()
    assert repr(theirs).endswith(" set>")
    theirs.clear()
    assert not mine.is_set()


def test_all_parties_pass_a_barrier_together_and_one_does_the_action(client, name):
    done = []
    barrier = Barrier(3, lambda: done.append(1), name=name, client=client)
    positions = [in_thread(barrier.wait) for _ in range(3)]
    assert sorted(position() for position in positions) == [0, 1, 2]
    assert done == [1]


def test_a_barrier_whose_action_fails_is_broken(client):
    def fail():
        raise LookupError

    barrier = Barrier(2, fail, client=client)
    waits = [in_thread(barrier.wait) for _ in range(2)]
    errors = set()
    for waiting in waits:
        with pytest.raises((LookupError, threading.BrokenBarrierError)) as caught:
            waiting()
        errors.add(issubclass(caught.type, LookupError))
    assert errors == {True, False}
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


def test_a_barrier_whose_action_is_interrupted_by_death_is_broken(start, client, name):
    barrier = Barrier(2, lambda: None, name=name, client=client)
    waiting = in_thread(barrier.wait)
    wait_until(lambda: barrier.n_waiting == 1, "one waits")
    party = start(f"""
        import os, signal
        from multihost.synchronize import Barrier
        barrier = Barrier(2, lambda: os.kill(os.getpid(), signal.SIGKILL), name={name!r})
        print("ready", flush=True)
        barrier.wait()
    """)
    with pytest.raises(threading.BrokenBarrierError):
        waiting()
    assert party.wait() == -signal.SIGKILL
    barrier.reset()
    assert not barrier.broken


def test_a_barrier_breaks_when_not_all_come_in_time_or_one_dies(start, client, name):
    barrier = Barrier(2, client=client)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.01)
    barrier = Barrier(3, name=name, client=client)
    party = start(f"""
        import threading
        from multihost.synchronize import Barrier
        barrier = Barrier(3, name={name!r})
        threading.Thread(target=barrier.wait, daemon=True).start()
        print("ready", flush=True)
        import signal
        signal.pause()
    """)
    waiting = in_thread(barrier.wait)
    wait_until(lambda: barrier.n_waiting == 2, "two wait")
    party.kill()
    with pytest.raises(threading.BrokenBarrierError):
        waiting()


# --- values, arrays, pipes -----------------------------------------------------------------


def test_values_and_arrays_read_and_write_like_ctypes(client):
    numbers = Array("i", range(10), client=client)
    numbers[2:5] = [20, 30, 40]
    numbers[-1] = 7
    assert numbers[:] == [0, 1, 20, 30, 40, 5, 6, 7, 8, 7]
    assert numbers[8:1:-3] == [8, 5, 20]
    assert len(numbers) == 10
    with pytest.raises(IndexError):
        numbers[10]
    with pytest.raises(ValueError, match="same size"):
        numbers[:2] = [1]
    text = Array("c", b"hello world", client=client)
    text.value = b"bye"
    assert (text.value, text.raw) == (b"bye", b"bye\0o world")
    assert (text[1], list(text)[:3]) == (b"y", [b"b", b"y", b"e"])
    with pytest.raises(TypeError):
        numbers[:6:2] = [1, 2, "no number"]
    assert numbers[:6] == [0, 1, 20, 30, 40, 5]
    with pytest.raises(TypeError, match="typecode"):
        Array("z", 1, client=client)
    assert Value("d", 0.5, client=client).value == 0.5
    with pytest.raises(TypeError):
        Value("i", 0, client=client).value = "text"


def test_numpy_gets_a_copy_of_an_array_in_one_call(client, monkeypatch):
    made = types.SimpleNamespace(ndarray=lambda shape, kind, data: (shape, kind, bytes(data)))
    monkeypatch.setitem(sys.modules, "numpy", made)
    numbers = Array("h", [1, 2, 3], client=client)
    expected = (3, ctypes.c_short, bytes((ctypes.c_short * 3)(1, 2, 3)))
    assert numbers.__array__() == numbers.get_obj().__array__() == expected
    with pytest.raises(BufferError if sys.version_info >= (3, 12) else TypeError):
        memoryview(numbers.get_obj())


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("name", ctypes.c_char * 8))


def square_all(points):
    for point in points:
        point.x **= 2


def test_an_array_of_structures_hands_out_views_that_write_where_they_stand(client):
    points = Array(Point, [(1.5, b"one"), (-2.0, b"two"), Point(3.0, b"three")], client=client)
    client.submit(square_all, points).result(SOON_S)
    assert [(point.x, point.name) for point in points] == [
        (2.25, b"one"),
        (4.0, b"two"),
        (9.0, b"three"),
    ]
    client.submit(setattr, points[-1], "name", b"last").result(SOON_S)
    points[0] = points[2]
    points[1:3] = [(5.0, b"five"), points[0]]
    assert [(point.x, point.name) for point in points[::2]] == [(9.0, b"last"), (9.0, b"last")]
    assert (points[1].x, len(points)) == (5.0, 3)
    with pytest.raises(AttributeError):
        points[0].y  # noqa: B018


class Bits(ctypes.Union):
    _fields_ = (("number", ctypes.c_uint32), ("bytes", ctypes.c_ubyte * 4))


class Route(ctypes.Structure):
    _fields_ = (
        ("first", Point),
        ("sizes", ctypes.c_int * 3),
        ("low", ctypes.c_uint, 3),
        ("high", ctypes.c_uint, 5),
        ("bits", Bits),
    )


def fill(path):
    path.first.x = 1.5
    path.first.name = b"here"
    path.sizes[1:] = [20, 30]
    path.low, path.high = 9, 30
    path.bits.number = 258


def test_what_stands_within_a_shared_object_is_written_where_it_stands(client):
    path = Value(Route, (0.0, b"there"), (1, 2, 3), client=client)
    client.submit(fill, path).result(SOON_S)
    assert (path.first.x, path.first.name, list(path.sizes)) == (1.5, b"here", [1, 20, 30])
    assert (path.low, path.high, path.bits.bytes[:2]) == (1, 30, [2, 1])
    paths = Array(Route, 2, client=client)
    paths[1] = path.get_obj()
    client.submit(setattr, paths[1].first, "x", 2.5).result(SOON_S)
    client.submit(paths[1].sizes.__setitem__, -1, 99).result(SOON_S)
    assert (paths[1].first.x, paths[1].sizes[:], paths[0].sizes[:]) == (2.5, [1, 20, 99], [0] * 3)
    path.first = paths[1].first
    assert (path.first.x, path.first.name) == (2.5, b"here")


def test_arrays_of_arrays_and_values_that_are_arrays_are_shared(client):
    rows = Array(ctypes.c_int * 2, [(1, 2), (3, 4), (5, 6)], client=client)
    rows[1][0] = 30
    client.submit(rows[-1].__setitem__, slice(None), [50, 60]).result(SOON_S)
    client.submit(rows.__setitem__, 0, (10, 20)).result(SOON_S)
    assert [row[:] for row in rows] == [[10, 20], [30, 4], [50, 60]]
    word = Value(ctypes.c_char * 6, *b"one", client=client)
    word.value = b"three"
    assert (word.value, word[0], len(word)) == (b"three", b"t", 6)
    assert (word.get_obj()._type_, word.get_obj()._length_) == (ctypes.c_char, 6)
    either = Value(Bits, client=client)
    either.bytes = (ctypes.c_ubyte * 4)(1, 1)
    assert either.number == 257


def test_memory_that_only_one_machine_has_is_refused_with_the_alternative():
    with pytest.raises(NotImplementedError, match="Value"):
        RawValue("i", 1)
    with pytest.raises(NotImplementedError, match="Array"):
        RawArray("i", 10)
    with pytest.raises(NotImplementedError, match=r"multihost\.Array"):
        shared_memory.SharedMemory(create=True, size=10)
    with pytest.raises(NotImplementedError, match=r"Manager\(\)\.list"):
        shared_memory.ShareableList([1, 2])


def test_listener_and_client_join_two_programs_as_in_the_standard_library():
    with connection.Listener(("localhost", 0), authkey=b"secret") as listener:

        def call():
            with connection.Client(listener.address, authkey=b"secret") as end:
                end.send("hello")

        caller = threading.Thread(target=call)
        caller.start()
        with listener.accept() as end:
            assert wait([end], timeout=20) == [end]
            assert end.recv() == "hello"
        caller.join()


def answer(end):
    end.send(("answer", end.recv()))
    end.close()


def test_a_pipe_reaches_into_a_task_and_ends_with_it(client):
    mine, theirs = Pipe(client=client)
    future = client.submit(answer, theirs)
    theirs.close()
    mine.send([1, 2])
    assert mine.recv() == ("answer", [1, 2])
    future.result(SOON_S)
    with pytest.raises(EOFError):
        mine.recv()
    with pytest.raises(BrokenPipeError):
        mine.send(1)


def answer_in_the_second_life(end, marker):
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        end.send("second")
    else:
        end.send("first")
        end.recv()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_pipe_lives_on_with_a_task_that_is_tried_again_and_ends_with_it(client, tmp_path):
    mine, theirs = Pipe(client=client)
    future = client.submit(answer_in_the_second_life, theirs, str(tmp_path / "marker"))
    theirs.close()
    assert mine.recv() == "first"
    mine.send("die")
    assert mine.recv() == "second"
    future.result(SOON_S)
    with pytest.raises(EOFError):
        mine.recv()


def test_the_end_of_a_pipe_that_a_killed_program_held_is_closed(client, cluster, tmp_path):
    mine, theirs = Pipe(client=client)
    client.queue("ends").put(theirs)
    theirs.close()
    source = """
    from multihost import Queue
    end = Queue(name="ends").get()
    end.send("here")
    end.recv()
    """
    program = programs.start(tmp_path, source, environment=cluster.environment)
    assert mine.recv() == "here"
    program.kill()
    program.communicate()
    with pytest.raises(EOFError):
        mine.recv()
    with pytest.raises(BrokenPipeError):
        mine.send(1)


def test_bytes_go_through_a_pipe_as_one_message(client):
    one, two = Pipe(client=client)
    one.send_bytes(b"abcdef", 2, 3)
    assert two.poll(SOON_S)
    assert two.recv_bytes() == b"cde"
    one.send_bytes(bytes(1 << 20))
    buffer = bytearray(2 << 20)
    assert two.recv_bytes_into(buffer, 10) == 1 << 20
    one.send_bytes(b"too much")
    with pytest.raises(multiprocessing.BufferTooShort):
        two.recv_bytes_into(bytearray(3))
    one.send("pickled")
    assert pickle.loads(two.recv_bytes()) == "pickled"
    assert two.poll() is False
    one.send_bytes(b"too much")
    with pytest.raises(OSError, match="3 were allowed"):
        two.recv_bytes(3)
    assert (two.readable, two.writable, two.closed) == (False, True, False)
    two.send_bytes(b"still there")
    assert one.recv_bytes() == b"still there"
    reader, writer = Pipe(duplex=False, client=client)
    assert (reader.readable, reader.writable) == (True, False)
    with pytest.raises(OSError, match="read-only"):
        reader.send(1)
    writer.close()
    with pytest.raises(EOFError):
        reader.recv()


def test_several_pipes_are_waited_for_together(client):
    pipes = [Pipe(client=client) for _ in range(3)]
    readers = [reader for reader, _ in pipes]
    assert wait(readers, 0.01) == []
    pipes[1][1].send("x")
    assert wait(readers, SOON_S) == [readers[1]]
    assert readers[1].recv() == "x"
    assert wait(readers, 0.01) == []
    pipes[2][1].close()
    assert wait(readers, SOON_S) == [readers[2]]
    with pytest.raises(EOFError):
        readers[2].recv()
    pipes[0][1].send(1)
    pipes[0][1].send(2)
    assert [readers[0].recv(), readers[0].recv()] == [1, 2]
    for reader in readers:
        reader.close()


def test_what_poll_has_seen_is_there_for_wait_and_what_wait_has_seen_for_poll(client):
    mine, theirs = Pipe(client=client)
    theirs.send("before")
    assert mine.poll(SOON_S)
    assert wait([mine], SOON_S) == [mine]
    assert mine.poll(0)
    assert wait([mine], SOON_S) == [mine]
    assert mine.recv() == "before"
    theirs.send("after")
    assert [mine.poll(SOON_S), mine.poll(None), wait([mine], SOON_S)] == [True, True, [mine]]
    assert mine.recv() == "after"
    assert (mine.poll(-1), wait([mine], 0)) == (False, [])
    theirs.close()
    assert [mine.poll(SOON_S), wait([mine], SOON_S)] == [True, [mine]]
    with pytest.raises(EOFError):
        mine.recv()
    mine.close()
    assert (mine.readable, mine.writable) == (True, True)
    with pytest.raises(OSError, match="closed"):
        mine.poll()


def test_who_holds_an_item_converses_over_a_pipe_and_confirms_nothing_by_it(client, name):
    items = Queue(name=name, client=client)
    items.put_many(["first", "second"])
    mine, theirs = Pipe(client=client)
    answering = in_thread(lambda: [answer_once(theirs), answer_once(theirs)])
    with items.take() as item:
        mine.send(item)
        assert mine.recv() == ("answer", "first")
    item = items.get()
    mine.send(item)
    assert mine.recv() == ("answer", "second")
    answering()
    theirs.close()
    with pytest.raises(BrokenPipeError):
        mine.send("too late")
    assert (items.qsize(), held(items)) == (0, 1)


def answer_once(end):
    end.send(("answer", end.recv()))


def held(items):
    return run(items._items.measure(items._taker())).held


def test_coroutines_share_synchronizers(cluster, name):
    async def main():
        async with await AsyncClient.connect(cluster.url, cluster.key) as client:
            lock, event = await client.lock(f"{name}-l"), await client.event(f"{name}-e")
            order = []

            async def work(number):
                async with lock:
                    order.append(number)
                    await event.wait()
                    order.append(number)

            tasks = [asyncio.create_task(work(number)) for number in range(3)]
            await event.set()
            await asyncio.gather(*tasks)
            assert order in ([0, 0, 1, 1, 2, 2], sorted(order, key=order.index))

            condition = await client.condition(f"{name}-c")

            async def wait():
                async with condition:
                    return await condition.wait(SOON_S)

            waiting = asyncio.create_task(wait())
            while not (await condition._remote.measure(condition._taker()))[0]:  # noqa: ASYNC110 - asks the server
                await asyncio.sleep(0)
            async with condition:
                await condition.notify()
            assert await waiting is True

            barrier = await client.barrier(f"{name}-b", 2)
            passed = await asyncio.gather(
                *(asyncio.create_task(barrier.wait(SOON_S)) for _ in range(2))
            )
            assert sorted(passed) == [0, 1]

    asyncio.run(main())


def interrupt_when_answered(client, monkeypatch):
    """Have the next call of a thread interrupted just when its answer has come."""
    line = client.session.calls
    start = line.start_here

    def interrupt(pending):
        monkeypatch.undo()
        start(pending)
        wait_until(lambda: pending.result is not None, "it is answered")
        raise KeyboardInterrupt

    monkeypatch.setattr(line, "start_here", interrupt)


def test_a_lock_whose_acquire_was_interrupted_can_be_acquired_at_once(client, name, monkeypatch):
    lock = Lock(name=name, client=client)
    interrupt_when_answered(client, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    assert lock.acquire(timeout=SOON_S)
    lock.release()
    assert lock.token is None


def test_an_action_that_an_interrupt_prevents_breaks_its_barrier(client, name, monkeypatch):
    barrier = Barrier(2, lambda: None, name=name, client=client)
    waiting = in_thread(barrier.wait)
    wait_until(lambda: barrier.n_waiting == 1, "one waits")
    interrupt_when_answered(client, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        barrier.wait()
    with pytest.raises(threading.BrokenBarrierError):
        waiting()
