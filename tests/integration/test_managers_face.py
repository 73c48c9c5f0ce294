"""``multihost.managers`` in one program: what is durable, what is hosted, what is refused."""

import gc
import multiprocessing
import queue
import threading
from multiprocessing import managers as standard

import cloudpickle
import programs
import pytest

import multihost
from multihost import managers
from multihost.managers import calls
from multihost.testing import wait_until
from multihost.testing.ports import free_port


class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, n=1):
        self.value += n
        return self.value

    def fail(self):
        raise KeyError("no such thing")

    def _secret(self):
        return "secret"

    def numbers(self):
        return iter([1, 2, 3])


def new_queue():
    return queue.Queue()


def full_queue():
    full = queue.Queue(1)
    full.put(1)
    return full


def make(base=managers.BaseManager, **registered):
    class Manager(base):
        pass

    for name, function in registered.items():
        Manager.register(name, function)
    return Manager


def local(port=0, host="127.0.0.1"):
    return {"address": (host, port), "authkey": b"abc"}


def test_a_function_that_returns_a_queue_makes_one_for_all_and_a_class_one_for_each():
    with make(shared=new_queue, own=queue.Queue)() as manager:
        manager.shared().put(1)
        assert manager.shared().get(timeout=10) == 1
        manager.own().put(1)
        assert manager.own().empty()


def test_what_is_in_a_queue_already_is_there_for_clients_with_its_bound():
    filled = queue.Queue(3)
    for number in range(2):
        filled.put(number)
    with make(filled=lambda: filled)() as manager:
        proxy = manager.filled()
        assert proxy.qsize() == 2
        proxy.put(2)
        assert proxy.full()
        assert [proxy.get(), proxy.get(), proxy.get()] == [0, 1, 2]


def test_objects_of_users_own_classes_and_durable_queues_live_side_by_side():
    manager = make(Counter=Counter, tasks=new_queue)(**local())
    with manager:
        counter, tasks = manager.Counter(5), manager.tasks()
        assert (counter.add(), counter.add(n=2)) == (6, 8)
        with pytest.raises(KeyError, match="no such thing"):
            counter.fail()
        with pytest.raises(managers.RemoteError):
            counter._callmethod("_secret")
        assert not hasattr(counter, "_secret")
        tasks.put(counter.add())
        assert tasks.get(timeout=5) == 9
        assert manager._number_of_objects() == 2
        del counter
        gc.collect()  # the error's traceback had it
        wait_until(lambda: manager._number_of_objects() == 1)


def test_clients_of_the_standard_library_use_objects_and_queues_of_ours():
    with make(Counter=Counter, tasks=new_queue)(**local()) as manager:
        other = make(standard.BaseManager, Counter=None, tasks=None)(
            address=manager.address, authkey=b"abc"
        )
        other.connect()
        counter, tasks = other.Counter(1), other.tasks()
        tasks.put(counter.add())
        assert manager.tasks().get(timeout=5) == 2


def test_clients_of_ours_use_a_manager_of_the_standard_library():
    with make(standard.BaseManager, Counter=Counter, tasks=queue.Queue)(**local()) as manager:
        other = make(Counter=None, tasks=None)(address=manager.address, authkey=b"abc")
        other.connect()
        assert other.Counter(1).add() == 2
        tasks = other.tasks()
        tasks.put(1)
        assert tasks.get(timeout=5) == 1


def test_shutdown_drops_the_queues_and_an_error_keeps_them():
    port = free_port()
    kind = make(tasks=new_queue, small=full_queue)
    with pytest.raises(queue.Full), kind(**local(port)) as manager:  # noqa: PT012
        manager.tasks().put("kept")
        manager.small().put("too much", block=False)
    with kind(**local(port)) as manager:
        assert manager.tasks().qsize() == 1
    with kind(**local(port)) as manager:
        assert manager.tasks().qsize() == 0


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1"])
def test_every_form_of_address_is_taken(host):
    port = free_port()
    with make(tasks=new_queue)(**local(port, host)) as manager:
        assert manager.address[1] == port
        other = make(tasks=None)(**local(port))
        other.connect()
        other.tasks().put(1)
        assert manager.tasks().get(timeout=5) == 1


def test_port_0_takes_a_free_one_and_says_which():
    with make(Counter=Counter)(**local()) as manager:
        assert manager.address[1] != 0


def test_an_address_that_is_taken_and_a_wrong_key_are_refused():
    with make(tasks=new_queue)(**local()) as manager:
        with pytest.raises(OSError, match="use connect"):
            make(tasks=new_queue)(**local(manager.address[1])).start()
        with pytest.raises(multiprocessing.AuthenticationError):
            make()(address=manager.address, authkey=b"wrong").connect()
        with pytest.raises(multihost.AuthenticationError, match="use the same on both sides"):
            make()(address=manager.address, authkey=b"wrong").connect()
    with pytest.raises(ConnectionRefusedError, match="start it there first, or correct"):
        make()(address=manager.address, authkey=b"abc").connect()


@pytest.mark.parametrize("base", [standard.BaseManager, managers.BaseManager])
def test_what_a_manager_has_not_registered_is_refused_and_becomes_no_queue(base):
    with make(tasks=new_queue)(**local()) as manager:
        client = make(base, task=None)(address=manager.address, authkey=b"abc")
        client.connect()
        with pytest.raises(standard.RemoteError, match=r"'task' is not registered .* has tasks"):
            client.task()


@pytest.mark.parametrize("base", [standard.BaseManager, managers.BaseManager])
def test_who_waits_at_a_manager_that_ends_gets_eof(base, monkeypatch):
    monkeypatch.setattr(calls, "PATIENCE_S", 0.2)
    with make(tasks=new_queue)(**local()) as manager:
        client = make(base, tasks=None)(address=manager.address, authkey=b"abc")
        client.connect()
        tasks = client.tasks()
        threading.Timer(0.5, manager.shutdown).start()
        with pytest.raises(EOFError):
            tasks.get()


@pytest.mark.parametrize("base", [standard.BaseManager, managers.BaseManager])
def test_a_manager_may_be_shut_down_twice(base):
    with make(base, tasks=new_queue)(**local()) as manager:
        manager.tasks().put(1)
        manager.shutdown()
        manager.shutdown()
    with pytest.raises(OSError, match="refused"):
        make(base)(address=manager.address, authkey=b"abc").connect()


def test_who_asks_a_manager_that_has_ended_gets_eof(monkeypatch):
    monkeypatch.setattr(calls, "PATIENCE_S", 0.2)
    with make(tasks=new_queue)(**local()) as manager:
        tasks = manager.tasks()
        tasks.put(1)
    with pytest.raises(EOFError, match="hung up, and could not be reached"):
        tasks.qsize()


@pytest.mark.parametrize("base", [standard.BaseManager, managers.BaseManager])
def test_a_server_in_this_process_shares_the_programs_own_queue(base):
    mine = queue.Queue()
    server = make(tasks=lambda: mine)(**local()).get_server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = make(base, tasks=None)(address=server.address, authkey=b"abc")
    client.connect()
    tasks = client.tasks()
    tasks.put(1)
    assert mine.get(timeout=5) == 1
    mine.put(2)
    assert tasks.get(timeout=5) == 2
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_proxies_in_proxies_iterators_and_namespaces_work():
    with managers.SyncManager() as manager:
        inner = manager.list([1])
        outer = manager.dict(inner=inner)
        outer["inner"].append(2)
        assert list(inner) == [1, 2]
        assert sorted(outer.keys()) == ["inner"]
        assert list(outer) == ["inner"]
        space = manager.Namespace(x=1)
        space.y = 2
        assert (space.x, space.y) == (1, 2)
        count = manager._number_of_objects()
        del inner
        assert outer["inner"][0] == 1
        assert manager._number_of_objects() <= count


def test_an_initializer_runs_first_and_must_be_callable():
    with managers.SyncManager() as outer:
        seen = outer.list()
        inner = managers.SyncManager()
        with pytest.raises(TypeError):
            inner.start(1)
        inner.start(seen.append, (1,))
        inner.shutdown()
        assert list(seen) == [1]


def test_a_managers_states_are_those_of_the_standard_library():
    manager = managers.SyncManager()
    with pytest.raises(AssertionError):
        manager.dict()
    manager.start()
    with pytest.raises(multiprocessing.ProcessError, match="Already started"):
        manager.start()
    manager.shutdown()
    manager.join()
    with pytest.raises(multiprocessing.ProcessError, match="has shut down"):
        manager.start()


def take(address, took):
    manager = make(tasks=None)(address=address, authkey=b"abc")
    manager.connect()
    took.send(manager.tasks().get(timeout=10))
    raise SystemExit(1)


def test_a_child_that_fails_between_take_and_put_gives_its_item_back():
    with make(tasks=new_queue)(**local()) as manager:
        tasks = manager.tasks()
        tasks.put("item")
        here, there = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(
            target=take, args=(manager.address, there)
        )
        child.start()
        assert here.recv() == "item"
        child.join()
        wait_until(lambda: tasks.qsize() == 1, "the item waits again")
        here.close()
        there.close()


def take_and_end(manager, fails):
    manager.tasks().get(timeout=10)
    if fails:
        raise ValueError("on purpose")


@pytest.mark.parametrize(("fails", "left"), [(False, 0), (True, 1)])
def test_what_a_thread_took_last_is_done_with_unless_it_fails(fails, left, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with make(tasks=new_queue)(**local()) as manager:
        tasks = manager.tasks()
        tasks.put("item")
        thread = threading.Thread(target=take_and_end, args=(manager, fails))
        thread.start()
        thread.join()
        manager.tasks().put("another")
        wait_until(lambda: tasks.qsize() == 1 + left, "the item is decided about")


def test_queues_that_are_made_for_each_call_are_one_and_are_filled_once():
    with make(full=full_queue, other=full_queue, simple=queue.SimpleQueue)(**local()) as manager:
        for _ in range(3):
            assert manager.full().qsize() == 1
        assert manager.other().get(timeout=5) == 1
        manager.other().task_done()
        assert manager.other().empty()


def test_a_manager_that_is_passed_on_makes_objects_and_is_not_ended_there():
    class Tagged(managers.SyncManager):
        def __init__(self, tag):
            super().__init__(**local())
            self.tag = tag

    with pytest.raises(TypeError, match="not started"):
        cloudpickle.dumps(Tagged("a"))
    with Tagged("a") as manager:
        copy = cloudpickle.loads(cloudpickle.dumps(manager))
        assert (copy.tag, copy.address) == ("a", manager.address)
        shared = copy.list([1])
        copy.shutdown()
        assert list(manager.list(shared)) == [1]


def test_a_process_gets_an_object_that_holds_a_manager(tmp_path):
    out, _ = programs.run(
        tmp_path,
        """
        import multihost as multiprocessing

        class Board:
            def __init__(self):
                self.manager = multiprocessing.Manager()
                self.names = self.manager.list()

        def sign(board):
            board.names.append(len(board.manager.dict(a=1)))

        if __name__ == "__main__":
            board = Board()
            process = multiprocessing.Process(target=sign, args=(board,))
            process.start()
            process.join()
            print(board.names, process.exitcode)
        """,
    )
    assert out == "[1] 0\n"


def test_children_meet_objects_of_main_that_a_manager_keeps_and_bring_it_theirs(tmp_path):
    out, _ = programs.run(
        tmp_path,
        """
        import pickle

        import multihost as multiprocessing

        class Job:
            def __init__(self, number):
                self.number = number

            def run(self):
                return Finished(double(self.number))

        class Finished(Job):
            def run(self):
                return self.number

        def double(number):
            return 2 * number

        def work(jobs, results, shared):
            results.put(jobs.get().run())
            shared["function"](1)

        def work_in_pool(jobs):
            return jobs.get().run()

        def copy(number):
            return pickle.loads(pickle.dumps(Finished(number))).run()

        if __name__ == "__main__":
            manager = multiprocessing.Manager()
            jobs, results, shared = manager.Queue(), manager.Queue(), manager.dict()
            shared["function"] = double
            for number in range(3):
                jobs.put(Job(number))
            process = multiprocessing.Process(target=work, args=(jobs, results, shared))
            process.start()
            process.join()
            print(process.exitcode, results.get().run())
            with multiprocessing.Pool(1) as pool:
                print([pool.apply(work_in_pool, (jobs,)).run() for _ in range(2)])
                print(pool.apply(copy, (5,)))
        """,
    )
    assert out.splitlines() == ["0 0", "[2, 4]", "5"]
