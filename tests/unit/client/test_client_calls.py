"""Calls of takers against a server that answers what a test tells it to."""

import contextlib
import gc
import os
import pickle
import queue
import threading
from unittest import mock

import pytest

from multihost.client import calls as line_module
from multihost.client.queues import JoinableQueue
from multihost.core.ids import item_id
from multihost.errors import ConnectionLost, QueueClosed, TooMany
from multihost.runtime import link
from multihost.testing import wait_until
from multihost.wire import act as a
from multihost.wire import message as m
from multihost.wire.taking import Taking

NONE = b"N."


def opened(call):
    """A server with one empty, unbounded queue, where everything succeeds but takes."""
    if isinstance(call.act, a.OpenQueue):
        return a.QueueOpened(7, call.act.limit, call.act.confirm, True)
    if isinstance(call.act, a.Exchange) and call.act.take is not None:
        return None
    if isinstance(call.act, a.Exchange):
        return a.Exchanged(a.ExchangeEnd.OK)
    return a.Done()


@pytest.fixture(autouse=True)
def _nothing_goes_out_for_time_alone(monkeypatch):
    """What a thread has staged is not sent because a machine lets it wait before it goes on."""
    monkeypatch.setattr(line_module, "LINGER_S", 600.0)


@pytest.fixture
def _what_is_staged_goes_out_soon(monkeypatch):
    monkeypatch.setattr(line_module, "LINGER_S", 0.01)


@pytest.fixture
def items(server, client):
    server.answer = opened
    return client.queue("images")


def calls(server):
    return server.of_kind(m.Call)


def waiting_take(server):
    """The call of a take that the server has got."""
    wait_until(lambda: takes(server), "a take has arrived")
    return takes(server)[-1]


def take_after(server, item):
    """The take that follows the one that was granted ``item``, and confirms it."""
    grant(server, waiting_take(server), item)
    wait_until(lambda: len(takes(server)) == 2, "the next take has arrived")
    second = takes(server)[1]
    assert second.act.confirms == [item]
    return second


def takes(server):
    return [c for c in calls(server) if isinstance(c.act, a.Exchange) and c.act.take is not None]


def grant(server, call, number, payload=NONE):
    item = a.Item(number, payload)
    server.answer_now(call.taker, call.number, a.Exchanged(a.ExchangeEnd.OK, [item]))


def in_thread(work):
    """Run ``work`` in a thread; its end is waited for, and its result or error comes out."""
    box = []

    def run():
        try:
            box.append((True, work()))
        except BaseException as error:
            box.append((False, error))

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(20)
        is_ok, value = box[0]
        if not is_ok:
            raise value
        return value

    return result


def test_a_call_that_waits_when_the_connection_breaks_is_sent_again_under_its_number(server, items):
    result = in_thread(items.get)
    first = waiting_take(server)
    server.cut()
    wait_until(lambda: len(takes(server)) == 2, "the call was sent again")
    again = takes(server)[1]
    assert (again.taker, again.number, again.act) == (first.taker, first.number, first.act)
    grant(server, again, 1, b"K\x05.")
    assert result() == 5


def test_what_is_left_of_the_time_is_what_is_sent_again(server, items):
    result = in_thread(lambda: items.get(timeout=1000))
    waiting_take(server)
    server.cut()
    wait_until(lambda: len(takes(server)) == 2, "the call was sent again")
    again = takes(server)[1]
    assert again.wait_s <= 1000
    server.answer_now(again.taker, again.number, a.Exchanged(a.ExchangeEnd.EMPTY))
    with pytest.raises(queue.Empty):
        result()


def test_an_answer_that_comes_twice_counts_once(server, items):
    result = in_thread(items.get)
    call = waiting_take(server)
    grant(server, call, 1)
    assert result() is None
    grant(server, call, 2)
    result = in_thread(items.get)
    wait_until(lambda: len(takes(server)) == 2, "the second take has arrived")
    grant(server, takes(server)[1], 3, b"K\x03.")
    assert result() == 3


def test_each_thread_is_a_taker_of_its_own_and_ends_with_its_thread(server, items):
    items.put(1)
    in_thread(lambda: items.put(2))()
    mine, other = (c.taker for c in calls(server) if isinstance(c.act, a.Exchange))
    assert mine != other
    wait_until(lambda: [m.EndTaker(other)] == server.of_kind(m.EndTaker), "the taker ended")


def test_what_is_put_while_an_item_is_held_goes_out_with_its_confirmation(server, items):
    held = []

    def work():
        held.append(items.get())
        items.put("made of it")
        with contextlib.suppress(queue.Empty):
            items.get_nowait()

    result = in_thread(work)
    second = take_after(server, 11)
    assert [put.queue for put in second.act.puts] == [7]
    server.answer_now(second.taker, second.number, a.Exchanged(a.ExchangeEnd.EMPTY))
    result()


@pytest.mark.usefixtures("_what_is_staged_goes_out_soon")
def test_what_is_staged_goes_out_soon_even_if_nothing_is_taken(server, items):
    release = threading.Event()

    def work():
        items.get()
        items.put("made of it")
        release.wait(20)

    result = in_thread(work)
    grant(server, waiting_take(server), 11)
    wait_until(lambda: any(puts(c) for c in calls(server)), "the put has arrived")
    call = next(c for c in calls(server) if puts(c))
    assert call.act.confirms == [11]
    assert call.act.take is None
    release.set()
    result()


def puts(call):
    return isinstance(call.act, a.Exchange) and call.act.puts


@pytest.mark.usefixtures("_what_is_staged_goes_out_soon")
def test_what_is_staged_while_more_of_it_is_on_its_way_goes_out_after_that(server, client, items):
    go_on, done = threading.Event(), threading.Event()
    server.answer = lambda call: None if puts(call) else opened(call)

    def work():
        items.get()
        items.put("first")
        go_on.wait(20)
        items.put("second")
        done.wait(60)

    result = in_thread(work)
    grant(server, waiting_take(server), item_id(7, 0))
    wait_until(lambda: any(puts(c) for c in calls(server)), "the first has arrived")
    first = calls(server)[-1]
    go_on.set()
    line = client.session.calls
    wait_until(lambda: any(taker.taking.staged for taker in line.threads), "the next is staged")
    wait_until(lambda: not line._is_sweep_due, "what is staged was looked at")
    server.answer_now(first.taker, first.number, a.Exchanged(a.ExchangeEnd.OK))
    wait_until(lambda: len([c for c in calls(server) if puts(c)]) == 2, "it has arrived")
    second = calls(server)[-1]
    assert (second.act.confirms, [len(put.payloads) for put in second.act.puts]) == ([], [1])
    server.answer_now(second.taker, second.number, a.Exchanged(a.ExchangeEnd.OK))
    done.set()
    result()


def test_a_thread_that_ends_in_good_order_is_done_with_its_item(server, items):
    result = in_thread(items.get)
    grant(server, waiting_take(server), 11)
    result()
    wait_until(lambda: server.of_kind(m.EndTaker), "the taker ended")
    assert calls(server)[-1].act.confirms == [11]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_with_an_exception_leaves_its_item_to_others(server, items):
    def fail():
        items.get()
        raise LookupError("on purpose")

    thread = threading.Thread(target=fail)
    thread.start()
    grant(server, waiting_take(server), 11)
    thread.join(20)
    wait_until(lambda: server.of_kind(m.EndTaker), "the taker ended")
    assert all(not c.act.confirms for c in calls(server) if isinstance(c.act, a.Exchange))


def test_what_was_granted_to_an_interrupted_call_is_given_back(server, client, items):
    start = client.session.calls.start_here

    def interrupt(pending):
        start(pending)
        raise KeyboardInterrupt

    client.session.calls.start_here = interrupt
    with pytest.raises(KeyboardInterrupt):
        items.get()
    call = waiting_take(server)
    wait_until(lambda: server.of_kind(m.Withdraw), "the call was withdrawn")
    assert server.of_kind(m.Withdraw) == [m.Withdraw(call.taker, call.number)]
    grant(server, call, 11)
    wait_until(lambda: calls(server)[-1].act.returns == [11], "the item was given back")


def test_what_an_interrupted_call_got_is_given_back_before_the_next_could_confirm_it(
    server, client, items, monkeypatch
):
    line, late = client.session.calls, []
    start, abandon = line.start_here, line.abandon

    def interrupt(pending):
        monkeypatch.undo()
        monkeypatch.setattr(line, "abandon", late.append)
        assert not start(pending)
        grant(server, waiting_take(server), 11)
        wait_until(lambda: pending.result, "the answer has come")
        raise KeyboardInterrupt

    def work():
        monkeypatch.setattr(line, "start_here", interrupt)
        with pytest.raises(KeyboardInterrupt):
            items.get()
        items.get()

    result = in_thread(work)
    wait_until(lambda: len(takes(server)) == 2, "the next take has arrived")
    assert takes(server)[1].act.confirms == []
    monkeypatch.undo()
    line.post(lambda: abandon(late[0]))
    grant(server, takes(server)[1], 12)
    result()
    wait_until(lambda: given_back(server) == [11], "it was given back")
    wait_until(lambda: confirmed(server) == [12], "the thread ended, and was done with the other")


@pytest.fixture
def interrupted(monkeypatch):
    """Have a verb of ``Taking`` interrupted, once, when it has decided what to ask for."""

    def interrupt(verb):
        decide = getattr(Taking, verb)

        def decided(*args):
            monkeypatch.setattr(Taking, verb, decide)
            decide(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(Taking, verb, decided)

    return interrupt


def test_who_is_interrupted_before_a_call_is_sent_goes_on_as_if_it_were_not_made(
    server, items, interrupted
):
    def work():
        items.get()
        items.put("made of it")
        interrupted("take")
        with pytest.raises(KeyboardInterrupt):
            items.get()
        items.get_nowait()

    result = in_thread(work)
    second = take_after(server, 11)
    assert len(second.act.puts) == 1
    grant(server, second, 12)
    result()


def test_who_is_interrupted_while_the_loop_is_told_does_not_keep_others_from_telling_it(client):
    session, told = client.session, threading.Event()
    loop, session.loop = session.loop, mock.Mock()
    session.loop.call_soon_threadsafe.side_effect = KeyboardInterrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            session.post(lambda: None)
    finally:
        session.loop = loop
    session.post(told.set)
    assert told.wait(20)


def test_an_item_that_cannot_be_unpickled_is_given_back_by_its_with(server, items):
    def work():
        with pytest.raises(pickle.UnpicklingError), items.take():
            raise AssertionError("there is nothing to do it with")
        with pytest.raises(queue.Empty):
            items.get_nowait()

    result = in_thread(work)
    grant(server, waiting_take(server), 11, b"no pickle")
    wait_until(lambda: len(takes(server)) == 2, "the next take has arrived")
    second = takes(server)[1]
    server.answer_now(second.taker, second.number, a.Exchanged(a.ExchangeEnd.EMPTY))
    result()
    wait_until(lambda: given_back(server) == [11], "it was given back")
    assert second.act.confirms == []


def given_back(server):
    return [n for c in calls(server) if isinstance(c.act, a.Exchange) for n in c.act.returns]


def confirmed(server):
    return [n for c in calls(server) if isinstance(c.act, a.Exchange) for n in c.act.confirms]


@pytest.mark.parametrize("raises", [False, True])
def test_a_with_that_is_interrupted_at_its_end_keeps_nothing(server, items, interrupted, raises):
    def take():
        with items.take():
            if raises:
                raise LookupError("on purpose")

    def work():
        interrupted("give_back" if raises else "confirm")
        with pytest.raises(KeyboardInterrupt):
            take()
        items.put("something else")

    result = in_thread(work)
    grant(server, waiting_take(server), 11)
    result()
    wait_until(lambda: server.of_kind(m.EndTaker), "the taker ended")
    assert (given_back(server), confirmed(server)) == (([11], []) if raises else ([], [11]))
    assert len([call for call in calls(server) if puts(call)]) == 1


def test_an_item_whose_with_never_heard_of_its_end_is_given_back(server, items):
    def work():
        block = items.take()
        block.__enter__()
        items.put("void")
        del block  # as an exception out of a signal's handler does, between block and end
        items.put("something else")

    result = in_thread(work)
    grant(server, waiting_take(server), 11)
    result()
    wait_until(lambda: server.of_kind(m.EndTaker), "the taker ended")
    assert (given_back(server), confirmed(server)) == ([11], [])
    assert [len(call.act.puts[0].payloads) for call in calls(server) if puts(call)] == [1]


def test_a_lost_item_voids_what_was_made_of_it_and_the_next_is_taken(server, items):
    def work():
        items.get()
        items.put("void")
        return items.get()

    result = in_thread(work)
    grant(server, waiting_take(server), 11)
    wait_until(lambda: len(takes(server)) == 2, "the next take has arrived")
    second = takes(server)[1]
    server.answer_now(second.taker, second.number, a.Exchanged(a.ExchangeEnd.LOST, [], [11]))
    wait_until(lambda: len(takes(server)) == 3, "the take was repeated")
    third = takes(server)[2]
    assert (third.act.confirms, third.act.puts) == ([], [])
    grant(server, third, 12, b"K\x0c.")
    assert result() == 12


def test_a_full_queue_is_the_standard_librarys_full(server, client):
    server.answer = lambda call: (
        opened(call) if isinstance(call.act, a.OpenQueue) else a.Exchanged(a.ExchangeEnd.FULL)
    )
    items = client.queue("small", 1)
    with pytest.raises(queue.Full):
        items.put_nowait(1)


def test_what_is_put_after_its_queue_was_dropped_is_not_made_of_the_item(server, client, items):
    def work():
        items.get()
        items.drop()
        client.queue("other").put(1)

    result = in_thread(work)
    grant(server, waiting_take(server), 11)
    result()
    wait_until(lambda: server.of_kind(m.EndTaker), "the taker ended")
    assert confirmed(server) == []
    assert len([call for call in calls(server) if puts(call)]) == 1


def test_what_was_put_before_a_full_queue_goes_out_though_nothing_else_is_done(
    server, client, items, monkeypatch
):
    done, is_full = threading.Event(), []
    line = client.session.calls
    arm, line._arm = line._arm, lambda: None

    def answer(call):
        if isinstance(call.act, a.OpenQueue):
            return a.QueueOpened(8, 1, call.act.confirm, True)
        if any(put.queue == 8 for put in puts(call) or ()):
            is_full.append(call)
            return None
        return opened(call)

    server.answer = answer
    small = client.queue("small", 1)

    def work():
        items.get()
        items.put("made of it")
        with pytest.raises(queue.Full):
            small.put(1, timeout=1000)
        done.wait(20)

    result = in_thread(work)
    grant(server, waiting_take(server), item_id(7, 0))
    wait_until(lambda: is_full, "the put has arrived")
    monkeypatch.setattr(line_module, "LINGER_S", 0.01)
    line._arm = arm
    line.post(line._sweep)
    wait_until(lambda: not line._is_sweep_due, "nobody looks after what was staged")
    server.answer_now(is_full[0].taker, is_full[0].number, a.Exchanged(a.ExchangeEnd.FULL))
    wait_until(lambda: len([c for c in calls(server) if puts(c)]) == 2, "it went out")
    assert [put.queue for put in puts(calls(server)[-1])] == [7]
    assert calls(server)[-1].act.confirms == [item_id(7, 0)]
    assert server.of_kind(m.EndTaker) == [], "it went out because the thread ended"
    done.set()
    result()


def test_what_a_thread_puts_after_another_dropped_its_queue_is_not_made_of_the_item(
    server, client, items
):
    has_taken, is_dropped = threading.Event(), threading.Event()

    def work():
        items.get()
        has_taken.set()
        is_dropped.wait(20)
        client.queue("other").put(1)

    result = in_thread(work)
    grant(server, waiting_take(server), item_id(7, 0))
    assert has_taken.wait(20)
    items.drop()
    is_dropped.set()
    result()
    wait_until(lambda: server.of_kind(m.EndTaker), "the taker ended")
    assert confirmed(server) == []
    assert len([call for call in calls(server) if puts(call)]) == 1


def test_what_was_put_while_its_queue_was_being_dropped_is_put_without_the_item(server, items):
    def work():
        items.get()
        items.put("stands")
        return items.get()

    result = in_thread(work)
    second = take_after(server, item_id(7, 0))
    items.drop()
    lost = a.Exchanged(a.ExchangeEnd.LOST, [], [item_id(7, 0)])
    server.answer_now(second.taker, second.number, lost)
    wait_until(lambda: len(takes(server)) == 3, "the take was repeated")
    again = [call for call in calls(server) if puts(call)][-1]
    assert (again.act.confirms, again.act.puts) == ([], second.act.puts)
    grant(server, takes(server)[2], item_id(7, 1), b"K\x0c.")
    assert result() == 12


def test_a_task_done_is_counted_though_only_an_item_of_another_queue_is_lost(server, client, items):
    def answer(call):
        if isinstance(call.act, a.OpenQueue):
            return a.QueueOpened(8, 0, call.act.confirm, True)
        if call in finishes(server)[:1]:
            return a.Exchanged(a.ExchangeEnd.LOST, [], call.act.confirms)
        return opened(call)

    server.answer = answer
    done = JoinableQueue(client=client)

    def work():
        items.get()
        items.put("void")
        done.task_done()

    result = in_thread(work)
    grant(server, waiting_take(server), item_id(7, 0))
    result()
    assert [call.act.confirms for call in finishes(server)] == [[item_id(7, 0)], []]


def finishes(server):
    return [c for c in calls(server) if isinstance(c.act, a.Exchange) and c.act.finishes]


def test_a_queue_dropped_while_waiting_is_closed(server, items):
    result = in_thread(items.get)
    call = waiting_take(server)
    server.answer_now(call.taker, call.number, a.Exchanged(a.ExchangeEnd.CLOSED))
    with pytest.raises(QueueClosed):
        result()


def test_a_refusal_is_an_error_that_standard_programs_catch(server, items):
    server.answer = lambda call: a.Rejected(a.RejectCode.TOO_MANY, "too often")
    with pytest.raises(ValueError, match="too often") as caught:
        items.qsize()
    assert caught.type is TooMany


def test_a_large_item_travels_as_a_blob(server, items):
    items.put(bytes(1 << 20))
    (call,) = [c for c in calls(server) if puts(c)]
    (blob,) = call.act.puts[0].payloads
    assert isinstance(blob, m.Blob)
    result = in_thread(items.get)
    grant(server, waiting_take(server), 1, blob)
    assert result() == bytes(1 << 20)


def test_closing_the_client_ends_calls_that_wait(server, client, items):
    result = in_thread(items.get)
    waiting_take(server)
    client.close()
    with pytest.raises(ConnectionLost):
        result()


def test_closing_the_client_is_done_with_what_its_thread_took(server, client, items):
    def answer(call):
        if isinstance(call.act, a.Exchange) and call.act.take is not None:
            return a.Exchanged(a.ExchangeEnd.OK, [a.Item(11, NONE)])
        return opened(call)

    server.answer = answer
    items.get()
    client.close()
    assert calls(server)[-1].act.confirms == [11]


def test_an_unnamed_queue_is_dropped_when_nobody_can_use_it_any_more(server, client):
    from multihost.client.queues import Queue

    server.answer = opened
    items = Queue(client=client)
    del items
    gc.collect()
    wait_until(lambda: calls(server)[-1].act == a.DropQueue(7), "it was dropped")


def test_frames_of_many_threads_and_of_large_payloads_do_not_mix(server, items):
    def answer(call):
        if isinstance(call.act, a.MeasureQueue):
            return a.Measured([call.number, 0, 0, 0])
        return opened(call)

    server.answer = answer
    threads = [in_thread(lambda: [items.qsize() for _ in range(150)]) for _ in range(6)]
    for number in range(20):
        items.put(bytes([number]) * (1 << 20))
    for result in threads:
        numbers = result()
        assert numbers == list(range(numbers[0], numbers[0] + 150))
    assert len(server.blobs) == 20
    assert server.of_kind(m.Goodbye) == []


def test_what_the_socket_does_not_take_goes_out_when_it_does(server, client, items, monkeypatch):
    write = os.write
    monkeypatch.setattr(link.os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    server.answer = lambda call: a.Measured([call.number, 0, 0, 0])
    first = items.qsize()
    assert [items.qsize() for _ in range(20)] == list(range(first + 1, first + 21))
