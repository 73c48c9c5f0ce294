"""Queues of items in memory that look like ``server.calls.Calls``, for tests of the door."""

import asyncio
from collections import deque

from multihost.core.ids import taker_id
from multihost.wire import act as a


class FakeQueue:
    def __init__(self, number, name, limit):
        self.number, self.name, self.limit = number, name, limit
        self.waiting = deque()
        self.unfinished = 0


class FakeCalls:
    def __init__(self):
        self.queues = {}
        self.by_name = {}
        self.held = {}
        self.parked = []
        self.takers = 0
        self.ended_sessions = []
        self.items = 0

    def open_taker(self, session):
        self.takers += 1
        return taker_id(session, self.takers)

    def call(self, taker, number, act, wait_s, reply):
        loop = asyncio.get_running_loop()
        state = {"rest is done": False}
        answer = self._do(taker, act, state)
        if answer is not None:
            loop.call_soon(reply, answer)
        elif wait_s == 0:
            loop.call_soon(reply, self._late(act))
        else:
            parked = (taker, act, reply, state)
            self.parked.append(parked)
            if wait_s is not None:
                loop.call_later(wait_s, self._expire, parked)
        self._look()

    def end_taker(self, taker, *, is_clean=True):
        self.parked = [each for each in self.parked if each[0] != taker]
        for number, (queue, item) in self.held.pop(taker, {}).items():
            queue.waiting.appendleft((number, item))
        self._look()

    def end_session(self, session, *, is_clean=False):
        self.ended_sessions.append(session)

    def names(self):
        return sorted(self.by_name)

    # within

    def _expire(self, parked):
        if parked in self.parked:
            self.parked.remove(parked)
            parked[2](self._late(parked[1]))

    def _late(self, act):
        if isinstance(act, a.JoinQueue):
            return a.Done(False)
        return a.Exchanged(a.ExchangeEnd.EMPTY if act.take is not None else a.ExchangeEnd.FULL)

    def _look(self):
        for parked in list(self.parked):
            answer = self._do(parked[0], parked[1], parked[3])
            if answer is not None:
                self.parked.remove(parked)
                asyncio.get_running_loop().call_soon(parked[2], answer)

    def _do(self, taker, act, state):
        if isinstance(act, a.OpenQueue):
            queue = self.by_name.get(act.name)
            is_new = queue is None
            if queue is None:
                number = len(self.queues) + 1
                queue = self.queues[number] = self.by_name[act.name] = FakeQueue(
                    number, act.name, act.limit
                )
            return a.QueueOpened(queue.number, queue.limit, a.Confirm.NEXT, is_new)
        if isinstance(act, a.MeasureQueue):
            queue = self.queues[act.queue]
            return a.Measured([len(queue.waiting), 0, queue.unfinished, queue.limit])
        if isinstance(act, a.JoinQueue):
            return a.Done() if self.queues[act.queue].unfinished == 0 else None
        return self._exchange(taker, act, state)

    def _exchange(self, taker, act, state):
        if not state["rest is done"]:
            refusal = self._refuse(act)
            if refusal is not None:
                return refusal[0]
            self._settle(taker, act)
            state["rest is done"] = True
        if act.take is None:
            return a.Exchanged(a.ExchangeEnd.OK)
        queue = self.queues[act.take]
        if not queue.waiting:
            return None
        number, payload = queue.waiting.popleft()
        self.held.setdefault(taker, {})[number] = (queue, payload)
        return a.Exchanged(a.ExchangeEnd.OK, [a.Item(number, payload)])

    def _refuse(self, act):
        for put in act.puts:
            queue = self.queues[put.queue]
            if queue.limit and len(queue.waiting) + len(put.payloads) > queue.limit:
                return (None,)
        for finish in act.finishes:
            if self.queues[finish.queue].unfinished < finish.times:
                return (a.Rejected(a.RejectCode.TOO_MANY, "task_done() called too many times"),)
        return None

    def _settle(self, taker, act):
        held = self.held.setdefault(taker, {})
        for finish in act.finishes:
            self.queues[finish.queue].unfinished -= finish.times
        for item in act.confirms:
            held.pop(item)
        for item in act.returns:
            queue, payload = held.pop(item)
            queue.waiting.appendleft((item, payload))
        for put in act.puts:
            for payload in put.payloads:
                self.items += 1
                self.queues[put.queue].waiting.append((self.items, payload))
                self.queues[put.queue].unfinished += 1
