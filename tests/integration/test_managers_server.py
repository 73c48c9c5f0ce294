"""Scripts with the standard library's managers, unchanged, at ``multihost server --managers``."""

import os
import pickle
import queue
import socket
import threading
from multiprocessing import AuthenticationError, connection
from multiprocessing.managers import BaseManager, RemoteError, SyncManager, dispatch

import pytest
from managers_bench import VERSIONS, Server, pythons

from multihost import managers as ours
from multihost.testing import wait_until

PYTHONS = pythons()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """A server for tests that leave it as it is, and use queues that no other uses."""
    server = Server(tmp_path_factory.mktemp("lasting"))
    yield server
    server.close()


def connect(port, *names, key=b"abc", base=BaseManager):
    class Manager(base):
        pass

    for name in names:
        Manager.register(name)
    manager = Manager(address=("127.0.0.1", port), authkey=key)
    manager.connect()
    return manager


def drain(of):
    items = []
    while True:
        try:
            items.append(of.get(timeout=0.3))
        except queue.Empty:
            return items


@pytest.mark.parametrize("version", VERSIONS)
def test_scripts_of_any_python_share_durable_queues(server, version):
    if version not in PYTHONS:
        pytest.skip(f"Python {version} is not installed")
    python = PYTHONS[version]
    server.run("producer", *map(str, range(10)), python=python).end()
    consumer = server.run("consumer", python=python)
    consumer.wait_for("put", 10)
    reader = server.run("reader", "results", "10", python=python)
    reader.end()
    assert reader.results("read ") == sorted(str(n * 2) for n in range(10))


@pytest.mark.parametrize("typeid", ["dict", "list", "Lock", "Event", "Namespace", "Pool"])
def test_what_is_no_queue_is_refused_and_says_who_has_it(lasting, typeid):
    manager = connect(lasting.port, base=SyncManager)
    with pytest.raises(
        RemoteError, match=rf"{typeid}\(\) can't be served here.*multihost.managers"
    ):
        getattr(manager, typeid)()


def test_an_item_whose_consumer_is_killed_before_it_puts_goes_to_another(server):
    manager = connect(server.port, "tasks", "results")
    manager.tasks().put("fall")
    first = server.run("consumer")
    first.wait_for("took fall")
    first.kill()
    assert manager.tasks().get(timeout=10) == "fall"
    assert manager.results().empty()


def test_what_was_put_for_an_item_is_kept_and_the_item_is_not_repeated(server):
    manager = connect(server.port, "tasks", "results")
    tasks, results = manager.tasks(), manager.results()
    tasks.put(21)
    consumer = server.run("consumer")
    consumer.wait_for("put")
    consumer.kill()
    assert results.get(timeout=10) == 42
    assert drain(tasks) == []
    assert drain(results) == []


def test_a_consumer_that_is_killed_while_it_waits_swallows_nothing(server):
    tasks = connect(server.port, "tasks").tasks()
    consumer = server.run("consumer")
    consumer.wait_for("ready")
    tasks.put(1)
    consumer.wait_for("put")
    consumer.kill()
    tasks.put(2)
    assert tasks.get(timeout=10) == 2


def test_a_reader_that_ends_in_order_leaves_nothing_to_be_read_twice(server):
    tasks = connect(server.port, "tasks").tasks()
    for number in range(6):
        tasks.put(number)
    first, second = (server.run("reader", "tasks", "3").end() for _ in range(2))
    assert first == ["read 0", "read 1", "read 2"]
    assert second == ["read 3", "read 4", "read 5"]


def test_a_reader_that_is_killed_gives_back_what_it_read_last(server):
    tasks = connect(server.port, "tasks").tasks()
    for number in range(3):
        tasks.put(number)
    reader = server.run("reader", "tasks", "2", "stay")
    reader.wait_for("read 1")
    reader.kill()
    wait_until(lambda: tasks.qsize() == 2, "the item waits again")
    assert drain(tasks) == [1, 2]


def test_the_none_that_ended_a_worker_ends_no_other(server):
    manager = connect(server.port, "tasks", "results")
    tasks, results = manager.tasks(), manager.results()
    for numbers in ([1, 2, 3], [4, 5, 6]):
        crew = server.run("crew")
        for item in (*numbers, None, None):
            tasks.put(item)
        assert crew.end() == ["done"]
        assert sorted(results.get(timeout=10) for _ in numbers) == [n * n for n in numbers]
    tasks.put("last")
    assert drain(tasks) == ["last"]


def test_queues_outlive_the_server(server):
    tasks = connect(server.port, "tasks").tasks()
    for number in range(100):
        tasks.put(number)
    tasks.get()
    server.kill()
    server.start()
    # Another process: the standard library keeps its dead connection in this one.
    reader = server.run("reader", "tasks", "100")
    assert reader.end() == [f"read {number}" for number in range(100)]


def test_our_proxies_go_on_in_the_same_thread_and_nothing_is_read_twice(server):
    manager = connect(server.port, "tasks", base=ours.BaseManager)
    tasks = manager.tasks()
    for number in range(3):
        tasks.put(number)
    assert tasks.get(timeout=5) == 0
    server.kill()
    server.start()
    # It went back when the server fell, and is known again.
    assert [tasks.get(timeout=5), tasks.get(timeout=5)] == [1, 2]
    assert tasks.empty()


def test_what_is_put_for_an_item_that_was_lost_is_void_and_the_item_is_done_again(server):
    manager = connect(server.port, "tasks", "results", base=ours.BaseManager)
    tasks, results = manager.tasks(), manager.results()
    tasks.put(1)
    assert tasks.get(timeout=5) == 1
    server.kill()
    server.start()
    results.put("void")
    assert tasks.get(timeout=5) == 1
    results.put("made again")
    assert results.get(timeout=5) == "made again"
    assert results.empty()


def test_what_our_client_puts_while_the_server_falls_is_there_once(server):
    tasks = connect(server.port, "tasks", base=ours.BaseManager).tasks()
    ended = threading.Event()

    def put():
        for number in range(4000):
            tasks.put(number)
        ended.set()

    thread = threading.Thread(target=put)
    thread.start()
    watched = connect(server.port, "tasks", base=ours.BaseManager).tasks()
    for count in (500, 1500, 2500):
        wait_until(lambda count=count: watched.qsize() > count, f"{count} are there")
        server.kill()
        server.start()
    thread.join(30)
    assert ended.is_set()
    assert [watched.get() for _ in range(4000)] == list(range(4000))
    assert watched.empty()


def test_an_item_that_cannot_be_pickled_is_refused_and_the_next_is_put(server):
    tasks = connect(server.port, "tasks", base=ours.BaseManager).tasks()
    tasks.put(1)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        tasks.put(threading.Lock())
    tasks.put(2)
    server.kill()
    server.start()
    tasks.put(3)
    assert [tasks.get(timeout=5) for _ in range(3)] == [1, 2, 3]


def test_large_items_and_bounded_queues(lasting):
    manager = connect(lasting.port, "large", "bounded")
    tasks, small = manager.large(), manager.bounded(2)
    large = os.urandom(3 << 20)
    for item in (large, [large[:200_000], {"a": large[:100_000]}]):
        tasks.put(item)
        assert tasks.get(timeout=10) == item
    small.put(1)
    small.put(2)
    assert small.full()
    with pytest.raises(queue.Full):
        small.put(3, block=False)
    with pytest.raises(queue.Full):
        small.put(3, timeout=0.05)
    assert small.get() == 1
    small.put(3)


def test_what_was_put_stays_put_when_another_queue_is_full(lasting):
    worker = connect(lasting.port, "some", "made", "full")
    tasks, results, small = worker.some(), worker.made(), worker.full(1)
    small.put("all there is room for")
    tasks.put("one")
    assert tasks.get(timeout=10) == "one"
    results.put("made of one")
    with pytest.raises(queue.Full):
        small.put("log", block=False)
    assert connect(lasting.port, "made").made().get(timeout=10) == "made of one"


def test_task_done_and_join_count_as_in_the_standard_library(lasting):
    tasks = connect(lasting.port, "counted").counted()
    tasks.put(1)
    tasks.put(2)
    for _ in range(2):
        tasks.get()
        tasks.task_done()
    tasks.join()
    with pytest.raises(ValueError, match="too many times"):
        tasks.task_done()


def test_a_wrong_key_and_a_silent_port_are_refused(server):
    with pytest.raises(AuthenticationError):
        connect(server.port, key=b"wrong")
    with pytest.raises(AuthenticationError):
        connect(server.port, key=b"wrong", base=ours.BaseManager)
    server.kill()
    with pytest.raises(ConnectionRefusedError):
        connect(server.port, base=ours.BaseManager)
    server.start()


@pytest.mark.parametrize("base", [BaseManager, ours.BaseManager])
def test_a_request_beyond_the_limit_is_answered_and_the_connection_goes_on(tmp_path, base):
    server = Server(tmp_path, options=("--managers-max-message", "1MiB"))
    try:
        tasks = connect(server.port, "tasks", base=base).tasks()
        with pytest.raises(RemoteError, match="--managers-max-message"):
            tasks.put(bytes(3 << 20))
        tasks.put(bytes(1 << 19))
        assert tasks.get() == bytes(1 << 19)
        assert tasks.empty()
    finally:
        server.close()


def test_tenants_see_only_their_own_queues(tmp_path):
    server = Server(tmp_path, keys=(("", "abc"), ("blue", "secret")))
    try:
        plain = connect(server.port, "tasks").tasks()
        blue = connect(server.port, "tasks", key=b"secret", base=ours.BaseManager).tasks()
        plain.put("plain")
        blue.put("blue")
        assert (drain(plain), drain(blue)) == (["plain"], ["blue"])
    finally:
        server.close()


def test_clients_cannot_shut_the_server_down(lasting):
    wire = connection.Client(("127.0.0.1", lasting.port), authkey=b"abc")
    with pytest.raises(RemoteError, match="serves others"):
        dispatch(wire, None, "shutdown")
    wire.close()
    connect(lasting.port)


# --- hostile bytes ------------------------------------------------------------------------------


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_harmful_pickle_runs_nothing_on_the_server(lasting, tmp_path):
    path = tmp_path / "canary"
    harm = Canary(path)
    tasks = connect(lasting.port, "harmful").harmful()
    tasks.put(harm)
    tasks.put(1, timeout=5)
    for request in [
        harm,
        (None, "create", ("tasks", harm), {"x": harm}),
        (harm, "put", (harm,), {}),
        (None, "incref", (harm,)),
        (None, "get_methods", (harm,), {}),
        (None, "debug_info", (harm,), {}),
        [harm] * 4,
    ]:
        wire = connection.Client(("127.0.0.1", lasting.port), authkey=b"abc")
        wire.send_bytes(pickle.dumps(request))
        wire.recv_bytes()
        wire.close()
    assert tasks.qsize() == 2
    assert not path.exists()
    tasks.get()  # it is for whoever takes it
    assert path.exists()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff\x7f" + b"\xff" * 7,
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x10" + b"x" * 16,
        os.urandom(4096),
    ],
)
def test_strangers_are_hung_up_on_and_the_others_served(lasting, sent):
    with socket.create_connection(("127.0.0.1", lasting.port), timeout=20) as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        while wire.recv(4096):
            pass
    connect(lasting.port)
    assert lasting.server.poll() is None


def test_nonsense_of_friends_is_answered_or_hung_up_on(lasting):
    for message in (b"", b"\x80\x04.", b"\x80\x04N.", os.urandom(100), b"(" * 10_000):
        wire = connection.Client(("127.0.0.1", lasting.port), authkey=b"abc")
        dispatch(wire, None, "accept_connection", ("me",))
        wire.send_bytes(message)
        assert wire.recv()[0] == "#TRACEBACK"
        wire.close()
    assert lasting.server.poll() is None
