"""Claims about connections of the managers' port as takers, against calls that a test answers."""

import asyncio
from types import SimpleNamespace

from multihost.core.ids import item_id
from multihost.server.managers import taker as taker_module
from multihost.server.managers.realm import KnownQueue
from multihost.server.managers.taker import QueueTaker
from multihost.wire import act as a

OK = a.Exchanged(a.ExchangeEnd.OK)


class Backing:
    """Calls that were made, until they are answered."""

    def __init__(self):
        self._made = asyncio.Queue()

    def open_taker(self):
        return 1

    def call(self, taker, number, act, wait_s, reply):
        self._made.put_nowait((act, reply))

    async def next(self):
        """The act of the oldest call that is not answered, and how to do that."""
        async with asyncio.timeout(20):
            return await self._made.get()


def payloads(act):
    return [bytes(payload) for put in act.puts for payload in put.payloads]


def test_what_is_put_while_a_flush_is_under_way_goes_out_after_that(monkeypatch):
    monkeypatch.setattr(taker_module, "LINGER_S", 0.0)
    tasks, results = (KnownQueue(n, 0, a.Confirm.NEXT, is_new=True) for n in (7, 8))

    async def scenario():
        backing, told = Backing(), []
        taker = QueueTaker(backing, SimpleNamespace(queues={}, prefix=""))
        taker.take("tasks", tasks, None, told.append)
        _, reply = await backing.next()
        reply(a.Exchanged(a.ExchangeEnd.OK, [a.Item(item_id(7, 0), b"")]))
        taker.put(results, b"first", None, told.append)
        flush, reply = await backing.next()
        assert (flush.confirms, payloads(flush)) == ([item_id(7, 0)], [b"first"])
        taker.put(results, b"second", None, told.append)
        assert told[-2:] == [OK, OK]
        for _ in range(5):
            await asyncio.sleep(0)  # its time has come, and the first is still under way
        reply(OK)
        flush, reply = await backing.next()
        assert (flush.confirms, payloads(flush)) == ([], [b"second"])
        reply(OK)

    asyncio.run(scenario())
