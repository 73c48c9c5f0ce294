"""A taker: one thread's or coroutine's line of calls, and what it holds.

The same core serves both. It is written with ``await``; what is awaited
suspends a coroutine (``asyncio_taker``), but blocks a thread right where it
stands (``thread_taker``), so that a blocking program's coroutine gets from its
beginning to its result in one step.
"""

import asyncio
import contextlib
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from multihost.client.blobs import BlobExchange
from multihost.client.branches import Branch, Branches
from multihost.client.packing import Bulk
from multihost.client.refusals import error_of
from multihost.core.ids import queue_of
from multihost.errors import MultihostError
from multihost.runtime import clock
from multihost.wire.act import (
    Acquire,
    AnyAct,
    AnyResult,
    Confirm,
    Done,
    Exchange,
    Exchanged,
    ExchangeEnd,
    FinishAction,
    Notify,
    PassBarrier,
    Put,
    Rejected,
    Release,
    ResetBarrier,
    SetEvent,
)
from multihost.wire.blob import Blob, Payload
from multihost.wire.seal import Seal
from multihost.wire.taking import Taking

Decide = Callable[[], AnyAct | None]
"""What a call is to ask for, when its turn has come; None: nothing any more."""
Wake = Callable[[], None]

_GIVING = frozenset({FinishAction, Notify, Release, ResetBarrier, SetEvent})
"""What others may wait for, so that it is done even if its caller is interrupted."""


class Pending:
    """A call under way. ``wake`` is called exactly once, when it is over."""

    # On the class, so that a call that needs none of them does not set them.
    began = 0.0
    """When it was first sent, on the clock of this process."""
    number = 0
    act: AnyAct | None = None
    branch: Branch | None = None
    """Where it was made, if not on the session's connection."""
    result: AnyResult | None = None
    error: MultihostError | None = None
    is_abandoned = False
    """Nobody waits for it any more; what it is granted is given back."""
    is_settled = False
    """Its taker has followed the answer; it may come again after an interrupt."""

    def __init__(
        self,
        taker: "Taker",
        decide: Decide,
        wait_s: float | None,
        wake: Wake,
        is_owed: bool = False,  # noqa: FBT001, FBT002 - by its place, since it is made so often
    ) -> None:
        """A call of ``taker``; the server waits for what it asks for ``wait_s`` at most.

        ``is_owed``: it gives something up, and is made even if nobody waits for it any more.
        """
        self.taker = taker
        self.decide = decide
        self.wait_s = wait_s
        self.wake = wake
        self.is_owed = is_owed


class Line(Protocol):
    """The session's calls, as a taker needs them. On the loop's thread unless it says otherwise."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that everything runs on."""
        ...

    @property
    def blobs(self) -> BlobExchange:
        """How large payloads travel."""
        ...

    @property
    def seal(self) -> Seal | None:
        """What items are signed with, if there is one."""
        ...

    def post(self, call: Callable[[], None]) -> None:
        """From any thread: call something on the loop's; raises ConnectionLost if it has ended."""
        ...

    def start(self, pending: Pending) -> None:
        """Send a call when its turn has come."""
        ...

    def start_here(self, pending: Pending) -> bool:
        """The same from the taker's thread; whether it is answered already.

        Raises ConnectionLost when the client is closed.
        """
        ...

    def resend(self, pending: Pending) -> None:
        """From any thread: have a call go on over the session's connection."""
        ...

    @property
    def branches(self) -> Branches:
        """Connections of single threads."""
        ...

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for a call any more."""
        ...

    def line_up(self, pending: Pending) -> None:
        """From the taker's thread: make a call that nobody waits for before all that come after it.

        Nothing when the client is closed.
        """
        ...

    def note_staged(self, taker: "Taker") -> None:
        """Have what was staged sent soon; from any thread."""
        ...

    def forget_queue(self, queue: int) -> None:
        """No taker is to confirm what it took from a queue any more; from any thread."""
        ...


class Taker:
    """Base of both kinds.

    Invariant: ``taking``, and whose turn it is, change under ``_guard``; what a call
    asks for is decided when its turn has come, all answers before it settled.
    """

    def __init__(self, line: Line, number: int) -> None:
        """A taker with the session's ``number`` for it."""
        self.line = line
        self.number = number
        self.current: Pending | None = None
        """The call that was sent; the next ones wait until it is answered."""
        self.taking = Taking()
        self.tokens: dict[int, list[int]] = {}
        """Fencing tokens of what it holds, by synchronizer, the latest last."""
        self._behind: deque[Pending] = deque()
        self._last_number = 0
        self._guard = allocate_lock()
        self._trouble: MultihostError | None = None
        """Why what was staged could not be put; told with the next exchange."""
        self._apart: int | None = None
        """Queue into which nothing is put that is made of what is held."""
        self._dropped: set[int] = set()
        """Queues that are being dropped while the call under way confirms something of them."""

    # for the core --------------------------------------------------------------------

    async def call(self, act: AnyAct, wait_s: float | None = 0.0) -> AnyResult:
        """Have something done and return what came of it.

        ``wait_s``: how long the server may wait for it; None: as long as it takes.
        Raises what the server's refusal means, or ConnectionLost.
        """
        is_owed = type(act) in _GIVING
        if self.taking.staged and not self.taking.kept:
            try:
                await self.exchange(self.staged_act)
            except BaseException:
                if is_owed:
                    self._do_soon(lambda: act)
                raise
        pending = await self._perform(lambda: act, wait_s, is_owed)
        assert pending.result is not None
        if type(pending.result) is Rejected:
            raise error_of(pending.result)
        return pending.result

    async def exchange(
        self,
        decide: Callable[[], Exchange | None],
        wait_s: float | None = 0.0,
        *,
        is_owed: bool = False,
    ) -> Exchanged:
        """Have an exchange done, decided from what is held by then; ``is_owed`` as in Pending."""
        pending = await self._perform(decide, wait_s, is_owed)
        trouble = self._trouble
        if trouble is not None:
            self._trouble = None
            raise trouble
        result = pending.result
        if result is None:
            return Exchanged(ExchangeEnd.OK)
        if type(result) is Rejected:
            raise error_of(result)
        assert type(result) is Exchanged
        return result

    def stage(self, queue: int, limit: int, payloads: list[Payload]) -> bool:
        """Keep items to go with the confirmation of what is held; False: they are to go now."""
        with self._guard:
            is_staged = self.taking.stage_here(queue, limit, payloads)
        if is_staged:
            self.line.note_staged(self)
        return is_staged

    @contextlib.contextmanager
    def apart(self, queue: int) -> Iterator[None]:
        """What is put into this queue alone and refused was not made of what is held."""
        self._apart = queue
        try:
            yield
        finally:
            self._apart = None

    async def finish(self) -> None:
        """Have done with everything that is held."""
        if self.taking.held or self.taking.staged:
            await self.exchange(self.last_act)

    def keep(self, items: Iterable[int]) -> None:
        """Items just taken are not to be confirmed by the way, as far as they are held at all."""
        with self._guard:
            self.taking.keep(self.holding().intersection(items))

    def let_go(self, items: Iterable[int]) -> None:
        """Items that were kept are to be confirmed by the way."""
        with self._guard:
            self.taking.kept.difference_update(items)

    def forget_queue(self, queue: int) -> None:
        """A queue is no more, and what was taken from it is not to be confirmed."""
        with self._guard:
            self.taking.forget_queue(queue)
            act = self.current.act if self.current is not None else None
            if type(act) is Exchange and any(queue_of(item) == queue for item in act.confirms):
                self._dropped.add(queue)

    def holding(self) -> set[int]:
        """Items that were taken and are not done with."""
        return {item for items in list(self.taking.held.values()) for item in items}

    def taken_since(self, latest: list[int]) -> list[int]:
        """What is held of what was taken last, unless ``taking.latest`` was ``latest`` already.

        Told by the list: an item that came back in between may have been taken again.
        """
        with self._guard:
            now = self.taking.latest
            return [] if now is latest else sorted(self.holding().intersection(now))

    def give_back_soon(self, items: list[int]) -> None:
        """Have items given to others, without waiting for it."""
        if not items:
            return
        # Whatever the taker asks for before that, it is not done with them.
        self.keep(items)
        self._do_soon(lambda: Exchange(returns=items))

    def undo_soon(self, items: list[int]) -> None:
        """The same, and what is staged for them is forgotten, now: a ``with`` that raised."""
        with self._guard:
            held = self.holding().intersection(items)
            if not held:
                return
            exchange = self.taking.give_back(held)
            self.taking.kept.update(exchange.returns)
        self._do_soon(lambda: exchange)

    async def upload(self, payload: bytes | Bulk) -> Payload:
        """The payload as it travels in a message; a large one is stored as a blob before."""
        if type(payload) is bytes:
            return payload
        assert isinstance(payload, Bulk)
        blob, data = payload
        error = await self._wait_for(lambda then: self.line.blobs.put(blob, data, then))
        if error is not None:
            raise error
        return blob

    async def fetch(self, payload: Payload) -> bytes:
        """The bytes of a payload, wherever they are."""
        if type(payload) is bytes:
            return payload
        assert isinstance(payload, Blob)
        result = await self._wait_for(lambda then: self.line.blobs.get(payload, then))
        if isinstance(result, MultihostError):
            raise result
        data: bytes = result
        return data

    # for the line ----------------------------------------------------------------------

    def enter(self, pending: Pending, registry: dict[int, Pending]) -> bool:
        """Whether it is a call's turn; else it waits behind the current one."""
        with self._guard:
            if self.current is not None:
                self._behind.append(pending)
                return False
            self._make_current(pending, registry)
            return True

    def answered(
        self, pending: Pending, result: AnyResult, registry: dict[int, Pending]
    ) -> Pending | None:
        """The current call was answered; what is current now, and to be sent."""
        with self._guard:
            return self._answered(pending, result, registry)

    def advance(self, registry: dict[int, Pending]) -> Pending | None:
        """The current call asks for nothing after all; what is current now, and to be sent."""
        with self._guard:
            return self._next(registry)

    def cancel(self, pending: Pending) -> None:
        """A call whose turn has not come is not to be made."""
        with self._guard:
            if pending in self._behind:
                self._behind.remove(pending)

    def decide_again(self, pending: Pending) -> None:
        """The current call was interrupted before it said what it asks for, and is owed."""
        with self._guard:
            pending.act = pending.decide()

    def knows(self, pending: Pending) -> bool:
        """Whether a call is the current one, or is to be made after others."""
        return self.current is pending or pending in self._behind

    def leave(self, registry: dict[int, Pending]) -> list[Pending]:
        """Make no call any more; those that are not answered."""
        with self._guard:
            pendings = [self.current] if self.current is not None else []
            pendings += self._behind
            self._behind.clear()
            self.current = None
            registry.pop(self.number, None)
            return pendings

    def staged_act(self) -> Exchange | None:
        """Sends what is staged, unless that has happened or a ``with`` holds it back."""
        return self.taking.flush() if self.taking.staged and not self.taking.kept else None

    def last_act(self) -> Exchange | None:
        """Has done with everything: the taker ends in good order."""
        taking = self.taking
        return taking.end() if taking.held or taking.staged else None

    def _settle(self, act: AnyAct, result: AnyResult) -> AnyAct | None:
        """Follow an answer; what it calls for, if anything."""
        if type(act) is Exchange:
            return self._settle_exchange(act, result)
        if type(result) is Done and result.value:
            if type(act) is Acquire:
                self.tokens.setdefault(act.synchronizer, []).append(result.token)
            elif type(act) is Release:
                self._forget_tokens(act)
        return None

    def undo(self, act: AnyAct, result: AnyResult) -> AnyAct | None:
        """Gives back what was granted to a call that nobody waits for any more."""
        if isinstance(act, Exchange) and isinstance(result, Exchanged) and result.items:
            assert act.take is not None
            if self.taking.policies.get(act.take) is Confirm.GET:
                return Exchange(puts=[Put(act.take, [item.payload for item in result.items])])
            return Exchange(returns=[item.number for item in result.items])
        if isinstance(act, Acquire) and isinstance(result, Done) and result.value:
            return Release(act.synchronizer)
        if isinstance(act, PassBarrier) and isinstance(result, Done) and result.token:
            return FinishAction(act.synchronizer, result.token, has_failed=True)
        return None

    def lose(self) -> None:
        """The session was lost with all that was held."""
        with self._guard:
            self.taking.lose()
            self.tokens.clear()
            self._dropped.clear()

    # within --------------------------------------------------------------------------

    def _make_current(self, pending: Pending, registry: dict[int, Pending]) -> None:
        self.current = registry[self.number] = pending
        self._last_number += 1
        pending.number = self._last_number
        pending.began = clock.mono()
        staged = self.taking.staged
        try:
            pending.act = pending.decide()
        except BaseException:  # interrupted: what it would have put is still to go out
            self.taking.restage(staged)
            raise

    def _answered(
        self, pending: Pending, result: AnyResult, registry: dict[int, Pending]
    ) -> Pending | None:
        act = pending.act
        assert act is not None
        pending.result = result
        follow = None
        if not pending.is_settled:
            follow = self._settle(act, result)
            pending.is_settled = True
        if follow is None and pending.is_abandoned:
            follow = self.undo(act, result)
        if follow is not None:
            self._behind.appendleft(Pending(self, lambda: follow, 0.0, _nobody))
        return self._next(registry)

    def _next(self, registry: dict[int, Pending]) -> Pending | None:
        if self._behind:
            following = self._behind.popleft()
            self._make_current(following, registry)
            return following
        self.current = None
        del registry[self.number]
        return None

    def _settle_exchange(self, act: Exchange, result: AnyResult) -> AnyAct | None:
        taking = self.taking
        end = None
        dropped, self._dropped = self._dropped, set()
        if isinstance(result, Exchanged):
            taking.settle(act, result)
            end = result.end
        if end is ExchangeEnd.LOST and dropped.issuperset(map(queue_of, result.lost)):  # type: ignore[union-attr]
            # Nobody else has these, so what was made of them stands.
            confirms = [item for item in act.confirms if item not in result.lost]  # type: ignore[union-attr]
            return Exchange(confirms, [], act.puts) if act.puts else None
        if end is ExchangeEnd.FULL:
            # All but the last, which is the caller's, were staged.
            for put in act.puts[:-1]:
                taking.stage(put.queue, put.payloads)
            if taking.staged:
                with contextlib.suppress(MultihostError):  # closed, and what is held is others'
                    self.line.note_staged(self)
        if not act.puts or (end is not None and end < ExchangeEnd.CLOSED):
            return None
        if end is not ExchangeEnd.LOST:
            assert isinstance(result, Rejected | Exchanged)
            self._trouble = error_of(result)
        if act.puts[0].queue == self._apart and not act.confirms:
            return None
        # What was to be put is dropped, so what it was made of is for others.
        returns = {*act.confirms, *taking.loose()}
        return Exchange(returns=sorted(returns)) if returns else None

    def _forget_tokens(self, act: Release) -> None:
        tokens = self.tokens.get(act.synchronizer)
        if tokens is not None:
            del tokens[-act.times :]
            if not tokens:
                del self.tokens[act.synchronizer]

    def _do_soon(self, decide: Decide) -> None:
        """Have something done after all that was asked for before, without waiting for it."""
        self.line.line_up(Pending(self, decide, 0.0, _nobody))

    async def _perform(
        self,
        decide: Decide,
        wait_s: float | None,
        is_owed: bool,  # noqa: FBT001 - as in Pending
    ) -> Pending:
        raise NotImplementedError

    async def _wait_for(self, begin: "Begin") -> Any:
        raise NotImplementedError


Begin = Callable[[Callable[[Any], None]], None]
"""Begins something on the loop's thread that calls back there with what came of it."""


def _nobody() -> None:
    """Nobody waits."""
