"""A client that speaks messages: each call, cut and return is the test's own decision."""

import asyncio
import itertools
import os

from multihost.runtime.peer import Peer
from multihost.wire import act as a
from multihost.wire import message as m

DEADLINE_S = 30.0
PROBE = 1000
"""Number of a taker that holds nothing and is only there to be answered."""


class RawClient:
    """A session whose unanswered calls are sent again whenever it comes back."""

    def __init__(self, url, key, *, returns=False):
        """``returns``: come back by itself whenever the connection breaks."""
        self.uid = os.urandom(16)
        self.peer = Peer(self, m.Role.CLIENT, [url], key)
        self.returns = returns
        self.answers = 0
        self._numbers = {}
        self._calls = {}
        self._gone = asyncio.Event()
        self._running = None

    async def __aenter__(self):
        await self.come()
        if self.returns:
            self._running = asyncio.ensure_future(self.peer.run())
        return self

    async def __aexit__(self, *_):
        if self.peer.is_connected:
            self.peer.close()
            await self._wait(self._gone.wait())
        if self._running is not None:
            self._running.cancel()

    # PeerOwner

    def opening(self):
        return m.Attach(self.uid)

    def connected(self, welcome):
        self._gone.clear()
        for call, answer in self._calls.values():
            if not answer.done():
                self.peer.send(call)

    def received(self, messages):
        for message in messages:
            assert isinstance(message, m.Answer), message
            call, answer = self._calls[message.taker]
            assert call.number == message.number
            assert not answer.done(), "answered twice"
            self.answers += 1
            answer.set_result(message.result)

    def writable(self):
        pass

    def disconnected(self, reason):
        self._gone.set()

    # calls

    def start(self, act, taker=1, wait_s=None):
        """Send a call; a future of its result."""
        number = self._numbers[taker] = self._numbers.get(taker, 0) + 1
        answer = asyncio.get_running_loop().create_future()
        call = m.Call(taker, number, act, wait_s)
        self._calls[taker] = call, answer
        self.peer.send(call)
        return answer

    async def do(self, act, taker=1, wait_s=None):
        """Result of a call."""
        return await self._wait(self.start(act, taker, wait_s))

    async def park(self, act, taker=1, wait_s=None):
        """Send a call that has to wait, and return when it does: a future of its result."""
        answer = self.start(act, taker, wait_s)
        await self.do(a.MeasureQueue(0), PROBE)
        assert not answer.done(), answer.result()
        return answer

    def withdraw(self, taker=1):
        self.peer.send(m.Withdraw(taker, self._numbers[taker]))

    def end_taker(self, taker=1):
        self.peer.send(m.EndTaker(taker))

    # the connection

    async def come(self):
        await self.peer.connect()

    async def cut(self):
        """Break the connection, as a process that is killed does."""
        self.peer.drop("cut by the test")
        await self.gone()

    async def gone(self):
        """Return when the connection is broken."""
        await self._wait(self._gone.wait())

    async def _wait(self, answer):
        return await asyncio.wait_for(answer, DEADLINE_S)

    # what tests need often

    async def queue(self, name, limit=0, confirm=a.Confirm.NEXT, *, is_transient=False):
        return (await self.do(a.OpenQueue(name, limit, confirm, is_transient), PROBE)).queue

    async def synchronizer(self, kind, name, number=0, *, is_transient=False):
        act = a.OpenSynchronizer(kind, name, number, b"", is_transient)
        return (await self.do(act, PROBE)).synchronizer

    async def put(self, queue, *payloads, taker=1, **rest):
        act = a.Exchange(puts=[a.Put(queue, list(payloads))], **rest)
        result = await self.do(act, taker)
        assert result.end is a.ExchangeEnd.OK, result

    async def measure(self, queue):
        return (await self.do(a.MeasureQueue(queue), PROBE)).numbers


_names = itertools.count()


def new_name():
    """A name that no other test uses."""
    return f"name {next(_names)}"
