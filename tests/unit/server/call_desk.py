"""Calls without a server: acts go in, answers come out, and restarts forget what they must."""

from quiet_listener import QuietListener

from multihost.core.ids import taker_id
from multihost.server.calls import Calls
from multihost.server.committer import Committer
from multihost.wire import act as a
from multihost.wire.act import Confirm, Exchange, Put

OPENER = taker_id(3, 1)
"""Taker that opens and measures what a test needs."""


class Desk:
    """A server's calls, without a server."""

    def __init__(self, store):
        self.store = store
        self.fatal = []
        self.numbers = {}
        self.acts = {}
        self.start()

    def start(self):
        """Begin, or begin again after a kill: nothing is left in memory."""
        self.committer = Committer(self.store, is_durable=True, on_fatal=self.fatal.append)
        self.committer.listener = QuietListener()
        self.calls = Calls(self.committer)
        self.answers = {}

    async def settle(self):
        await self.committer.drain()
        assert not self.fatal

    async def do(self, taker, act, wait_s=None):
        """Result of an act, or None while it waits."""
        self.numbers[taker] = self.numbers.get(taker, 0) + 1
        self.acts[taker] = act
        return await self.again(taker, wait_s)

    async def again(self, taker, wait_s=None):
        """Result of the latest call of a taker, sent once more."""
        self.answers.pop(taker, None)
        self.send(taker, wait_s)
        await self.settle()
        return self.answers.get(taker)

    def send(self, taker, wait_s=None):
        def reply(result, calls=self.calls):
            assert taker not in self.answers
            if calls is self.calls:
                self.answers[taker] = result

        self.calls.call(taker, self.numbers[taker], self.acts[taker], wait_s, reply)

    async def queue(
        self, name="q", limit=0, confirm=Confirm.NEXT, *, taker=OPENER, is_transient=False
    ):
        opened = await self.do(taker, a.OpenQueue(name, limit, confirm, is_transient))
        return opened.queue

    async def synchronizer(self, kind, number=0, *, taker=OPENER, is_transient=False, name="s"):
        act = a.OpenSynchronizer(kind, name, number, b"data", is_transient)
        return (await self.do(taker, act)).synchronizer

    async def put(self, taker, queue, *payloads, wait_s=None):
        return await self.do(taker, Exchange(puts=[Put(queue, list(payloads))]), wait_s)

    async def take(self, taker, queue, wait_s=None, **rest):
        return await self.do(taker, Exchange(take=queue, **rest), wait_s)

    async def measure(self, queue):
        return (await self.do(OPENER, a.MeasureQueue(queue))).numbers
