"""One connection as a taker of queues: its calls, one after the other.

What the standard library's client sees is ``queue.Queue``; what is done is
``wire.taking``'s: an item is leased to the connection, what is put while one
is held is staged and answered at once, and goes out in the transaction that
confirms the item: with the next ``get``, or after ``LINGER_S``.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from multihost.server.managers.backing import Backing
from multihost.server.managers.realm import KnownQueue, Realm
from multihost.wire import act as a
from multihost.wire.blob import Payload
from multihost.wire.message import INLINE_BYTES
from multihost.wire.taking import LINGER_S, Taking

Then = Callable[[a.AnyResult], None]
Make = Callable[[], a.AnyAct]


class QueueTaker:
    """The calls of one connection.

    Invariant: at most one call is under way; others wait their turn, and an exchange is
    made only when its turn has come.
    """

    def __init__(self, backing: Backing, realm: Realm) -> None:
        """Be nobody until the first call."""
        self.taking = Taking()
        self.has_begun = False
        """Whether it ever put something while it held nothing."""
        self.says_goodbye = False
        """Its client would say so if it ended in good order."""
        self.has_none = False
        """Whether the item taken last is None."""
        self.took_from: set[str] = set()
        self.failure = ""
        """Why something that was answered could not be done after all; for the next request."""
        self._backing = backing
        self._realm = realm
        self._taker: int | None = None
        self._number = 0
        self.writer: int | None = None
        """The taker that puts are done once by, when nothing is held; see ``Backing``."""
        self.written = 0
        """Number of its latest put."""
        self._waiting: deque[tuple[Make, float | None, Then, int | None]] = deque()
        self._under_way: tuple[int, Then] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._is_flushing = False
        self._is_ended = False

    # calls -----------------------------------------------------------------------------

    def call(
        self, make: Make, wait_s: float | None, then: Then, written: int | None = None
    ) -> None:
        """Do an act in its turn, and hand its result to ``then``; ``written``: as the writer."""
        if self._under_way is not None:
            self._waiting.append((make, wait_s, then, written))
        else:
            self._start(make, wait_s, then, written)

    def open(self, name: str, limit: int, then: Callable[[KnownQueue | a.Rejected], None]) -> None:
        """The queue of a name, made if there is none."""
        known = self._realm.queues.get(name)
        if known is not None:
            then(known)
            return

        def opened(result: a.AnyResult) -> None:
            if isinstance(result, a.QueueOpened):
                queue = KnownQueue(result.queue, result.limit, result.confirm, result.is_new)
                self._realm.queues[name] = queue
                then(queue)
            else:
                assert isinstance(result, a.Rejected)
                then(result)

        self.call(lambda: a.OpenQueue(self._realm.prefix + name, limit), None, opened)

    def put(self, queue: KnownQueue, item: bytes, wait_s: float | None, then: Then) -> None:
        """Put an item: staged when one is held, else at once."""
        if len(item) > INLINE_BYTES:
            self._put_large(queue, item, wait_s, then)
        else:
            self._put(queue, item, wait_s, then)

    def take(self, name: str, queue: KnownQueue, wait_s: float | None, then: Then) -> None:
        """Take the next item; what was taken before is done with."""
        self.took_from.add(name)
        self.taking.policies[queue.number] = queue.confirm
        self._exchange(lambda: self.taking.take(queue.number), wait_s, then)

    def finish(self, queue: KnownQueue, then: Then) -> None:
        """``task_done``."""
        self._exchange(lambda: self.taking.finish(queue.number), None, then)

    def ask(self, act: a.AnyAct, then: Then) -> None:
        """Do another act, after what is staged has gone out."""
        self._flush()
        self.call(lambda: act, None, then)

    # the end -----------------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether items are in its hands."""
        return bool(self.taking.held)

    @property
    def holds_none(self) -> bool:
        """Whether all that is in its hands is None: by custom the sign to end, and it has ended.

        Given to another it would end that one, too.
        """
        return self.has_none and sum(map(len, self.taking.held.values())) == 1

    def end(self, *, is_clean: bool) -> None:
        """The connection is gone; what was staged goes out all the same.

        Clean: what is held is done with. Otherwise it goes to others, unless what was made
        of it was put.
        """
        if self._is_ended:
            return
        self._waiting.clear()
        if self._linger is not None:
            self._linger.cancel()
        if self._under_way is not None and not self._is_flushing:
            # It was inside a call: nobody saw the answer, so nothing is known to be done.
            self._abandon()
            return
        if self.taking.staged or self._is_flushing or (is_clean and self.holds):
            make = self.taking.end if is_clean else self.taking.flush
            self._exchange(make, None, lambda _: self._abandon())
        else:
            self._abandon()

    def _abandon(self) -> None:
        self._is_ended = True
        self._under_way = None
        if self.writer is not None:
            self._backing.leave_writer(self.writer, self.written)
        if self._taker is not None:
            self._backing.end_taker(self._taker)

    # within ------------------------------------------------------------------------------

    def _put_large(self, queue: KnownQueue, item: bytes, wait_s: float | None, then: Then) -> None:
        async def store() -> None:
            payload = await self._backing.store(item)
            if not self._is_ended:
                self._put(queue, payload, wait_s, then)

        task = asyncio.get_running_loop().create_task(store())
        task.add_done_callback(lambda done: _refused(done, then))

    def _put(self, queue: KnownQueue, item: Payload, wait_s: float | None, then: Then) -> None:
        if self.taking.stages(queue.limit):
            self.taking.stage(queue.number, [item])
            then(a.Exchanged(a.ExchangeEnd.OK))
            if self.taking.is_full:
                self._flush()
            else:
                self._flush_soon()
            return
        if not self.holds:
            self.has_begun = True
            if self.writer is not None and not self.taking.staged:
                put = a.Exchange(puts=[a.Put(queue.number, [item])])
                self.call(lambda: put, wait_s, then, self.written)
                return
        self._exchange(lambda: self.taking.put(queue.number, [item]), wait_s, then)

    def _flush_soon(self) -> None:
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._flush)

    def _flush(self) -> None:
        """Let what is staged go out by itself."""

        def flushed(_: a.AnyResult) -> None:
            self._is_flushing = False
            if self.taking.staged:  # while the other was on its way
                self._flush_soon()

        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self.taking.staged and not self._is_flushing:
            self._is_flushing = True
            self._exchange(self.taking.flush, None, flushed)

    def _exchange(self, make: Callable[[], a.Exchange], wait_s: float | None, then: Then) -> None:
        made: list[a.Exchange] = []

        def build() -> a.AnyAct:
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            made.append(make())
            return made[-1]

        def settle(result: a.AnyResult) -> None:
            if isinstance(result, a.Exchanged):
                self.taking.settle(made[-1], result)
                if result.end is a.ExchangeEnd.FULL:
                    self._stage_again(made[-1])
                if result.end is a.ExchangeEnd.LOST:
                    # What it held is another's, so what it made of it never was; go on without.
                    self._start(build, wait_s, settle)
                    return
            if made[-1].puts and made[-1].confirms and not _is_done(result):
                self._give_up(result)
            then(result)

        self.call(build, wait_s, settle)

    def _stage_again(self, exchange: a.Exchange) -> None:
        """There was no room for the last put, which is the caller's; the others were answered."""
        for put in exchange.puts[:-1]:
            self.taking.stage(put.queue, put.payloads)
        if self.taking.staged:
            self._flush_soon()

    def _give_up(self, result: a.AnyResult) -> None:
        """What was made of the items can't be kept: others get them, and the client is told."""
        why = result.message if isinstance(result, a.Rejected) else "the queue is closed"
        self.failure = f"what was put could not be kept, and what it was made of goes back: {why}"
        held = [item for items in self.taking.held.values() for item in items]
        self._exchange(lambda: self.taking.give_back(held), None, _nothing)

    def _start(
        self, make: Make, wait_s: float | None, then: Then, written: int | None = None
    ) -> None:
        if self._taker is None:
            self._taker = self._backing.open_taker()
        self._number += 1
        number = self._number
        self._under_way = (number, then)
        taker, call = self._taker, number
        if written is not None:
            assert self.writer is not None
            taker, call = self.writer, written
        self._backing.call(
            taker, call, make(), wait_s, lambda result: self._answered(number, result)
        )

    def _answered(self, number: int, result: a.AnyResult) -> None:
        if self._under_way is None or self._under_way[0] != number:
            return
        then = self._under_way[1]
        self._under_way = None
        if isinstance(result, a.Rejected) and result.code is a.RejectCode.NOT_FOUND:
            self._realm.queues.clear()  # one was deleted: the next request makes it anew
        then(result)
        if self._waiting and self._under_way is None and not self._is_ended:
            self._start(*self._waiting.popleft())


def _refused(task: "asyncio.Task[None]", then: Then) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        then(a.Rejected(a.RejectCode.STORE_FULL, str(error)))


def _is_done(result: a.AnyResult) -> bool:
    return isinstance(result, a.Exchanged) and result.end in (
        a.ExchangeEnd.OK,
        a.ExchangeEnd.EMPTY,
        a.ExchangeEnd.FULL,
    )


def _nothing(_: a.AnyResult) -> None:
    """A flush answers nobody."""
