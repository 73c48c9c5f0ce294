"""What takers hold and wait for, through kills of clients and of a real server."""

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from raw_client import DEADLINE_S, PROBE, RawClient, new_name

from multihost.testing import Cluster
from multihost.wire import act as a
from multihost.wire.act import Exchange, ExchangeEnd, Finish, Kind, Put, RejectCode

ITEMS = 300
KILLS = 3


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=0) as cluster:
        yield cluster


def case(test):
    """A test that is a coroutine and is given a cluster."""

    def run(cluster):
        async def main():
            async with asyncio.timeout(4 * DEADLINE_S):
                await test(cluster)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


def connect(cluster, **options):
    return RawClient(cluster.url, cluster.key, **options)


def restart(cluster):
    cluster.kill_server()
    cluster.start_server()


async def soon(answer):
    return await asyncio.wait_for(answer, DEADLINE_S)


def payloads(result):
    assert result.end is ExchangeEnd.OK, result
    return [item.payload for item in result.items]


# --- clients that are killed ---------------------------------------------------------------


@case
async def test_the_item_of_a_killed_taker_goes_to_who_waits(cluster):
    async with connect(cluster) as dead, connect(cluster) as other:
        queue = await other.queue(new_name())
        await other.put(queue, b"1")
        await dead.do(Exchange(take=queue))
        waiting = await other.park(Exchange(take=queue))
        await dead.cut()
        (item,) = (await soon(waiting)).items
        assert (item.payload, item.attempt) == (b"1", 2)


@case
async def test_who_comes_back_in_time_keeps_what_it_holds(cluster):
    async with connect(cluster) as client, connect(cluster) as other:
        queue = await other.queue(new_name())
        lock = await other.synchronizer(Kind.LOCK, new_name())
        await other.put(queue, b"1")
        (item,) = (await client.do(Exchange(take=queue))).items
        await client.do(a.Acquire(lock))
        await client.cut()
        await client.come()
        result = await client.do(Exchange(confirms=[item.number]))
        assert result.end is ExchangeEnd.OK
        assert await client.do(a.Release(lock)) == a.Done()


@case
async def test_who_comes_back_late_is_told_what_it_has_lost(cluster):
    async with connect(cluster) as late, connect(cluster) as other:
        queue = await other.queue(new_name())
        await other.put(queue, b"1")
        (item,) = (await late.do(Exchange(take=queue))).items
        waiting = await other.park(Exchange(take=queue))
        await late.cut()
        await soon(waiting)
        await late.come()
        act = Exchange(confirms=[item.number], puts=[Put(queue, [b"result"])])
        result = await late.do(act)
        assert (result.end, result.lost) == (ExchangeEnd.LOST, [item.number])
        assert (await other.measure(queue))[0] == 0


@case
async def test_a_getter_that_is_killed_while_it_waits_swallows_nothing(cluster):
    async with connect(cluster) as dead, connect(cluster) as other:
        queue = await other.queue(new_name())
        await dead.park(Exchange(take=queue))
        await dead.cut()
        await other.put(queue, b"1", b"2")
        got = [payloads(await other.do(Exchange(take=queue)))[0] for _ in range(2)]
        assert sorted(got) == [b"1", b"2"]


@case
async def test_a_process_that_is_killed_with_sigkill_loses_its_item_to_another(cluster):
    program = f"""
import asyncio, sys
from raw_client import RawClient
from multihost.wire.act import Exchange

async def main():
    client = RawClient({cluster.url!r}, {cluster.key!r})
    await client.come()
    queue = await client.queue(sys.argv[1])
    result = await client.do(Exchange(take=queue))
    print(result.items[0].payload.decode(), flush=True)
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""
    async with connect(cluster) as other:
        name = new_name()
        queue = await other.queue(name)
        await other.put(queue, b"one")
        process = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for here
            [sys.executable, "-c", program, name],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
        )
        assert process.stdout.readline() == b"one\n"
        waiting = await other.park(Exchange(take=queue))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert payloads(await soon(waiting)) == [b"one"]


@pytest.mark.parametrize(("kind", "number"), [(Kind.LOCK, 0), (Kind.RLOCK, 0), (Kind.SEMAPHORE, 1)])
def test_what_a_killed_client_holds_is_released(cluster, kind, number):
    @case
    async def check(cluster):
        async with connect(cluster) as dead, connect(cluster) as other:
            lock = await other.synchronizer(kind, new_name(), number)
            held = await dead.do(a.Acquire(lock))
            waiting = await other.park(a.Acquire(lock))
            await dead.cut()
            assert (await soon(waiting)).token > held.token

    check(cluster)


@pytest.mark.parametrize("kind", [Kind.LOCK, Kind.SEMAPHORE])
def test_a_waiter_that_is_killed_is_passed_over(cluster, kind):
    @case
    async def check(cluster):
        async with connect(cluster) as dead, connect(cluster) as other:
            lock = await other.synchronizer(kind, new_name(), 1)
            await other.do(a.Acquire(lock), 1)
            await dead.park(a.Acquire(lock))
            waiting = await other.park(a.Acquire(lock), 2)
            await dead.cut()
            await other.do(a.Release(lock), 1)
            assert (await soon(waiting)).value

    check(cluster)


@case
async def test_a_condition_works_on_when_a_waiter_and_the_holder_are_killed(cluster):
    async with connect(cluster) as waiter, connect(cluster) as holder, connect(cluster) as other:
        lock = await other.synchronizer(Kind.RLOCK, new_name())
        condition = await other.synchronizer(Kind.CONDITION, new_name(), lock)
        for client in (waiter, other):
            await client.do(a.Acquire(lock))
            waiting = await client.park(a.WaitNotified(condition))
        await holder.do(a.Acquire(lock))
        await waiter.cut()
        assert (await holder.do(a.Notify(condition))).value
        await holder.cut()
        # It was the dead waiter that was notified; its notify is the other's.
        assert (await soon(waiting)).value
        assert (await other.do(a.Release(lock))).value


@case
async def test_an_event_is_set_whoever_of_those_who_wait_is_dead(cluster):
    async with connect(cluster) as dead, connect(cluster) as other:
        event = await other.synchronizer(Kind.EVENT, new_name())
        await dead.park(a.WaitSet(event))
        waiting = await other.park(a.WaitSet(event))
        await dead.cut()
        await other.do(a.SetEvent(event), 2)
        assert await soon(waiting) == a.Done()


@case
async def test_a_barrier_breaks_when_a_party_is_killed(cluster):
    async with connect(cluster) as dead, connect(cluster) as other:
        barrier = await other.synchronizer(Kind.BARRIER, new_name(), 3)
        await dead.park(a.PassBarrier(barrier))
        waiting = await other.park(a.PassBarrier(barrier))
        await dead.cut()
        assert (await soon(waiting)).code is RejectCode.BROKEN


@case
async def test_a_client_that_says_goodbye_leaves_its_items_to_others_and_drops_its_own(cluster):
    async with connect(cluster) as other:
        queue = await other.queue(new_name())
        await other.put(queue, b"1")
        name = new_name()
        async with connect(cluster) as leaving:
            own = await leaving.queue(name, is_transient=True)
            await leaving.do(Exchange(take=queue))
            waiting = await other.park(Exchange(take=own))
        assert (await soon(waiting)).end is ExchangeEnd.CLOSED
        assert payloads(await other.do(Exchange(take=queue))) == [b"1"]
        assert (await other.do(a.OpenQueue(name))).is_new


@case
async def test_a_taker_that_ends_leaves_what_it_holds_to_others(cluster):
    async with connect(cluster) as client:
        queue = await client.queue(new_name())
        await client.put(queue, b"1", taker=1)
        await client.do(Exchange(take=queue), 2)
        waiting = await client.park(Exchange(take=queue), 1)
        client.end_taker(2)
        assert payloads(await soon(waiting)) == [b"1"]


@case
async def test_a_wait_ends_by_its_time_or_when_it_is_withdrawn(cluster):
    async with connect(cluster) as client:
        queue = await client.queue(new_name())
        lock = await client.synchronizer(Kind.LOCK, new_name())
        await client.do(a.Acquire(lock), PROBE)
        assert (await client.do(Exchange(take=queue), 1, 0.01)).end is ExchangeEnd.EMPTY
        assert not (await client.do(a.Acquire(lock), 1, 0.01)).value
        for act, taker in ((Exchange(take=queue), 1), (a.Acquire(lock), 2)):
            waiting = await client.park(act, taker)
            client.withdraw(taker)
            result = await soon(waiting)
            assert result in (a.Exchanged(ExchangeEnd.EMPTY), a.Done(False))


@case
async def test_a_taker_that_is_out_of_range_is_refused(cluster):
    async with connect(cluster) as client:
        for taker in (0, -1, 1 << 24):
            result = await client.do(a.MeasureQueue(1), taker)
            assert result.code is RejectCode.BAD_REQUEST
        result = await client.do(Exchange(take=1 << 63))
        assert isinstance(result, a.Rejected)
        assert isinstance(await client.do(a.Acquire((1 << 64) - 1)), a.Rejected)


# --- a server that is killed ---------------------------------------------------------------


@case
async def test_calls_that_wait_go_on_waiting_when_the_server_was_killed(cluster):
    async with connect(cluster, returns=True) as client, connect(cluster, returns=True) as other:
        names = [new_name() for _ in range(9)]
        empty, full, joined = [
            await other.queue(name, limit) for name, limit in zip(names, (0, 1, 0), strict=False)
        ]
        lock = await other.synchronizer(Kind.LOCK, names[3])
        rlock = await other.synchronizer(Kind.RLOCK, names[4])
        condition = await other.synchronizer(Kind.CONDITION, names[5], rlock)
        event = await other.synchronizer(Kind.EVENT, names[6])
        barrier = await other.synchronizer(Kind.BARRIER, names[7], 2)
        await other.put(full, b"first")
        await other.put(joined, b"unfinished")
        await other.do(a.Acquire(lock))
        await client.do(a.Acquire(rlock), 4)
        waits = [
            await client.park(act, taker)
            for taker, act in enumerate(
                [
                    Exchange(take=empty),
                    Exchange(puts=[Put(full, [b"second"])]),
                    a.Acquire(lock),
                    a.WaitNotified(condition),
                    a.WaitSet(event),
                    a.PassBarrier(barrier),
                    a.JoinQueue(joined),
                ],
                1,
            )
        ]
        await asyncio.to_thread(restart, cluster)
        await other.put(empty, b"1")
        assert payloads(await other.do(Exchange(take=full))) == [b"first"]
        await other.do(a.Release(lock))
        await other.do(a.Acquire(rlock))
        assert (await other.do(a.Notify(condition))).number == 1
        await other.do(a.Release(rlock))
        await other.do(a.SetEvent(event))
        await other.do(a.PassBarrier(barrier))
        await other.do(Exchange(finishes=[Finish(joined)]))
        taken, put, acquired, notified, was_set, passed, done = [await soon(w) for w in waits]
        assert payloads(taken) == [b"1"]
        assert put.end is ExchangeEnd.OK
        assert [acquired.value, notified.value, was_set.value] == [True] * 3
        assert (passed.number, done) == (0, a.Done())
        assert payloads(await other.do(Exchange(take=full))) == [b"second"]


@case
async def test_what_is_held_survives_a_kill_of_the_server_and_the_dead_lose_it(cluster):
    async with connect(cluster) as dead, connect(cluster, returns=True) as other:
        queue = await other.queue(new_name())
        lock = await other.synchronizer(Kind.LOCK, new_name())
        await other.put(queue, b"1", b"2")
        await dead.do(Exchange(take=queue))
        token = (await dead.do(a.Acquire(lock))).token
        (mine,) = (await other.do(Exchange(take=queue))).items
        await asyncio.to_thread(restart, cluster)
        result = await other.do(Exchange(confirms=[mine.number], take=queue))
        assert payloads(result) == [b"1"]
        assert (await other.do(a.Acquire(lock))).token > token


@case
async def test_every_item_passes_through_once_whenever_the_server_is_killed(cluster):
    chance = random.Random(3)
    async with connect(cluster, returns=True) as client:
        first, second = await client.queue(new_name(), 20), await client.queue(new_name())

        async def produce():
            for number in range(ITEMS):
                await client.put(first, str(number).encode(), taker=1)
            await client.do(a.CloseQueue(first), 1)

        async def pass_on(taker):
            confirms, puts = [], []
            while True:
                act = Exchange(confirms, [], puts, [], first)
                result = await client.do(act, taker)
                if result.end is ExchangeEnd.CLOSED:
                    return
                (item,) = result.items
                assert item.attempt == 1
                confirms, puts = [item.number], [Put(second, [item.payload])]

        async def kill():
            for at in sorted(chance.sample(range(ITEMS), KILLS)):
                while (await client.measure(second))[0] < at:
                    pass
                await asyncio.to_thread(restart, cluster)

        await asyncio.gather(produce(), *(pass_on(taker) for taker in (2, 3, 4)), kill())
        result = await client.do(Exchange(take=second, limit=ITEMS + 1))
        assert sorted(int(item.payload) for item in result.items) == list(range(ITEMS))


# --- listings ------------------------------------------------------------------------------


@case
async def test_queues_of_items_are_listed_with_who_waits_and_what_is_held(cluster):
    async with connect(cluster) as client:
        name = new_name()
        queue = await client.queue(name, 7)
        await client.queue("private", is_transient=True)
        await client.put(queue, b"1", b"2", b"3")
        await client.do(Exchange(take=queue, limit=3), 1)
        await client.park(Exchange(take=queue), 2)
        await client.do(Exchange(take=queue), 3, 0)
        rows = await asyncio.to_thread(cluster.get, "/api/item-queues")
        assert "private" not in {row["queue"] for row in rows}
        (row,) = [row for row in rows if row["queue"] == name]
        assert row == {
            "queue": name,
            "of": "items",
            "waiting": 0,
            "held": 3,
            "takers": 1,
            "unfinished": 3,
            "put": 3,
            "confirmed": 0,
            "limit": 7,
            "confirm": "next",
            "is_closed": False,
        }
