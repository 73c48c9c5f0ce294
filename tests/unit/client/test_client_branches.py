"""Branches of threads, against a server that answers and hangs up when a test tells it to."""

import math
import os
import signal
import threading
from types import SimpleNamespace
from unittest import mock

import pytest
from test_client_calls import calls, grant, in_thread, opened, takes

from multihost.client import branches
from multihost.errors import ConnectionLost
from multihost.testing import wait_until
from multihost.wire import act as a
from multihost.wire import message as m

TICKET = b"a ticket for tests"


def measured(call):
    """As ``opened``; a queue's size is the number of the call that asks for it."""
    if isinstance(call.act, a.MeasureQueue):
        return a.Measured([call.number, 0, 0, 0])
    return opened(call)


@pytest.fixture(autouse=True)
def _nothing_is_done_for_slowness(monkeypatch):
    """A test that wants a call to leave its branch after a while says so."""
    monkeypatch.setattr(branches, "PATIENCE_S", 30.0)


@pytest.fixture
def items(server, client):
    server.answer = measured
    return client.queue("images")


@pytest.fixture
def server(server):
    server.ticket = TICKET
    return server


def mine(client):
    return client.session.calls.threads.mine()


def branch(client, items):
    """Make calls until the calling thread has a branch; its taker."""
    taker = mine(client)
    wait_until(lambda: items.qsize() and taker.has_branch, "the thread has a branch")
    return taker


def waiting_take(server):
    """The call of a take that the server has got by a branch."""

    def come():
        return [take for take in takes(server) if any(take is each for each in server.branch_calls)]

    return wait_until(come, "a take has arrived")[-1]


def waiting_getter(server, client, items, more=lambda: None):
    """A thread that waits for an item at its branch: its call, and how to get its result."""

    def work():
        branch(client, items)
        more()
        return items.get()

    result = in_thread(work)
    return waiting_take(server), result


def come_again(server, call):
    """The same call over another connection."""

    wait_until(lambda: len(takes(server)) > 1, "the call was sent again")
    again = takes(server)[-1]
    assert (again.taker, again.number, again.act) == (call.taker, call.number, call.act)
    assert not any(again is each for each in server.branch_calls)
    return again


def test_a_thread_that_makes_many_calls_gets_a_branch_for_them(server, client, items):
    branch(client, items)
    server.branch_calls.clear()
    first = items.qsize()
    assert [items.qsize() for _ in range(20)] == list(range(first + 1, first + 21))
    assert [call.number for call in server.branch_calls] == list(range(first, first + 21))
    assert len(server.branches) == 1


def test_a_thread_that_makes_few_calls_gets_none(server, client, items):
    for _ in range(branches.EVERY_CALLS // 2):
        items.qsize()
    assert not mine(client).has_branch
    assert server.of_kind(m.Branch) == []


def test_a_thread_that_is_refused_a_branch_goes_on_without_and_does_not_insist(
    server, client, items
):
    client.session.calls.branches._ticket = b"another"
    wait_until(lambda: items.qsize() and server.of_kind(m.Branch), "a branch was asked for")
    for _ in range(5 * branches.EVERY_CALLS):
        items.qsize()
    assert not mine(client).has_branch
    assert len(server.of_kind(m.Branch)) == 1


def test_a_call_that_waits_for_long_does_so_on_the_sessions_connection(
    server, client, items, monkeypatch
):
    monkeypatch.setattr(branches, "PATIENCE_S", 0.05)
    call, result = waiting_getter(server, client, items)
    grant(server, come_again(server, call), 11, b"K\x05.")
    assert result() == 5


def test_a_call_on_a_branch_that_breaks_goes_on_under_its_number(server, client, items):
    call, result = waiting_getter(server, client, items)
    server.cut_branches()
    grant(server, come_again(server, call), 11, b"K\x05.")
    assert result() == 5


def test_a_branch_is_lost_with_the_sessions_connection(server, client, items):
    call, result = waiting_getter(server, client, items)
    server.on_loop(
        lambda: [c.link.abort("cut") for c in list(server.connections) if not c.is_branch]
    )
    again = come_again(server, call)
    wait_until(lambda: not server.branches, "the branch was closed")
    grant(server, again, 11, b"K\x05.")
    assert result() == 5


def test_an_answer_that_comes_by_both_ways_counts_once(server, client, items):
    taker = branch(client, items)
    before = items.qsize()
    server.answer_now(taker.number, before, a.Measured([0, 0, 0, 0]))
    assert [items.qsize() for _ in range(3)] == [before + 1, before + 2, before + 3]


def test_an_interrupted_call_is_withdrawn_and_what_it_is_granted_is_given_back(
    server, client, items
):
    branch(client, items)

    def interrupt():
        waiting_take(server)
        os.kill(os.getpid(), signal.SIGINT)

    watching = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        items.get()
    watching()
    wait_until(lambda: server.of_kind(m.Withdraw), "the call was withdrawn")
    call = takes(server)[-1]
    assert server.of_kind(m.Withdraw) == [m.Withdraw(call.taker, call.number)]
    grant(server, call, 11)
    wait_until(lambda: calls(server)[-1].act.returns == [11], "the item was given back")
    assert not mine(client).has_branch


def test_who_is_interrupted_while_a_branch_is_considered_loses_nothing(server, client, items):
    client.session.calls.branches.consider = mock.Mock(side_effect=KeyboardInterrupt)
    taker = mine(client)
    while (taker._last_number + 1) % branches.EVERY_CALLS:
        items.qsize()
    with pytest.raises(KeyboardInterrupt):
        items.get()
    wait_until(lambda: takes(server), "the take has arrived")
    grant(server, takes(server)[-1], 11)
    wait_until(lambda: calls(server)[-1].act.returns == [11], "the item was given back")


def test_a_signals_handler_makes_calls_while_its_thread_waits_at_its_branch(server, client, items):
    branch(client, items)
    sizes = []
    before = signal.signal(signal.SIGUSR1, lambda *_: sizes.append(items.qsize()))

    def interrupt():
        call = waiting_take(server)
        os.kill(os.getpid(), signal.SIGUSR1)
        grant(server, come_again(server, call), 11, b"K\x05.")

    watching = in_thread(interrupt)
    try:
        assert items.get() == 5
    finally:
        signal.signal(signal.SIGUSR1, before)
    watching()
    assert len(sizes) == 1


def test_closing_the_client_ends_calls_that_wait_at_a_branch(server, client, items):
    _, result = waiting_getter(server, client, items)
    client.close()
    with pytest.raises(ConnectionLost, match="closed"):
        result()
    wait_until(lambda: not server.connections, "all connections are closed")


def test_a_branch_ends_with_its_thread(server, client, items):
    in_thread(lambda: branch(client, items))()
    wait_until(lambda: not server.branches, "the branch was closed")
    assert len(server.of_kind(m.Branch)) == 1


def test_a_branch_that_is_not_used_is_closed_and_comes_back_when_it_is(
    server, client, items, monkeypatch
):
    now = 0.0  # no branch is idle, however long it takes to be used
    monkeypatch.setattr(branches, "IDLE_S", 0.02)
    monkeypatch.setattr(branches, "clock", SimpleNamespace(mono=lambda: now))
    branch(client, items)
    now = math.inf
    wait_until(lambda: not server.branches, "the branch was closed")
    now = 0.0
    branch(client, items)
    assert len(server.of_kind(m.Branch)) == 2


def test_a_client_has_so_many_branches_and_no_more(server, client, items, monkeypatch):
    monkeypatch.setattr(branches, "MAX_BRANCHES", 2)
    enough = threading.Barrier(3, timeout=20)

    def work():
        branch(client, items)
        enough.wait()
        enough.wait()

    results = [in_thread(work) for _ in range(2)]
    enough.wait()
    for _ in range(5 * branches.EVERY_CALLS):
        items.qsize()
    assert not mine(client).has_branch
    assert len(server.branches) == 2
    enough.wait()
    for result in results:
        result()


def test_what_is_large_goes_over_the_sessions_connection(server, client, items):
    branch(client, items)
    server.branch_calls.clear()
    items.put_many([bytes(branches.FRAME_BYTES // 2)] * 3)
    assert server.branch_calls == []
    assert mine(client).has_branch
