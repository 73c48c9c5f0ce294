import asyncio

import pytest
from fake_server import KEY

from multihost import AsyncClient, errors
from multihost.testing import wait_until
from multihost.wire import message as m


def triple(x):
    return 3 * x


def run(server, work):
    async def main():
        async with await AsyncClient.connect(server.url, KEY) as client:
            await asyncio.wait_for(work(client), 30)

    asyncio.run(main())


def test_submit_is_awaited(server):
    async def work(client):
        assert await client.submit(triple, 14) == 42
        futures = [client.submit(triple, i) for i in range(200)]
        await futures[-1].wait_stored()
        assert await asyncio.gather(*futures) == [3 * i for i in range(200)]
        with pytest.raises(ZeroDivisionError) as caught:
            await client.submit(divmod, 1, 0)
        assert "ZeroDivisionError" in str(caught.value.__cause__)

    run(server, work)
    assert len(server.jobs) == 2


def test_a_task_that_raises_stop_iteration_fails_and_the_client_goes_on(server):
    async def work(client):
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await client.submit(next, iter(()))
        assert isinstance(caught.value.__cause__, StopIteration)
        assert await client.submit(triple, 14) == 42

    run(server, work)


def test_a_refused_submit_says_why(server):
    async def work(client):
        server.refuse_adds = m.RefusalCode.QUEUE_FULL
        future = client.submit(triple, 1)
        with pytest.raises(errors.QueueFull):
            await future.wait_stored()
        with pytest.raises(errors.QueueFull):
            await future

    run(server, work)


def test_cancelling_the_waiting_coroutine_cancels_the_task(server):
    server.gate.clear()

    async def work(client):
        future = client.submit(triple, 1)
        await future.wait_stored()
        waiting = asyncio.ensure_future(future)
        assert waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.to_thread(wait_until, lambda: server.of_kind(m.Cancel))

    run(server, work)


@pytest.mark.parametrize("chunksize", [1, 8])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_is_an_async_iterator(server, chunksize, ordered):
    async def work(client):
        results = client.map(triple, range(500), ordered=ordered, window=40, chunksize=chunksize)
        got = [value async for value in results]
        assert (got if ordered else sorted(got)) == [3 * i for i in range(500)]

    run(server, work)


def test_a_named_map_resumes(server):
    async def work(client):
        got = [value async for value in client.map(triple, range(20), name="run-1")]
        assert got == [3 * i for i in range(20)]

    run(server, work)
    run(server, work)
    assert len(server.jobs) == 1


def test_options_and_a_broken_connection(server):
    async def work(client):
        futures = [client.options(queue="q").submit(triple, i) for i in range(20)]
        server.cut()
        assert await asyncio.gather(*futures) == [3 * i for i in range(20)]

    run(server, work)
    assert server.of_kind(m.Open)[0].spec.queue == "q"
