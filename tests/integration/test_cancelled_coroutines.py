"""Coroutines of a real server's client that are cancelled and live on: nothing is held for them."""

import asyncio
import itertools

import pytest

from multihost import AsyncClient
from multihost.testing import Cluster

SOON_S = 20
_names = (f"cancelled-{number}" for number in itertools.count())

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=0) as cluster:
        yield cluster


@pytest.fixture
def name():
    return next(_names)


def run(cluster, main):
    """Run ``main`` with the clients of two programs."""

    async def within():
        connect = AsyncClient.connect
        async with (
            await connect(cluster.url, cluster.key) as ann,
            await connect(cluster.url, cluster.key) as bob,
        ):
            await main(ann, bob)

    asyncio.run(within())


def live_on(work):
    """A task that is cancelled at some time in ``work`` and goes on; what ends it, and the task."""
    may_end = asyncio.Event()

    async def whole():
        with pytest.raises(asyncio.CancelledError):
            await work()
        await may_end.wait()

    return may_end, asyncio.create_task(whole())


def cancel_me():
    """Have the next suspension of this coroutine raise CancelledError."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def test_a_lock_is_released_though_that_is_where_its_coroutine_is_cancelled(cluster, name):
    async def main(ann, bob):
        lock, same = await ann.lock(name), await bob.lock(name)
        source, target = await ann.queue(name), await ann.queue(f"{name}-results")
        await source.put("x")

        async def work():
            async with lock:
                await target.put(await source.get())
                cancel_me()

        may_end, task = live_on(work)
        results = await bob.queue(f"{name}-results")
        assert await results.get(timeout=SOON_S) == "x"
        assert await same.acquire(timeout=SOON_S)
        may_end.set()
        await task

    run(cluster, main)


def test_a_lock_is_released_behind_a_call_that_was_cancelled_before(cluster, name):
    async def main(ann, bob):
        lock, same = await ann.lock(name), await bob.lock(name)
        empty = await ann.queue(name)
        waits = asyncio.Event()

        async def work():
            async with lock:
                waits.set()
                try:
                    await empty.get()
                except asyncio.CancelledError:
                    cancel_me()
                    raise

        may_end, task = live_on(work)
        await waits.wait()
        task.cancel()
        assert await same.acquire(timeout=SOON_S)
        may_end.set()
        await task

    run(cluster, main)


@pytest.mark.parametrize("ends_well", [True, False])
def test_an_item_of_a_block_is_settled_behind_a_call_that_was_cancelled_before(
    cluster, name, ends_well
):
    async def main(ann, bob):
        source = await ann.queue(name, confirm="task_done")
        empty = await ann.queue(f"{name}-empty")
        await source.put("x")
        waits = asyncio.Event()

        async def work():
            async with source.take():
                waits.set()
                try:
                    await empty.get()
                except asyncio.CancelledError:
                    cancel_me()
                    if not ends_well:
                        raise

        may_end, task = live_on(work)
        await waits.wait()
        task.cancel()
        others = await bob.queue(name)
        if ends_well:
            await others.join()
            assert await others.empty()
        else:
            assert await others.get(timeout=SOON_S) == "x"
        may_end.set()
        await task

    run(cluster, main)


def test_a_notified_wait_that_is_cancelled_has_its_lock_again_before_it_goes_on(cluster, name):
    async def main(ann, bob):
        condition, same = await ann.condition(name), await bob.condition(name)
        waits = asyncio.Event()

        async def work():
            async with condition:
                waits.set()
                await condition.wait()

        may_end, task = live_on(work)
        await waits.wait()
        async with same:
            await same.notify()
            task.cancel()
            await asyncio.sleep(0)
        assert await same.lock.acquire(timeout=SOON_S)
        may_end.set()
        await task

    run(cluster, main)
