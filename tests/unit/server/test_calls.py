"""Claims about the calls of takers, with a store of dicts and transactions that can fail."""

import asyncio
from unittest import mock

import pytest
from call_desk import Desk
from item_store import ItemStore

from multihost.core.ids import session_of, taker_id
from multihost.errors import StoreFull
from multihost.server import committer
from multihost.wire import act as a
from multihost.wire.act import Confirm, Exchange, ExchangeEnd, Finish, Kind, Put, RejectCode

ANN, BOB, CY, DAN = (taker_id(session, 1) for session in (1, 2, 3, 4))


def case(test):
    """A test that is a coroutine and is given a desk."""

    def run():
        async def main():
            desk = Desk(ItemStore())
            async with asyncio.timeout(20):
                await test(desk)
            desk.committer.stop()

        # Tests look at every transaction by itself, and don't wait for company.
        with mock.patch.object(committer, "TOLD_LINGER_S", 0):
            asyncio.run(main())

    run.__name__ = test.__name__
    return run


def payloads(result):
    assert result.end is ExchangeEnd.OK, result
    return [item.payload for item in result.items]


@case
async def test_a_call_is_next_if_its_taker_is_known_and_has_made_no_later_one(desk):
    queue = await desk.queue()
    assert not desk.calls.is_next(ANN, 1)
    await desk.take(ANN, queue, 0)
    number = desk.numbers[ANN]
    assert [desk.calls.is_next(ANN, number + step) for step in (-1, 0, 1)] == [False, False, True]
    desk.calls.end_taker(ANN)
    assert not desk.calls.is_next(ANN, number + 1)


# --- items -----------------------------------------------------------------------------


@case
async def test_takers_that_wait_are_served_in_the_order_in_which_they_came(desk):
    queue = await desk.queue()
    assert await desk.take(ANN, queue) is None
    assert await desk.take(BOB, queue) is None
    await desk.put(CY, queue, b"1", b"2", b"3")
    assert payloads(desk.answers[ANN]) == [b"1"]
    assert payloads(desk.answers[BOB]) == [b"2"]
    assert await desk.measure(queue) == [1, 2, 3, 0]


@case
async def test_a_put_and_all_it_wakes_are_one_transaction(desk):
    queue = await desk.queue()
    await desk.take(ANN, queue)
    before = len(desk.store.log)
    await desk.put(CY, queue, b"1")
    assert desk.store.log[before:] == ["durable"]
    assert ANN in desk.answers


@case
async def test_who_would_not_wait_is_told_at_once(desk):
    queue = await desk.queue(limit=1)
    assert (await desk.take(ANN, queue, 0)).end is ExchangeEnd.EMPTY
    await desk.put(CY, queue, b"1")
    assert (await desk.put(ANN, queue, b"2", wait_s=0)).end is ExchangeEnd.FULL
    assert (await desk.do(ANN, a.JoinQueue(queue), 0)) == a.Done(False)
    assert await desk.measure(queue) == [1, 0, 1, 1]


@case
async def test_time_is_over_for_who_has_waited_long_enough(desk):
    queue = await desk.queue(limit=1)
    await desk.take(ANN, queue)
    desk.calls.withdraw(ANN, desk.numbers[ANN])
    await desk.settle()
    assert desk.answers[ANN].end is ExchangeEnd.EMPTY
    await desk.put(CY, queue, b"1")
    await desk.put(ANN, queue, b"2")
    await desk.do(BOB, a.JoinQueue(queue))
    for taker in (ANN, BOB):
        desk.calls.withdraw(taker, desk.numbers[taker])
    await desk.settle()
    assert desk.answers[ANN].end is ExchangeEnd.FULL
    assert desk.answers[BOB] == a.Done(False)


@case
async def test_a_wait_ends_by_itself_after_its_time(desk):
    queue = await desk.queue()
    await desk.take(ANN, queue, 0.001)
    while ANN not in desk.answers:  # noqa: ASYNC110 - what is awaited is the timer itself
        await asyncio.sleep(0)
    assert desk.answers[ANN].end is ExchangeEnd.EMPTY
    assert not desk.calls.parking.waiting(queue)


@case
async def test_puts_wait_for_room_in_the_order_in_which_they_came(desk):
    queue = await desk.queue(limit=2)
    await desk.put(CY, queue, b"1", b"2")
    assert await desk.put(ANN, queue, b"3", b"4") is None
    # There will be room for one before there is room for two.
    assert await desk.put(BOB, queue, b"5") is None
    await desk.take(CY, queue)
    assert desk.answers.keys().isdisjoint({ANN, BOB})
    assert payloads(await desk.take(CY, queue)) == [b"2"]
    assert desk.answers[ANN].end is ExchangeEnd.OK
    assert payloads(await desk.take(CY, queue)) == [b"3"]
    assert desk.answers[BOB].end is ExchangeEnd.OK


def spread(confirms, *puts):
    return Exchange(confirms, [], [Put(queue, [payload]) for queue, payload in puts])


async def beside_a_full_queue(desk):
    """A queue that ANN has an item of, an empty one, a full one for one item; the item."""
    source, results, full = await desk.queue("s"), await desk.queue("r"), await desk.queue("f", 1)
    await desk.put(CY, source, b"1")
    await desk.put(CY, full, b"a")
    (item,) = (await desk.take(ANN, source)).items
    return source, results, full, item


@case
async def test_puts_that_go_with_one_into_a_full_queue_do_not_wait_for_its_room(desk):
    source, results, full, item = await beside_a_full_queue(desk)
    assert await desk.take(BOB, results) is None
    assert await desk.do(ANN, spread([item.number], (results, b"r"), (full, b"b"))) is None
    # Whoever makes room may need them first. All are kept together with what they are made of.
    assert payloads(desk.answers[BOB]) == [b"r"]
    assert await desk.measure(source) == [0, 0, 1, 0]
    assert payloads(await desk.take(BOB, full)) == [b"a"]
    assert desk.answers[ANN].end is ExchangeEnd.OK
    assert payloads(await desk.take(BOB, full)) == [b"b"]


@case
async def test_a_taker_that_ends_at_a_full_queue_has_put_all_or_nothing(desk):
    source, results, full, item = await beside_a_full_queue(desk)
    await desk.do(ANN, spread([item.number], (results, b"r"), (full, b"b")))
    desk.calls.end_taker(ANN)
    await desk.settle()
    waiting = [(await desk.measure(queue))[0] for queue in (source, results, full)]
    assert waiting == [0, 1, 2]


@case
async def test_who_waits_at_a_full_queue_with_its_item_inside_goes_on_in_its_turn(desk):
    results, full = await desk.queue("r"), await desk.queue("f", 1)
    await desk.put(DAN, full, b"a")
    await desk.put(ANN, full, b"b")
    await desk.do(BOB, spread([], (results, b"r"), (full, b"c")))
    await desk.do(CY, spread([], (results, b"r"), (full, b"d")))
    answered = []
    for _ in range(3):
        await desk.take(DAN, full)
        answered.append([taker in desk.answers for taker in (ANN, BOB, CY)])
    assert answered == [[True, False, False], [True, True, False], [True, True, True]]


@case
async def test_puts_that_would_not_wait_for_ever_are_done_together_or_not_at_all(desk):
    results, full = await desk.queue("r"), await desk.queue("f", 1)
    await desk.put(CY, full, b"a")
    for wait_s in (0, 5):
        result = await desk.do(ANN, spread([], (results, b"r"), (full, b"b")), wait_s)
        assert (await desk.measure(results))[0] == 0
    assert result is None
    desk.calls.withdraw(ANN, desk.numbers[ANN])
    await desk.settle()
    assert desk.answers[ANN].end is ExchangeEnd.FULL


@pytest.mark.parametrize("how", ["again", "withdraw", "restart", "close", "drop"])
def test_what_is_in_a_full_queue_is_put_whatever_becomes_of_the_wait_for_room(how):
    @case
    async def test(desk):
        results, full = await desk.queue("r"), await desk.queue("f", 1)
        await desk.put(CY, full, b"a")
        assert await desk.do(ANN, spread([], (results, b"r"), (full, b"b"))) is None
        if how == "again":
            assert await desk.again(ANN) is None
            await desk.take(BOB, full)
        elif how == "withdraw":
            desk.calls.withdraw(ANN, desk.numbers[ANN])
            await desk.settle()
        elif how == "restart":
            desk.start()
            await desk.again(ANN)
        else:
            await desk.do(BOB, {"close": a.CloseQueue, "drop": a.DropQueue}[how](full))
        assert desk.answers[ANN].end is ExchangeEnd.OK
        assert (await desk.measure(results))[0] == 1

    test()


@case
async def test_those_behind_a_put_that_gave_up_get_their_room(desk):
    queue = await desk.queue(limit=2)
    await desk.put(CY, queue, b"1")
    await desk.put(ANN, queue, b"2", b"3")
    await desk.put(BOB, queue, b"4")
    desk.calls.withdraw(ANN, desk.numbers[ANN])
    await desk.settle()
    assert desk.answers[BOB].end is ExchangeEnd.OK


@case
async def test_what_waits_for_an_item_has_done_the_rest_already(desk):
    tasks, results = await desk.queue("tasks"), await desk.queue("results")
    await desk.put(CY, tasks, b"1")
    (item,) = (await desk.take(ANN, tasks)).items
    puts = [Put(results, [b"one"])]
    assert await desk.take(ANN, tasks, confirms=[item.number], puts=puts) is None
    assert payloads(await desk.take(BOB, results)) == [b"one"]
    assert (await desk.measure(tasks))[:2] == [0, 0]


@case
async def test_who_puts_and_takes_does_not_overtake_those_who_wait(desk):
    queue = await desk.queue()
    await desk.take(BOB, queue)
    assert await desk.take(ANN, queue, puts=[Put(queue, [b"1"])]) is None
    assert payloads(desk.answers[BOB]) == [b"1"]
    await desk.put(CY, queue, b"2")
    assert payloads(desk.answers[ANN]) == [b"2"]


@case
async def test_one_room_serves_a_chain_of_queues(desk):
    first, second = await desk.queue("a", 1), await desk.queue("b", 1)
    await desk.put(CY, first, b"1")
    await desk.put(CY, second, b"2")
    # ANN moves what is made of it from one full queue to the next, BOB waits before the first.
    assert await desk.do(ANN, Exchange(puts=[Put(second, [b"3"])], take=first)) is None
    assert await desk.put(BOB, first, b"4") is None
    await desk.take(CY, second)
    assert payloads(desk.answers[ANN]) == [b"1"]
    assert desk.answers[BOB].end is ExchangeEnd.OK


@case
async def test_join_ends_with_the_last_task_done(desk):
    queue = await desk.queue(confirm=Confirm.TASK_DONE)
    assert await desk.do(ANN, a.JoinQueue(queue)) == a.Done()
    await desk.put(CY, queue, b"1", b"2")
    assert await desk.do(ANN, a.JoinQueue(queue)) is None
    await desk.do(CY, Exchange(finishes=[Finish(queue)]))
    assert ANN not in desk.answers
    await desk.do(CY, Exchange(finishes=[Finish(queue)]))
    assert desk.answers[ANN] == a.Done()
    refused = await desk.do(CY, Exchange(finishes=[Finish(queue)]))
    assert refused.code is RejectCode.TOO_MANY


@case
async def test_closing_or_dropping_a_queue_tells_those_who_wait(desk):
    for act in (a.CloseQueue, a.DropQueue):
        queue, full = await desk.queue(act.__name__), await desk.queue(f"{act.__name__} full", 1)
        await desk.put(CY, full, b"1")
        await desk.take(ANN, queue)
        await desk.put(BOB, full, b"2")
        await desk.do(CY, act(queue))
        await desk.do(CY, act(full))
        assert desk.answers[ANN].end is ExchangeEnd.CLOSED
        assert desk.answers[BOB].end is ExchangeEnd.CLOSED


@case
async def test_the_last_item_of_a_closed_queue_is_done_with_when_no_other_comes(desk):
    queue, results = await desk.queue("q"), await desk.queue("results")
    await desk.put(CY, queue, b"1")
    (item,) = (await desk.take(ANN, queue)).items
    await desk.do(CY, a.CloseQueue(queue))
    puts = [Put(results, [b"r"])]
    result = await desk.take(ANN, queue, confirms=[item.number], puts=puts)
    assert result.end is ExchangeEnd.CLOSED
    assert await desk.measure(queue) == [0, 0, 1, 0]
    assert (await desk.measure(results))[0] == 1
    desk.start()
    assert (await desk.again(ANN)).end is ExchangeEnd.CLOSED
    assert (await desk.measure(results))[0] == 1


@case
async def test_a_put_into_a_closed_queue_does_nothing_at_all(desk):
    queue, closed = await desk.queue("q"), await desk.queue("closed")
    await desk.put(CY, queue, b"1")
    (item,) = (await desk.take(ANN, queue)).items
    await desk.do(CY, a.CloseQueue(closed))
    result = await desk.take(ANN, queue, confirms=[item.number], puts=[Put(closed, [b"r"])])
    assert result.end is ExchangeEnd.CLOSED
    assert (await desk.measure(queue))[:2] == [0, 1]


@case
async def test_what_is_not_there_is_not_found(desk):
    for act in (
        *(Exchange(take=77), a.JoinQueue(77), a.MeasureQueue(77), a.CloseQueue(77)),
        *(a.Acquire(77), a.ReadValue(77)),
    ):
        assert (await desk.do(ANN, act)).code is RejectCode.NOT_FOUND
    assert await desk.do(ANN, a.DropQueue(77)) == a.Done()
    assert await desk.do(ANN, a.DropSynchronizer(77)) == a.Done()


# --- calls that come again ---------------------------------------------------------------


@pytest.mark.parametrize("is_restart", [False, True])
@pytest.mark.parametrize("confirm", [Confirm.NEXT, Confirm.GET])
def test_a_call_that_comes_again_is_not_done_again(is_restart, confirm):
    @case
    async def check(desk):
        tasks = await desk.queue("tasks", confirm=confirm)
        results = await desk.queue("results")
        await desk.put(CY, tasks, b"1", b"2")
        act = Exchange(puts=[Put(results, [b"r"])], take=tasks)
        first = await desk.do(ANN, act)
        if is_restart:
            desk.start()
        assert await desk.again(ANN) == first
        assert (await desk.measure(tasks))[0] == 1
        assert (await desk.measure(results))[0] == 1

    check()


@case
async def test_a_call_that_waits_keeps_its_place_when_it_comes_again(desk):
    queue = await desk.queue()
    await desk.take(ANN, queue)
    await desk.take(BOB, queue)
    assert await desk.again(ANN) is None
    await desk.put(CY, queue, b"1")
    assert payloads(desk.answers[ANN]) == [b"1"]
    assert BOB not in desk.answers


@case
async def test_a_restart_while_a_call_waits_repeats_only_its_wait(desk):
    tasks, results = await desk.queue("tasks"), await desk.queue("results")
    assert await desk.do(ANN, Exchange(puts=[Put(results, [b"r"])], take=tasks)) is None
    desk.start()
    assert await desk.again(ANN) is None
    assert (await desk.measure(results))[0] == 1
    await desk.put(CY, tasks, b"1")
    assert payloads(desk.answers[ANN]) == [b"1"]
    desk.start()
    assert payloads(await desk.again(ANN)) == [b"1"]


@case
async def test_a_release_that_comes_again_does_not_release_the_next_holder(desk):
    lock = await desk.synchronizer(Kind.LOCK)
    await desk.do(ANN, a.Acquire(lock))
    await desk.do(BOB, a.Acquire(lock))
    await desk.do(ANN, a.Release(lock))
    desk.start()
    assert await desk.again(ANN) == a.Done()
    assert (await desk.do(CY, a.MeasureSynchronizer(lock))).numbers[0] == 1
    assert (await desk.again(BOB)).value


@case
async def test_a_restart_loses_no_waiter_of_a_lock_or_condition(desk):
    lock = await desk.synchronizer(Kind.LOCK)
    condition = await desk.synchronizer(Kind.CONDITION, lock, name="c")
    await desk.do(ANN, a.Acquire(lock))
    await desk.do(ANN, a.WaitNotified(condition))
    await desk.do(BOB, a.Acquire(lock))
    await desk.do(CY, a.Acquire(lock))
    desk.start()
    assert await desk.do(BOB, a.Notify(condition)) == a.Done(True, 0, 1)
    assert await desk.again(CY) is None
    await desk.do(BOB, a.Release(lock))
    assert desk.answers[CY].value
    await desk.do(CY, a.Release(lock))
    # It was notified and given the lock before it was back.
    assert (await desk.again(ANN)).value


@case
async def test_tokens_rise_over_restarts_and_new_locks(desk):
    tokens = []
    for round_ in range(3):
        lock = await desk.synchronizer(Kind.LOCK, name=f"lock {round_}")
        tokens.append((await desk.do(ANN, a.Acquire(lock))).token)
        desk.store.epoch += 1
        desk.start()
    assert tokens == sorted(set(tokens))


@case
async def test_a_call_that_was_followed_by_another_is_refused(desk):
    queue = await desk.queue()
    await desk.put(ANN, queue, b"1")
    await desk.put(ANN, queue, b"2")
    desk.numbers[ANN] = 1
    assert (await desk.again(ANN)).code is RejectCode.BAD_REQUEST


@case
async def test_a_taker_that_goes_on_to_its_next_call_waits_no_more(desk):
    queue = await desk.queue()
    lock = await desk.synchronizer(Kind.LOCK)
    await desk.do(BOB, a.Acquire(lock))
    await desk.take(ANN, queue)
    await desk.do(ANN, a.Acquire(lock))
    await desk.put(CY, queue, b"1")
    assert (await desk.measure(queue))[:2] == [1, 0]
    await desk.do(ANN, a.MeasureQueue(queue))
    await desk.do(BOB, a.Release(lock))
    assert (await desk.do(CY, a.MeasureSynchronizer(lock))).numbers[0] == 0


# --- takers that end ---------------------------------------------------------------------


@case
async def test_what_a_taker_held_goes_to_who_waits_when_it_ends(desk):
    queue = await desk.queue()
    lock = await desk.synchronizer(Kind.LOCK)
    await desk.put(CY, queue, b"1")
    await desk.take(ANN, queue)
    await desk.do(ANN, a.Acquire(lock))
    await desk.take(BOB, queue)
    await desk.do(CY, a.Acquire(lock))
    desk.calls.end_taker(ANN)
    await desk.settle()
    assert desk.answers[BOB].items[0].attempt == 2
    assert desk.answers[CY].value


@case
async def test_a_taker_that_has_ended_swallows_nothing(desk):
    queue = await desk.queue(limit=1)
    await desk.put(CY, queue, b"1")
    await desk.put(ANN, queue, b"2")
    desk.calls.end_taker(ANN)
    await desk.take(CY, queue)
    assert (await desk.take(CY, queue, 0)).end is ExchangeEnd.EMPTY
    await desk.take(BOB, queue)
    desk.calls.end_taker(BOB)
    await desk.put(CY, queue, b"3")
    assert (await desk.measure(queue))[0] == 1
    assert ANN not in desk.answers
    assert BOB not in desk.answers


@case
async def test_nothing_is_handed_to_a_session_whose_connection_broke(desk):
    queue = await desk.queue()
    await desk.take(ANN, queue)
    desk.calls.disconnected(1)
    await desk.take(BOB, queue)
    await desk.put(CY, queue, b"1", b"2")
    assert payloads(desk.answers[BOB]) == [b"1"]
    assert (await desk.measure(queue))[0] == 1
    assert payloads(await desk.again(ANN)) == [b"2"]


@case
async def test_a_session_that_comes_back_late_has_lost_what_it_held_but_repeats_nothing(desk):
    tasks, results = await desk.queue("tasks"), await desk.queue("results")
    await desk.put(CY, tasks, b"1")
    assert payloads(await desk.do(ANN, Exchange(puts=[Put(results, [b"r"])], take=tasks)))
    desk.calls.release_session(1)
    await desk.settle()
    assert (await desk.measure(tasks))[0] == 1
    assert payloads(await desk.again(ANN)) == [b"1"]
    assert (await desk.measure(results))[0] == 1


@case
async def test_a_session_that_comes_back_late_after_a_restart_repeats_nothing_either(desk):
    queue = await desk.queue()
    await desk.put(ANN, queue, b"1")
    desk.start()
    desk.calls.release_session(1)
    await desk.settle()
    assert (await desk.again(ANN)).end is ExchangeEnd.OK
    assert (await desk.measure(queue))[0] == 1


@case
async def test_a_call_that_comes_while_its_session_is_released_is_answered(desk):
    queue = await desk.queue()
    await desk.take(ANN, queue)
    desk.calls.release_session(1)
    assert await desk.again(ANN) is None
    await desk.put(CY, queue, b"1")
    assert payloads(desk.answers[ANN]) == [b"1"]


@case
async def test_what_lived_with_a_session_is_dropped_with_it(desk):
    queue = await desk.queue(taker=ANN, is_transient=True)
    lock = await desk.synchronizer(Kind.LOCK, taker=ANN, is_transient=True)
    await desk.do(ANN, a.Acquire(lock))
    await desk.take(BOB, queue)
    await desk.do(CY, a.WaitNotified(lock))
    desk.calls.release_session(1)
    await desk.settle()
    assert BOB not in desk.answers
    await desk.do(CY, a.Acquire(lock))
    other = taker_id(2, 2)
    await desk.do(other, a.Acquire(lock))
    desk.calls.end_session(1)
    await desk.settle()
    assert desk.answers[BOB].end is ExchangeEnd.CLOSED
    assert desk.answers[other].code is RejectCode.NOT_FOUND
    assert not desk.store.data.queues
    assert not desk.store.data.synchronizers
    assert not len(desk.calls.synchronizers)


@case
async def test_a_semaphore_is_given_back_by_the_dead_but_not_by_who_left(desk):
    semaphore = await desk.synchronizer(Kind.SEMAPHORE, 3)
    for taker in (ANN, BOB):
        await desk.do(taker, a.Acquire(semaphore))
    desk.calls.end_session(1, is_clean=True)
    desk.calls.end_session(2)
    assert (await desk.do(CY, a.MeasureSynchronizer(semaphore))).numbers[0] == 2


@case
async def test_takers_opened_for_a_session_are_never_the_same(desk):
    takers = [desk.calls.open_taker(7) for _ in range(3)]
    desk.calls.end_taker(takers[-1])
    takers.append(desk.calls.open_taker(7))
    assert len(set(takers)) == 4


# --- transactions that fail ----------------------------------------------------------------


@case
async def test_a_full_store_refuses_puts_and_leaves_everything_as_it_was(desk):
    queue = await desk.queue()
    lock = await desk.synchronizer(Kind.LOCK)
    await desk.do(ANN, a.Acquire(lock))
    await desk.take(BOB, queue)
    desk.store.publish_errors = [StoreFull("no room")]
    desk.numbers[CY] += 1
    desk.acts[CY] = Exchange(puts=[Put(queue, [b"1"])])
    desk.answers.pop(CY)
    desk.send(CY)
    desk.calls.end_taker(ANN)
    desk.committer._turn()
    assert desk.answers[CY].code is RejectCode.STORE_FULL
    assert BOB not in desk.answers
    assert desk.calls.parking.waiting(queue) == 1
    assert list(desk.calls.synchronizers.state(lock).holders()) == [ANN]
    desk.committer._turn()  # the timer's work, without waiting for it
    assert not list(desk.calls.synchronizers.state(lock).holders())
    await desk.put(CY, queue, b"2")
    assert payloads(desk.answers[BOB]) == [b"2"]


@case
async def test_a_put_whose_transaction_failed_is_done_when_that_is_tried_again(desk):
    first, second = await desk.queue("a"), await desk.queue("b", 1)
    await desk.put(CY, second, b"1")
    assert await desk.do(ANN, Exchange(puts=[Put(second, [b"2"])], take=first)) is None
    desk.store.publish_errors = [StoreFull("no room")]
    desk.numbers[BOB], desk.acts[BOB] = 1, Exchange(take=second)
    desk.send(BOB)
    desk.committer._turn()
    assert BOB not in desk.answers
    desk.committer._turn()  # the timer's work, without waiting for it
    await desk.settle()
    assert payloads(desk.answers[BOB]) == [b"1"]
    assert (await desk.measure(second))[0] == 1


@case
async def test_a_put_that_waits_already_is_not_refused_when_it_comes_again(desk):
    queue = await desk.queue(limit=1)
    await desk.put(CY, queue, b"1")
    await desk.put(ANN, queue, b"2")
    desk.store.publish_errors = [StoreFull("no room")]
    desk.send(ANN)
    desk.committer._turn()
    assert ANN not in desk.answers
    desk.committer._turn()  # the timer's work, without waiting for it
    await desk.take(CY, queue)
    assert desk.answers[ANN].end is ExchangeEnd.OK


@case
async def test_a_put_that_was_done_is_not_refused_when_it_comes_again(desk):
    queue = await desk.queue()
    await desk.put(ANN, queue, b"1")
    desk.start()
    desk.store.publish_errors = [StoreFull("no room")]
    desk.send(ANN)
    desk.committer._turn()
    assert desk.answers[ANN].end is ExchangeEnd.OK
    assert (await desk.measure(queue))[0] == 1


@case
async def test_an_exchange_that_waits_for_its_take_alone_is_not_refused_when_it_comes_again(desk):
    queue, results = await desk.queue("q"), await desk.queue("r")
    await desk.put(CY, queue, b"1")
    (item,) = (await desk.take(BOB, queue)).items
    confirm_and_take = Exchange([item.number], [], [Put(results, [b"2"])], [], queue)
    assert await desk.do(BOB, confirm_and_take) is None
    desk.calls.disconnected(session_of(BOB))
    await desk.settle()
    desk.store.publish_errors = [StoreFull("no room")]
    desk.send(BOB)
    desk.committer._turn()
    await desk.settle()
    assert BOB not in desk.answers
    await desk.put(CY, queue, b"3")
    assert payloads(desk.answers[BOB]) == [b"3"]
    assert (await desk.measure(results))[0] == 1


@case
async def test_an_act_that_can_not_be_done_takes_no_other_down(desk):
    queue = await desk.queue()
    await desk.take(ANN, queue)
    exchange = desk.store.exchange

    def fail(taker, number, act, now, **options):
        if taker == BOB:
            raise OverflowError("int too large")
        return exchange(taker, number, act, now, **options)

    desk.store.exchange = fail
    desk.numbers.update({BOB: 1})
    desk.acts[BOB] = Exchange(take=1 << 64)
    desk.send(BOB)
    await desk.put(CY, queue, b"1")
    assert desk.answers[BOB].code is RejectCode.BAD_REQUEST
    assert payloads(desk.answers[ANN]) == [b"1"]


@case
async def test_a_take_is_answered_before_the_disk_has_it_and_a_put_after(desk):
    queue, results = await desk.queue("q"), await desk.queue("results")
    await desk.put(CY, queue, b"1")
    log, seen = desk.store.log, []
    desk.calls.call(
        BOB, 1, Exchange(puts=[Put(results, [b"r"])]), None, lambda _: seen.append(log[-1])
    )
    await desk.settle()
    log.clear()
    act = Exchange(puts=[Put(results, [b"r"])], take=queue)
    desk.calls.call(ANN, 1, act, None, lambda _: seen.append(list(log)))
    await desk.settle()
    assert seen == ["durable", []]
    assert log == ["durable"]


@case
async def test_an_item_that_can_not_come_back_is_given_when_the_disk_knows_that_it_is_gone(desk):
    queue = await desk.queue(confirm=Confirm.GET)
    await desk.put(CY, queue, b"1")
    log, seen = desk.store.log, []
    log.clear()
    desk.calls.call(ANN, 1, Exchange(take=queue), None, lambda _: seen.append(list(log)))
    await desk.settle()
    assert seen == [["durable"]]


@case
async def test_takes_share_a_sync_that_nobody_waits_for(desk):
    queue = await desk.queue()
    await desk.put(CY, queue, *[b"%d" % number for number in range(9)])
    desk.store.log.clear()
    held = []
    with mock.patch.object(committer, "TOLD_LINGER_S", 60):
        for number in range(1, 9):
            answers = []
            desk.calls.call(ANN, number, Exchange(held, take=queue), None, answers.append)
            while not answers:  # noqa: ASYNC110 - the committer's own turns are awaited
                await asyncio.sleep(0)
            held = [answers[0].items[0].number]
        assert desk.store.log == []
        await desk.put(CY, queue, b"10")
        assert desk.store.log == ["durable"]


@case
async def test_takers_who_call_at_the_same_time_share_a_transaction_but_for_the_first(desk):
    queue = await desk.queue()
    answers, loop = [], asyncio.get_running_loop()
    at_once = mock.Mock(wraps=desk.committer.submit_now)
    with (
        mock.patch.object(loop, "time", return_value=loop.time()),
        mock.patch.object(desk.committer, "submit_now", at_once),
    ):
        for number in (1, 2):
            for taker in (ANN, BOB, CY):
                act = Exchange(puts=[Put(queue, [b"1"])])
                desk.calls.call(taker, number, act, None, answers.append, is_urgent=True)
            await desk.settle()
        assert at_once.call_count == 1
        desk.calls.call(CY, 3, act, None, answers.append, is_urgent=True)
        assert at_once.call_count == 2
        await desk.settle()
    assert [answer.end for answer in answers] == [ExchangeEnd.OK] * 7


@case
async def test_what_leaves_nothing_behind_does_not_wait_for_the_disk(desk):
    queue = await desk.queue()
    lock = await desk.synchronizer(Kind.LOCK)
    await desk.put(CY, queue, b"1")
    before = len(desk.store.log)
    await desk.take(ANN, queue)
    await desk.take(ANN, queue)
    await desk.measure(queue)
    await desk.do(BOB, a.JoinQueue(queue))
    assert set(desk.store.log[before:]) == {"quick"}
    before = len(desk.store.log)
    await desk.do(CY, a.Acquire(lock))
    assert set(desk.store.log[before:]) == {"durable"}


# --- opening -----------------------------------------------------------------------------


@case
async def test_what_exists_is_found_with_the_settings_it_has(desk):
    first = await desk.do(ANN, a.OpenQueue("q", 5, Confirm.GET))
    assert first.is_new
    second = await desk.do(BOB, a.OpenQueue("q", 9, Confirm.NEXT))
    assert second == a.QueueOpened(first.queue, 5, Confirm.GET, is_new=False)
    assert (await desk.do(BOB, a.OpenQueue("q", -1))).code is RejectCode.BAD_REQUEST


@case
async def test_a_name_is_of_one_kind_with_one_set_of_settings(desk):
    lock = await desk.synchronizer(Kind.LOCK)
    assert await desk.do(BOB, a.OpenSynchronizer(Kind.LOCK, "s")) == a.SynchronizerOpened(
        lock, is_new=False
    )
    refused = await desk.do(BOB, a.OpenSynchronizer(Kind.EVENT, "s"))
    assert refused.code is RejectCode.CONFLICT
    await desk.synchronizer(Kind.BARRIER, 3, name="b")
    refused = await desk.do(BOB, a.OpenSynchronizer(Kind.BARRIER, "b", 2))
    assert refused.code is RejectCode.CONFLICT
    assert "parties: 3, not 2" in refused.message
