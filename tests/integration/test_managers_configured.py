"""Managers of a program that has a server configured: their queues are the server's."""

import os
import queue
import signal
import socket
import sys
import threading
import weakref
from multiprocessing import managers as standard
from pathlib import Path

import pytest
from cli_runner import Shell
from managers_bench import Stage

import multihost
from multihost import managers
from multihost.managers import calls
from multihost.testing import Cluster, wait_until
from multihost.testing.ports import free_port


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, python_path=[str(Path(__file__).parent)]) as cluster:
        yield cluster


@pytest.fixture
def stage(tmp_path, cluster):
    stage = Stage(tmp_path)
    stage.environment |= cluster.environment
    yield stage
    stage.close()


@pytest.fixture
def configured(cluster, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)


def new_queue():
    return queue.Queue()


def name_of(typeid, port):
    """The server's name for a queue of a manager at that port of this machine."""
    return f"127.0.0.1:{port}@{socket.gethostname()}/{typeid}"


def manager_of(typeid, port):
    class Manager(managers.BaseManager):
        pass

    Manager.register(typeid, callable=new_queue)
    return Manager(address=("127.0.0.1", port), authkey=b"abc")


def squares(master):
    put = sorted(int(line.split()[1]) for line in master.lines if line.startswith("put "))
    return sorted(f"{n} * {n} = {n * n}" for n in put)


def test_a_killed_master_finds_its_queues_on_the_server(stage, cluster):
    first = stage.run("master", ours=True)
    first.wait_for("waiting")
    name = name_of("get_task_queue", stage.port)
    with multihost.connect(cluster.url, cluster.key) as client:
        wait_until(lambda: client.queue(name).qsize() == 10, "ten tasks are stored")
        first.kill()
        second = stage.run("master", ours=True)
        second.wait_for("waiting")
        stage.run("worker", python=sys.executable)
        second.end()
    assert second.results() == squares(first)


def test_a_native_client_and_a_managers_client_share_a_queue(stage, cluster):
    god = stage.run("god", ours=True)
    god.wait_for("ready")
    consumer = stage.run("consumer")
    consumer.wait_for("ready")
    with multihost.connect(cluster.url, cluster.key) as client:
        tasks = client.queue(name_of("tasks", stage.port))
        tasks.put(20)
        tasks.put(21)
    wait_until(lambda: god.results() == ["40", "42"], f"two results in {god.lines}")


def in_child(proxy, ends):
    proxy["seen"] = os.getpid()
    ends.put("done")


def test_proxies_work_in_tasks_of_workers(configured):
    with managers.SyncManager() as manager:
        shared, ends = manager.dict(), manager.Queue()
        process = multihost.Process(target=in_child, args=(shared, ends))
        process.start()
        assert ends.get(timeout=20) == "done"
        process.join()
        assert shared["seen"] == process.pid


def test_a_queue_that_was_deleted_is_made_anew(configured):
    port = free_port()
    with manager_of("deleted", port) as manager:
        proxy = manager.deleted()
        proxy.put(1)
        with multihost.connect() as client:
            client.queue(name_of("deleted", port)).drop()
        with pytest.raises(managers.RemoteError):
            proxy.get(timeout=1)
        proxy.put(2)
        assert proxy.get(timeout=5) == 2


def test_managers_at_two_addresses_have_two_queues_of_one_name(configured):
    with manager_of("same", free_port()) as one, manager_of("same", free_port()) as other:
        one.same().put("one's")
        other.same().put("other's")
        assert [one.same().get(timeout=5), other.same().get(timeout=5)] == ["one's", "other's"]
        assert one.same().empty()


def test_a_manager_that_nobody_finds_again_leaves_nothing_behind(configured, cluster):
    before = cluster.get("/api/item-queues")
    with manager_of("private", 0) as one, manager_of("private", 0) as other:
        one.private().put(1)
        assert other.private().empty()
        assert cluster.get("/api/item-queues") == before
    assert cluster.get("/api/item-queues") == before


def ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("base", [standard.BaseManager, managers.BaseManager])
def test_who_waits_at_a_manager_that_ends_gets_eof_and_the_queue_is_gone(
    base, configured, cluster, monkeypatch
):
    monkeypatch.setattr(calls, "PATIENCE_S", 0.2)
    with manager_of("ending", 0) as manager:

        class Client(base):
            pass

        Client.register("ending")
        client = Client(address=manager.address, authkey=b"abc")
        client.connect()
        waits = client.ending()
        waits.qsize()
        threading.Timer(0.5, manager.shutdown).start()
        with pytest.raises(EOFError):
            waits.get()
    shown = Shell(**cluster.environment).json("queues")
    assert not [each for each in shown if each["queue"].endswith("/ending")]


def test_an_initializer_changes_no_signals_of_the_program(configured):
    before = signal.getsignal(signal.SIGINT)
    manager = managers.SyncManager()
    manager.start(ignore_interrupts)
    assert signal.getsignal(signal.SIGINT) is before
    manager.shutdown()


def take_one(proxy, fails):
    item = proxy.get(timeout=10)
    if fails:
        raise ValueError(item)
    return item


class Large:
    """Something of which one wants to know whether it is still in memory."""

    made = weakref.WeakSet()

    def __setstate__(self, state):
        self.made.add(self)

    def __getstate__(self):
        return {"kept": True}


def test_a_manager_of_threads_keeps_nothing_of_a_request_that_was_answered(configured):
    with managers.SyncManager() as manager:
        shared = manager.list()
        shared.append(Large())
        assert len(Large.made) == 1
        shared.pop()
        wait_until(lambda: not Large.made, "what was taken from the list is forgotten")


def test_what_a_task_took_is_done_with_if_it_ends_well(configured):
    port = free_port()
    with manager_of("for_tasks", port) as manager, multihost.Pool(2) as pool:
        items = manager.for_tasks()
        for number in range(2):
            items.put(number)
        with pytest.raises(ValueError, match="0"):
            pool.apply(take_one, (items, True))
        assert pool.apply(take_one, (items, False)) == 0
        assert pool.apply(take_one, (items, False)) == 1
        with multihost.connect() as client:
            left = client.queue(name_of("for_tasks", port))
            wait_until(lambda: left.qsize() == 0, "nothing is left")
        assert items.empty()


def test_what_was_put_for_an_item_before_a_full_queue_is_there_once(configured):
    class Manager(managers.BaseManager):
        pass

    for typeid, size in (("tasks", 0), ("results", 0), ("small", 1)):
        Manager.register(typeid, callable=lambda size=size: queue.Queue(size))
    with Manager(address=("127.0.0.1", free_port()), authkey=b"abc") as manager:
        tasks, results, small = manager.tasks(), manager.results(), manager.small()
        for item in ("one", "two"):
            tasks.put(item)
        small.put("all there is room for")
        assert tasks.get(timeout=10) == "one"
        results.put("made of one")
        with pytest.raises(queue.Full):
            small.put("log", block=False)
        assert tasks.get(timeout=10) == "two"
        assert results.get(timeout=10) == "made of one"
        for _ in range(2):  # what was to go out by itself waits behind the first
            with pytest.raises(queue.Empty):
                results.get(timeout=0.2)
