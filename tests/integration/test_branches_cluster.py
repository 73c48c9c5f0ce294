"""Branches on a real server: what they carry, what cuts them, and what nobody may do with them."""

import contextlib
import os
import secrets
import threading

import programs
import pytest

from multihost import Client
from multihost.synchronize import Lock
from multihost.testing import Cluster, wait_until
from multihost.testing.stranger import Stranger
from multihost.wire import act as a
from multihost.wire import message as m
from multihost.wire.keys import KeyRole

SOON_S = 20
ITEMS = 600

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=0) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster.url, cluster.key) as client:
        yield client


@pytest.fixture
def name():
    return secrets.token_hex(4)


def branch(client, items):
    """Make calls until the calling thread has a branch; its taker."""
    taker = client.session.calls.threads.mine()

    def has_branch():
        items.qsize()
        return taker.has_branch

    wait_until(has_branch, "the thread has a branch")
    return taker


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def result():
        thread.join(SOON_S)
        return results[0]

    return result


def waiting_getter(client, items):
    """A thread that waits for an item at its branch; how to get its result."""
    ready = threading.Event()

    def work():
        taker = branch(client, items)
        ready.set()
        item = items.get()
        return item, taker

    result = in_thread(work)
    assert ready.wait(SOON_S)
    return result


def is_waited_at(cluster, name):
    """Whether a taker waits for an item of the queue."""
    return any(q["queue"] == name and q["takers"] for q in cluster.get("/api/item-queues"))


# --- what goes by branches ---------------------------------------------------------------


def test_items_and_locks_work_by_branches_as_ever(client, name):
    items, lock = client.queue(name), Lock(client=client)
    taker = branch(client, items)
    for number in range(50):
        with lock:
            items.put(number)
        assert items.get() == number
    items.put(bytes(1 << 20))
    assert items.get() == bytes(1 << 20)
    assert taker.has_branch


def test_branches_speak_tls_with_who_has_the_certificate(name):
    with Cluster(workers=0, is_tls=True) as cluster, Client(cluster.join.text()) as client:
        items = client.queue(name)
        taker = branch(client, items)
        for number in range(50):
            items.put(number)
            assert items.get() == number
        assert taker.has_branch


def test_every_item_passes_once_however_often_branches_are_cut(cluster, client, name):
    source, target = client.queue(name), client.queue(name + "-out")
    source.put_many([*range(ITEMS), None, None, None])
    over, has_begun = threading.Event(), threading.Event()
    takers = []

    def work():
        takers.append(client.session.calls.threads.mine())
        while not has_begun.is_set():
            source.qsize()
        while (item := source.get()) is not None:
            target.put(item)

    def cut():
        """Now and then end a branch, at whatever moment that is."""
        while not over.wait(0.002):
            for taker in takers:
                if taker.has_branch:
                    has_begun.set()
                taker.cut_branch()

    workers = [in_thread(work) for _ in range(3)]
    cutter = in_thread(cut)
    passed = [target.get(timeout=SOON_S) for _ in range(ITEMS)]
    over.set()
    cutter()
    for worker in workers:
        worker()
    assert sorted(passed) == list(range(ITEMS))
    assert target.empty()


# --- ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_who_waits_at_a_branch_when_the_server_ends_goes_on_waiting(cluster, client, name, end):
    items = client.queue(name)
    result = waiting_getter(client, items)
    getattr(cluster.server, end)()
    cluster.server.wait(SOON_S)
    cluster.start_server()
    with Client(cluster.url, cluster.key) as other:
        other.queue(name).put("x")
        item, _ = result()
        assert item == "x"
        assert other.queue(name).empty()


def test_a_forked_process_leaves_its_parents_branch_alone(client, name):
    items = client.queue(name)
    taker = branch(client, items)
    items.put("x")
    pid = os.fork()
    if pid == 0:
        ours = client.session.calls.threads.existing()
        is_ok = items.get(timeout=SOON_S) == "x" and not (ours is taker and ours.has_branch)
        os._exit(0 if is_ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [items.qsize() for _ in range(20)] == [0] * 20
    assert taker.has_branch


def test_ctrl_c_at_a_branch_ends_waiting_and_loses_nothing(cluster, client, name, tmp_path):
    source = f"""
        import os, signal, threading
        import multihost
        client = multihost.connect()
        items = client.queue({name!r})
        taker = client.session.calls.threads.mine()
        while not taker.has_branch:
            items.qsize()
        interrupted = 0
        for _ in range(40):
            timer = threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                items.get()
            except KeyboardInterrupt:
                interrupted += 1
            timer.join()
        print(interrupted, flush=True)
        print(sorted(items.get() for _ in range(50)), flush=True)
    """
    with (
        programs.start(tmp_path, source, environment=cluster.environment, stderr=None) as program,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(program.kill)
        assert program.stdout.readline() == "40\n"
        client.queue(name).put_many(range(50))
        assert program.stdout.readline() == f"{list(range(50))}\n"
        assert program.wait(SOON_S) == 0
    wait_until(client.queue(name).empty, "nothing is left")


def test_a_program_that_ends_with_a_thread_at_its_branch_ends_at_once(
    cluster, client, name, tmp_path
):
    source = f"""
        import threading
        import multihost
        client = multihost.connect()
        items = client.queue({name!r})
        ready = threading.Event()
        def wait():
            taker = client.session.calls.threads.mine()
            while not taker.has_branch:
                items.qsize()
            ready.set()
            items.get()
        threading.Thread(target=wait, daemon=True).start()
        assert ready.wait(20)
        print("ends")
    """
    assert programs.run(tmp_path, source, environment=cluster.environment) == ("ends\n", "")
    client.queue(name).put("x")
    assert client.queue(name).get(timeout=SOON_S) == "x"


# --- strangers -----------------------------------------------------------------------------


class Main(Stranger):
    """A client's session, with the ticket of its branches."""

    def __init__(self, cluster, key=None):
        super().__init__(cluster.url, key or cluster.key)
        self.uid = os.urandom(16)
        self.upgrade()
        self.prove()
        self.send(m.Attach(self.uid))
        (self.welcome,) = self.receive()

    def ask(self, call):
        self.send(call)
        return [each.result for each in self.receive()]


def side(cluster, main, *, ticket=None, uid=None, key=None):
    """A connection that asks to be a branch, and what it is answered."""
    stranger = Stranger(cluster.url, key or cluster.key)
    stranger.upgrade()
    stranger.prove()
    stranger.send(m.Branch(uid or main.uid, main.welcome.ticket if ticket is None else ticket))
    (answer,) = stranger.receive()
    return stranger, answer


def test_a_branch_takes_the_ticket_of_an_open_session_and_its_key(cluster):
    other_key = cluster.make_key(KeyRole.SUBMIT).encode()
    with Main(cluster) as main, Main(cluster) as other:
        for wrong in (
            {"ticket": b""},
            {"ticket": other.welcome.ticket},
            {"uid": os.urandom(16)},
            {"uid": other.uid},
            {"key": other_key},
        ):
            stranger, answer = side(cluster, main, **wrong)
            assert answer.code is m.DenialCode.SESSION
            assert stranger.receive() == []
            stranger.close()
        stranger, answer = side(cluster, main)
        assert isinstance(answer, m.Branched)
        stranger.close()


def test_a_key_that_may_not_call_makes_no_branch(cluster):
    key = cluster.make_key(KeyRole.VIEW).encode()
    with Main(cluster, key) as main:
        stranger, answer = side(cluster, main, key=key)
        assert answer.code is m.DenialCode.ROLE
        assert "branching a client's session takes" in answer.message
        stranger.close()


MEASURE = a.MeasureQueue(0)


@pytest.mark.parametrize(
    "message", [m.Beat(1), m.Withdraw(1, 1), m.EndTaker(1), m.Goodbye(), m.Cancel(1)], ids=repr
)
def test_a_branch_carries_calls_and_nothing_else(cluster, message):
    with Main(cluster) as main:
        stranger, _ = side(cluster, main)
        stranger.send(message)
        assert stranger.receive() == []
        stranger.close()
        assert main.is_served()


def test_a_call_is_taken_from_a_branch_only_if_it_is_its_takers_next(cluster):
    with Main(cluster) as main:
        assert main.ask(m.Call(1, 5, MEASURE))
        for number, is_answered in ((6, True), (6, False), (5, False)):
            stranger, _ = side(cluster, main)
            stranger.send(m.Call(1, number, MEASURE))
            assert bool(stranger.receive()) is is_answered
            stranger.close()
        stranger, _ = side(cluster, main)
        stranger.send(m.Call(2, 1, MEASURE))  # a taker that was never heard of
        assert stranger.receive() == []
        stranger.close()


def test_a_call_that_comes_again_takes_its_answer_along_from_the_branch(cluster, name):
    with Main(cluster) as main:
        (opened,) = main.ask(m.Call(1, 1, a.OpenQueue(name)))
        stranger, _ = side(cluster, main)
        stranger.send(m.Call(1, 2, a.Exchange(take=opened.queue)))
        wait_until(lambda: is_waited_at(cluster, name), "the take waits")
        main.send(m.Call(1, 2, a.Exchange(take=opened.queue)))
        assert main.is_served()
        put = a.Exchange(puts=[a.Put(opened.queue, [b"x"])])
        main.send(m.Call(2, 1, put))
        answers = {}
        while len(answers) < 2:
            answers.update({each.taker: each.result for each in main.receive()})
        assert [item.payload for item in answers[1].items] == [b"x"]
        stranger.close()


def test_branches_end_with_the_connection_of_their_session(cluster):
    with Main(cluster) as main:
        stranger, _ = side(cluster, main)
        ticket, uid = main.welcome.ticket, main.uid
    assert stranger.receive() == []
    stranger.close()
    with Stranger(cluster.url, cluster.key).enter(uid):
        with Main(cluster) as helper:
            late, answer = side(cluster, helper, ticket=ticket, uid=uid)
        assert answer.code is m.DenialCode.SESSION
        late.close()


def test_a_session_has_only_so_many_branches(cluster):
    from multihost.server.branches import MAX_BRANCHES

    with Main(cluster) as main, contextlib.ExitStack() as stack:
        for _ in range(MAX_BRANCHES):
            stranger, answer = side(cluster, main)
            stack.callback(stranger.close)
            assert isinstance(answer, m.Branched)
        stranger, answer = side(cluster, main)
        stack.callback(stranger.close)
        assert answer.code is m.DenialCode.LIMIT
        assert "max_branches" in answer.message
