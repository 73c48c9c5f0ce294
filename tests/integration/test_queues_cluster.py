"""Queues on a real server: threads, tasks and programs that take and put, and die."""

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import queue
import random
import re
import signal
import threading
from pathlib import Path

import programs
import pytest

import multihost
from multihost import AsyncClient, Client, connection, errors
from multihost.queues import JoinableQueue, Queue, SimpleQueue
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there
SOON_S = 20
_names = (f"queue-{number}" for number in itertools.count())

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
    """Start programs that talk to the cluster; those that still run at the end are killed."""
    started = []

    def start(source):
        directory = tmp_path / str(len(started))
        directory.mkdir()
        environment = cluster.environment
        program = programs.start(directory, source, environment=environment, stderr=None)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()
        program.wait()
        program.stdout.close()


# --- the standard library's verbs ----------------------------------------------------------


def test_items_come_out_as_they_went_in(client):
    items = Queue(client=client)
    things = [1, "two", {"three": [3.0]}, None, bytes(1 << 20)]
    for thing in things:
        items.put(thing)
    assert items.qsize() == 5
    assert [items.get() for _ in things] == things
    assert items.empty()


def test_a_queue_without_items_is_empty_at_once_or_in_time(client):
    items = Queue(client=client)
    for look in (items.get_nowait, lambda: items.get(timeout=0.01), lambda: items.get(False)):
        with pytest.raises(queue.Empty):
            look()


def test_a_bounded_queue_is_full_until_something_is_taken(client, other, name):
    items = client.queue(name, 2)
    items.put_nowait(1)
    items.put(2)
    assert items.full()
    with pytest.raises(queue.Full):
        items.put(3, timeout=0.01)
    putting = threading.Thread(target=items.put, args=(3,))
    putting.start()
    assert other.queue(name).get() == 1
    putting.join(SOON_S)
    assert items.qsize() == 2


def test_a_queues_bound_has_the_private_name_that_programs_print(client):
    assert Queue(3, client=client)._maxsize == 3
    assert Queue(client=client)._maxsize == multiprocessing.get_context("spawn").Queue()._maxsize


def test_a_closed_queue_refuses_here_and_nowhere_else(client, other, name):
    items, theirs = client.queue(name), other.queue(name)
    items.put(1)
    items.close()
    items.join_thread()
    for use in (lambda: items.put(2), items.get):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert theirs.get() == 1


def test_join_waits_for_a_task_done_for_every_item(client, other):
    items = JoinableQueue(client=client)
    for number in range(3):
        items.put(number)
    joined = threading.Event()
    threading.Thread(target=lambda: (items.join(), joined.set())).start()
    for _ in range(3):
        assert not joined.is_set()
        items.get()
        items.task_done()
    assert joined.wait(SOON_S)
    with pytest.raises(ValueError, match="too many times"):
        items.task_done()


def test_a_simple_queue_has_the_simple_verbs(client):
    items = SimpleQueue(client=client)
    assert items.empty()
    items.put("x")
    assert items.get() == "x"


@pytest.mark.parametrize("kind", [SimpleQueue, Queue])
def test_a_queue_can_be_asked_whether_something_is_there(client, kind):
    items = kind(client=client)
    assert not items._reader.poll()
    items.put("x")
    assert items._reader.poll()
    with pytest.raises(NotImplementedError, match="without taking from it"):
        items._reader.poll(1)
    with pytest.raises(NotImplementedError, match="a thread for each"):
        connection.wait([items._reader], 1)
    items.close()
    assert items._reader.closed
    assert items._writer.closed


def test_an_item_that_cant_be_pickled_is_raised_where_a_name_says_that_it_is_ours(client, name):
    for items in (client.queue(name), SimpleQueue(client=client)):
        with pytest.raises(TypeError, match="pickled"):
            items.put(threading.Lock())
    with pytest.raises(TypeError, match="pickled"):
        Queue(client=client).put_many([threading.Lock()])


def test_an_item_that_cant_be_pickled_is_dropped_and_reported_as_multiprocessing_does(
    client, capsys
):
    items = Queue(1, client=client)
    items.put(threading.Lock())
    items.put("next")
    assert items.get() == "next"
    report = capsys.readouterr().err
    assert "cannot pickle '_thread.lock' object" in report
    assert re.search(rf"\(_thread\.lock\) that {__file__}:\d+ put was dropped", report)


def test_a_subclass_of_queue_is_told_of_items_that_cant_be_pickled(client):
    told = []

    class Safe(Queue):
        @staticmethod
        def _on_queue_feeder_error(e, obj):
            told.append((e, obj))

    lock = threading.Lock()
    Safe(client=client).put(lock)
    ((error, thing),) = told
    assert type(error) is TypeError
    assert thing is lock


def test_many_items_go_and_come_together(client, name):
    items = client.queue(name)
    items.put_many(range(2500))
    taken = []
    while len(taken) < 2500:
        taken += items.get_many(1000)
    assert taken == list(range(2500))


def test_a_bounded_queue_takes_many_items_as_room_comes(client, other, name):
    items = client.queue(name, 10)
    putting = threading.Thread(target=items.put_many, args=(range(100),))
    putting.start()
    theirs = other.queue(name)
    assert [theirs.get() for _ in range(100)] == list(range(100))
    putting.join(SOON_S)


def test_what_was_put_before_a_put_that_waits_for_room_is_there(client):
    source, results, full = Queue(client=client), Queue(client=client), Queue(1, client=client)
    source.put("item")
    full.put("first")

    def work():
        item = source.get()
        results.put(f"{item} done")
        full.put(f"{item} next")

    worker = threading.Thread(target=work)
    worker.start()
    # Nobody makes room before that has come.
    assert results.get(timeout=SOON_S) == "item done"
    assert full.get(timeout=SOON_S) == "first"
    worker.join(SOON_S)
    assert not worker.is_alive()
    assert full.get(timeout=SOON_S) == "item next"


def test_each_of_many_threads_gets_what_no_other_gets(client, name):
    items, results = client.queue(name), queue.Queue()

    def work():
        with contextlib.suppress(queue.Empty):
            while True:
                results.put(items.get(timeout=0.05))

    items.put_many(range(500))
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert sorted(results.queue) == list(range(500))


# --- by name, by reference -----------------------------------------------------------------


def test_strangers_share_a_queue_by_its_name_with_its_makers_settings(client, other, name):
    client.queue(name, 5, confirm="task_done").put("x")
    theirs = other.queue(name)
    assert (theirs.maxsize, theirs.confirm) == (5, "task_done")
    assert theirs.get() == "x"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"maxsize": 6}, "maxsize=5, not maxsize=6"),
        ({"confirm": "next"}, "confirm='task_done', not 'next'"),
    ],
)
def test_a_queue_that_has_other_settings_than_were_asked_for_is_refused(
    client, other, name, asked, said
):
    client.queue(name, 5, confirm="task_done").put("x")
    with pytest.raises(errors.KeyConflict, match=said):
        other.queue(name, **asked)
    assert other.queue(name, 5, confirm="task_done").get() == "x"
    assert JoinableQueue(name=name, client=other).maxsize == 5


def test_a_joinable_queue_is_none_whose_items_are_done_with_otherwise(client, other, name):
    client.queue(name)
    with pytest.raises(errors.KeyConflict, match="multihost queues drop"):
        JoinableQueue(name=name, client=other)


def test_an_unnamed_queue_goes_with_the_program_that_made_it(cluster, other):
    with Client(cluster.url, cluster.key) as maker:
        items = Queue(client=maker)
        taking = threading.Thread(target=_take_until_closed, args=(other, items._items.number))
        taking.start()
    taking.join(SOON_S)
    assert not taking.is_alive()


def _take_until_closed(client, number):
    items = client.queue("any")
    items._items.number = number
    with pytest.raises((errors.QueueClosed, errors.Gone)):
        items.get()


def swap(items):
    item = items.get()
    items.put(("seen in a task", item))


def test_a_queue_travels_into_tasks(client):
    items = Queue(client=client)
    items.put("x")
    client.submit(swap, items).result(SOON_S)
    assert items.get() == ("seen in a task", "x")


def make_queue():
    return multihost.Queue(name="made-in-a-task")


def test_a_queue_travels_back_from_a_task(client):
    items = client.submit(make_queue).result(SOON_S)
    items.put("x")
    assert client.queue("made-in-a-task").get() == "x"


def take_and(items, what):
    item = items.get()
    if what == "raise":
        raise LookupError(item)
    return item


def test_a_task_that_ends_well_is_done_with_its_item(client):
    items = Queue(client=client)
    items.put("x")
    assert client.submit(take_and, items, "return").result(SOON_S) == "x"
    assert items._items is not None
    assert held(items) == 0


def test_the_item_of_a_task_that_raises_goes_to_others(client):
    items = Queue(client=client)
    items.put("x")
    with pytest.raises(LookupError):
        client.submit(take_and, items, "raise").result(SOON_S)
    assert items.get(timeout=SOON_S) == "x"


def held(items):
    from multihost.client.thread_taker import run

    return run(items._items.measure(items._taker())).held


# --- exactly once --------------------------------------------------------------------------


def test_a_with_block_is_done_with_its_item_and_sends_what_was_put_in_it(client, other, name):
    items, results = client.queue(name), client.queue(f"{name}-results")
    items.put(3)
    with items.take() as item:
        results.put(item * 2)
        assert other.queue(f"{name}-results").empty()
    assert held(items) == 0
    assert other.queue(f"{name}-results").get() == 6


def test_a_with_block_that_raises_leaves_the_item_and_puts_nothing(client, other, name):
    items, results = client.queue(name), client.queue(f"{name}-results")
    items.put(3)
    with contextlib.suppress(LookupError), items.take() as item:
        results.put(item)
        raise LookupError
    assert other.queue(name).get(timeout=SOON_S) == 3
    assert other.queue(f"{name}-results").empty()


def test_a_block_within_another_that_raises_forgets_what_was_put_in_it_alone(client, other, name):
    items, parts = client.queue(name), client.queue(f"{name}-parts")
    results = client.queue(f"{name}-results")
    items.put(3)
    parts.put(4)
    with items.take() as item:
        results.put(("of", item))
        with contextlib.suppress(LookupError), parts.take() as part:
            results.put(("of", part))
            raise LookupError
        assert other.queue(f"{name}-results").empty()
    assert other.queue(f"{name}-results").get() == ("of", 3)
    assert other.queue(f"{name}-results").empty()
    assert other.queue(f"{name}-parts").get(timeout=SOON_S) == 4


CONSUMER = """
    import sys, multihost
    with_name = multihost.connect()
    items, results = with_name.queue({name!r}), with_name.queue({name!r} + "-results")
    item = items.get()
    results.put(item)
    print("took", item, flush=True)
    {then}
"""


def test_the_item_of_a_killed_program_goes_to_another_within_seconds(start, client, name):
    client.queue(name).put("precious")
    consumer = start(f"""
        import multihost
        print(multihost.connect().queue({name!r}).get(), flush=True)
        import signal
        signal.pause()
    """)
    assert consumer.stdout.readline() == "precious\n"
    consumer.kill()
    assert client.queue(name).get(timeout=SOON_S) == "precious"


def test_a_program_killed_while_it_waits_swallows_nothing(start, client, name):
    waiting = start(f"""
        import multihost
        items = multihost.connect().queue({name!r})
        print("waits", flush=True)
        items.get()
    """)
    assert waiting.stdout.readline() == "waits\n"
    waiting.send_signal(signal.SIGKILL)
    waiting.wait()
    items = client.queue(name)
    items.put("precious")
    assert items.get(timeout=SOON_S) == "precious"


@pytest.mark.parametrize("ending", ["pass", "sys.exit()", "sys.exit('deliberately')"])
def test_a_program_that_ends_in_good_order_is_done_with_its_item(start, client, name, ending):
    items = client.queue(name)
    items.put("x")
    program = start(CONSUMER.format(name=name, then=ending))
    program.wait(SOON_S)
    assert client.queue(f"{name}-results").get(timeout=SOON_S) == "x"
    assert (items.qsize(), held(items)) == (0, 0)


def test_a_program_that_ends_with_an_exception_leaves_its_item_to_others(start, client, name):
    items = client.queue(name)
    items.put("x")
    start(f"""
        import multihost
        multihost.connect().queue({name!r}).get()
        raise LookupError
    """).wait(SOON_S)
    assert items.get(timeout=SOON_S) == "x"


def test_ctrl_c_ends_waiting_and_loses_nothing(start, client, name):
    program = start(f"""
        import multihost
        items = multihost.connect().queue({name!r})
        try:
            print("waits", flush=True)
            items.get()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(items.get(), flush=True)
    """)
    assert program.stdout.readline() == "waits\n"
    wait_until(lambda: is_waiting(program.pid), "the program waits")
    program.send_signal(signal.SIGINT)
    assert program.stdout.readline() == "interrupted\n"
    client.queue(name).put("x")
    assert program.stdout.readline() == "x\n"


def is_waiting(pid):
    """Whether the main thread sleeps on a lock."""
    return "futex" in Path(f"/proc/{pid}/wchan").read_text()


STAGE = """
    import multihost
    client = multihost.connect()
    source, target = client.queue({name!r} + "-{stage}"), client.queue({name!r} + "-{next}")
    print("runs", flush=True)
    while True:
        target.put(source.get() + 1)
"""


@pytest.mark.faults
def test_a_pipeline_under_kills_gives_each_result_exactly_once(start, client, name):
    count, chance = 600, random.Random(7)
    client.queue(f"{name}-0").put_many(range(0, count * 10, 10))

    def begin(stage):
        program = start(STAGE.format(name=name, stage=stage, next=stage + 1))
        assert program.stdout.readline() == "runs\n"
        return program

    stages = [begin(stage) for stage in (0, 0, 1, 1, 2, 2)]
    results, last = [], client.queue(f"{name}-3")
    while len(results) < count:
        results.append(last.get(timeout=SOON_S))
        if len(results) % (count // 6) == 0:
            position = chance.randrange(len(stages))
            stages[position].kill()
            stages[position] = begin(position // 2)
    assert sorted(results) == [10 * number + 3 for number in range(count)]
    with pytest.raises(queue.Empty):
        last.get(timeout=0.5)


def test_who_waits_when_the_server_is_killed_goes_on_waiting(cluster, client, other, name):
    items = client.queue(name)
    result = []
    taking = threading.Thread(target=lambda: result.append(items.get()))
    taking.start()
    cluster.kill_server()
    cluster.start_server()
    other.queue(name).put("x")
    taking.join(SOON_S)
    assert result == ["x"]


def test_items_survive_the_server(cluster, client, name):
    items = client.queue(name)
    items.put_many(range(100))
    assert items.get() == 0
    cluster.kill_server()
    cluster.start_server()
    assert items.get_many(1000) == list(range(1, 100))


# --- coroutines ----------------------------------------------------------------------------


def test_coroutines_put_take_and_wait(cluster, name):
    async def main():
        async with await AsyncClient.connect(cluster.url, cluster.key) as client:
            items = await client.queue(name)

            async def consume():
                async with items.take() as item:
                    return item

            tasks = [asyncio.create_task(consume()) for _ in range(5)]
            await items.put_many(range(5))
            assert sorted(await asyncio.gather(*tasks)) == list(range(5))
            assert await items.empty()
            with pytest.raises(queue.Empty):
                await items.get(timeout=0.01)

    asyncio.run(main())


def test_a_cancelled_coroutine_swallows_nothing(cluster, name):
    async def main():
        async with await AsyncClient.connect(cluster.url, cluster.key) as client:
            items = await client.queue(name)
            waiting = asyncio.create_task(items.get())
            await items.qsize()
            waiting.cancel()
            await items.put("x")
            assert await items.get(timeout=SOON_S) == "x"

    asyncio.run(main())


def test_a_coroutine_that_raises_leaves_its_item_to_others(cluster, name):
    async def main():
        async with await AsyncClient.connect(cluster.url, cluster.key) as client:
            items = await client.queue(name)
            await items.put("x")

            async def fail():
                raise LookupError(await items.get())

            with pytest.raises(LookupError):
                await asyncio.create_task(fail())
            assert await items.get(timeout=SOON_S) == "x"

    asyncio.run(main())


def test_a_forked_process_connects_anew(client, name):
    items = client.queue(name)
    items.put("x")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if items.get(timeout=SOON_S) == "x" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_block_of_a_queue_that_confirms_at_once_holds_nothing_else_back(client, other, name):
    at_once = client.queue(f"{name}-at-once", confirm="get")
    source, target = client.queue(name), client.queue(f"{name}-results")
    at_once.put("go")
    with at_once.take() as item:
        assert item == "go"
    source.put("x")
    target.put(source.get())
    assert other.queue(f"{name}-results").get(timeout=SOON_S) == "x"
