"""Random calls, repeats, deaths, restarts and failing transactions lose and double nothing."""

import asyncio
import os
from unittest import mock

from call_desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from item_store import ItemStore

from multihost.core.ids import queue_of, session_of, taker_id
from multihost.errors import StoreFull
from multihost.server import committer
from multihost.wire import act as a
from multihost.wire.act import Confirm, Exchange, ExchangeEnd, Finish, Put

EXAMPLES = int(os.environ.get("MULTIHOST_PROPERTY_EXAMPLES", "100"))
TAKERS = [taker_id(session, index) for session in (10, 11) for index in (1, 2)]
QUEUES = {"open": 0, "narrow": 2, "one": 1}

queues = st.sampled_from(list(QUEUES))
waits = st.sampled_from([None, 0])
steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(TAKERS), queues, st.integers(1, 3), waits),
    st.tuples(st.just("take"), st.sampled_from(TAKERS), queues, st.integers(1, 2), waits),
    st.tuples(st.just("move"), st.sampled_from(TAKERS), queues, queues, waits),
    st.tuples(st.just("spread"), st.sampled_from(TAKERS), queues, queues, waits),
    st.tuples(st.just("return"), st.sampled_from(TAKERS)),
    st.tuples(st.just("finish"), st.sampled_from(TAKERS), queues),
    st.tuples(st.just("join"), st.sampled_from(TAKERS), queues, waits),
    st.tuples(st.just("again"), st.sampled_from(TAKERS)),
    st.tuples(st.just("withdraw"), st.sampled_from(TAKERS)),
    st.tuples(st.just("end"), st.sampled_from(TAKERS)),
    st.tuples(st.just("disconnect"), st.sampled_from(TAKERS)),
    st.tuples(st.just("release"), st.sampled_from(TAKERS)),
    st.tuples(st.just("fill")),
    st.tuples(st.just("restart")),
)


class Recorder(ItemStore):
    """Remembers what was confirmed, as part of what is undone."""

    def __init__(self):
        super().__init__()
        self.data.done = []

    def exchange(self, taker, number, exchange, now, **options):
        payloads = [
            self.data.queues[queue_of(item)].held[item][2]
            for item in exchange.confirms
            if self._is_held(taker, item)
        ]
        result = super().exchange(taker, number, exchange, now, **options)
        if isinstance(result, a.Exchanged) and result.end <= ExchangeEnd.EMPTY:
            self.data.done += payloads
        return result

    def everything(self):
        found = list(self.data.done)
        for queue in self.data.queues.values():
            found += [payload for _, payload, _ in queue.waiting]
            found += [payload for _, _, payload, _ in queue.held.values()]
        return found


class Story:
    """What takers did, and what they were promised."""

    def __init__(self, desk, numbers):
        self.desk = desk
        self.queues = numbers
        self.held = {taker: [] for taker in TAKERS}
        self.waiting = set()
        self.promised = []
        self.count = 0

    async def tell(self, step):
        verb, taker, *rest = (*step, None)[: max(2, len(step))]
        await getattr(self, f"on_{verb}")(taker, *rest)
        await self.desk.settle()
        self.hear()
        self.check()

    async def call(self, taker, act, wait_s):
        if taker in self.waiting:
            return
        self.waiting.add(taker)
        await self.desk.do(taker, act, wait_s)

    def hear(self):
        """Follow the answers, as the takers do."""
        for taker in list(self.waiting & self.desk.answers.keys()):
            self.waiting.discard(taker)
            result, act = self.desk.answers[taker], self.desk.acts[taker]
            if not isinstance(result, a.Exchanged):
                continue
            if result.end <= ExchangeEnd.EMPTY:
                self.promised += [payload for put in act.puts for payload in put.payloads]
                gone = {*act.confirms, *act.returns}
            else:
                gone = set(result.lost)
            self.held[taker] = [item for item in self.held[taker] if item not in gone]
            self.held[taker] += [item.number for item in result.items]

    def payloads(self, count):
        self.count += count
        return [b"%d" % number for number in range(self.count - count, self.count)]

    async def on_put(self, taker, queue, count, wait_s):
        act = Exchange(puts=[Put(self.queues[queue], self.payloads(count))])
        await self.call(taker, act, wait_s)

    async def on_take(self, taker, queue, limit, wait_s):
        await self.call(taker, Exchange(take=self.queues[queue], limit=limit), wait_s)

    async def on_move(self, taker, source, target, wait_s):
        puts = [Put(self.queues[target], self.payloads(1))]
        act = Exchange(self.held[taker][:], [], puts, [], self.queues[source])
        await self.call(taker, act, wait_s)

    async def on_spread(self, taker, one, other, wait_s):
        puts = [Put(self.queues[queue], self.payloads(1)) for queue in (one, other)]
        await self.call(taker, Exchange(self.held[taker][:], [], puts), wait_s)

    async def on_return(self, taker):
        await self.call(taker, Exchange(returns=self.held[taker][:1]), None)

    async def on_finish(self, taker, queue):
        await self.call(taker, Exchange(finishes=[Finish(self.queues[queue])]), None)

    async def on_join(self, taker, queue, wait_s):
        await self.call(taker, a.JoinQueue(self.queues[queue]), wait_s)

    async def on_again(self, taker):
        if taker in self.waiting:
            await self.desk.again(taker)

    async def on_withdraw(self, taker):
        if taker in self.waiting:
            self.desk.calls.withdraw(taker, self.desk.numbers[taker])

    async def on_end(self, taker):
        self.desk.calls.end_taker(taker)
        self.forget([taker])

    async def on_disconnect(self, taker):
        self.desk.calls.disconnected(session_of(taker))

    async def on_release(self, taker):
        # It may come back and send its calls again, but what it held is lost.
        self.desk.calls.release_session(session_of(taker))

    async def on_fill(self, _):
        """The next transaction finds the disk full."""
        self.desk.store.publish_errors = [StoreFull("no room")]

    async def on_restart(self, _):
        answers = self.desk.answers
        self.desk.start()
        self.desk.answers = answers
        for taker in list(self.waiting):
            await self.desk.again(taker)

    def forget(self, takers):
        for taker in takers:
            self.held[taker] = []
            self.waiting.discard(taker)

    # what must be true -------------------------------------------------------------------

    def check(self):
        everything = self.desk.store.everything()
        assert len(everything) == len(set(everything)), "an item was doubled"
        assert set(self.promised) <= set(everything), "an item was lost"
        lines = self.desk.calls.parking._lines
        for number, line in lines.items():
            queue = self.desk.store.data.queues[number]
            assert not (line.takers and queue.waiting)
            assert not (line.joiners and not queue.unfinished)
            for pending in [*line.takers.values(), *line.putters.values()]:
                assert not pending.is_over
                assert self.desk.calls._pending[pending.taker] is pending
            assert line.surplus == sum(pending.surplus for pending in line.putters.values())
            for pending in line.putters.values():
                assert pending.surplus or len({put.queue for put in pending.rest.puts}) == 1
            if line.putters:
                # What those behind the first have in the queue is not in its way.
                first = next(iter(line.putters.values()))
                puts = [] if first.surplus else first.rest.puts
                count = sum(len(put.payloads) for put in puts)
                before = len(queue.waiting) - line.surplus + first.surplus
                assert before + count > queue.limit
                assert before > 0


@settings(max_examples=EXAMPLES)
@given(st.lists(steps, min_size=5, max_size=60))
def test_nothing_is_lost_or_doubled_and_nobody_waits_for_what_is_there(script):
    async def main():
        desk = Desk(Recorder())
        numbers = {
            name: await desk.queue(name, limit, Confirm.TASK_DONE) for name, limit in QUEUES.items()
        }
        story = Story(desk, numbers)
        async with asyncio.timeout(60):
            for step in script:
                await story.tell(step)
        desk.committer.stop()

    with mock.patch.multiple(committer, FULL_RETRY_S=0, TOLD_LINGER_S=0):
        asyncio.run(main())
