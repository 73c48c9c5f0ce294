"""Calls that wait at queues of items: for an item, for room, for the last ``task_done``.

Each queue that somebody waits at has a *line*: three lists in order of arrival.
Whatever changes a queue serves those who wait at it in the same transaction,
first come first served, and what that changes in turn, until nobody can be
served. So nobody waits for what could be had, and nothing polls. Lines live in
memory only: after a restart the clients send their calls again.

What is put together becomes visible together, and a full queue may be emptied
only by who has seen the rest of it. So puts into several queues are done though
one of these is full; only their answer waits for the room.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from multihost.core.ids import queue_of
from multihost.server.pending import Pending
from multihost.store.base import Store
from multihost.wire.act import (
    AnyAct,
    AnyResult,
    Confirm,
    Done,
    Exchange,
    Exchanged,
    ExchangeEnd,
    JoinQueue,
    RejectCode,
    Rejected,
)


class Answers(Protocol):
    """Whom to tell of calls that are over."""

    must_last: bool
    """Set when something was done that an answer, now or later, relies on."""

    def over(self, pending: Pending, result: AnyResult) -> None:
        """A call is over."""
        ...


@dataclass(slots=True)
class Line:
    """Who waits at one queue, by taker, in order of arrival."""

    takers: dict[int, Pending] = field(default_factory=dict)
    putters: dict[int, Pending] = field(default_factory=dict)
    joiners: dict[int, Pending] = field(default_factory=dict)
    surplus: int = 0
    """Items of ``putters`` that are in the queue already."""

    def copy(self) -> "Line":
        """A line of the same calls."""
        return Line(dict(self.takers), dict(self.putters), dict(self.joiners), self.surplus)

    def add_putter(self, pending: Pending) -> None:
        """One more waits for room."""
        self.putters[pending.taker] = pending
        self.surplus += pending.surplus

    def pop_putter(self, taker: int) -> Pending | None:
        """One waits for room no more."""
        pending = self.putters.pop(taker, None)
        if pending is not None:
            self.surplus -= pending.surplus
        return pending

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self.takers or self.putters or self.joiners)


_NOBODY = Line()


class _Turn(msgspec.Struct, frozen=True):
    """The transaction under way."""

    store: Store
    now: float


class Parking:
    """The lines of all queues of items.

    Invariant between calls: nobody in a line could be served by the store.
    """

    def __init__(self, answers: Answers) -> None:
        """Begin with no lines; ``answers`` is told of each call that is over."""
        self._answers = answers
        self._answer = answers.over
        self._lines: dict[int, Line] = {}
        self._policies: dict[int, Confirm] = {}
        self._before: dict[int, Line] = {}
        """Lines as they were when this transaction first touched them."""
        self._rests: list[tuple[Pending, Exchange]] = []
        """What was left of exchanges before this transaction, oldest first."""
        self._early: list[Pending] = []
        """Calls that got a surplus in this transaction."""
        self._room: deque[int] = deque()
        """Queues from which something was taken."""
        self._items: deque[int] = deque()
        """Queues into which something was put, or came back."""

    # what calls ask ------------------------------------------------------------------------

    def exchange(self, store: Store, now: float, pending: Pending) -> None:
        """Do an exchange, or what is left of it; answer it, or let it wait."""
        if not pending.is_fresh and self.holds(pending):
            return
        exchange = pending.rest
        if exchange is None:
            assert type(pending.act) is Exchange
            exchange = pending.rest = pending.act
        turn = _Turn(store, now)
        if self._lines and self._has_to_line_up(turn, pending, exchange):
            return
        self._place(turn, pending, self._try(turn, pending, exchange))
        if self._items or self._room:
            self._serve(turn)

    def _has_to_line_up(self, turn: _Turn, pending: Pending, exchange: Exchange) -> bool:
        """Whether others were there first; then it is in the line behind them."""
        for put in exchange.puts:
            if self._lines.get(put.queue, _NOBODY).putters:
                self._wait_for_room(turn, pending, exchange, put.queue)
                self._serve(turn)
                return True
        if exchange.take is not None and self._lines.get(exchange.take, _NOBODY).takers:
            self._join_line(turn, pending, exchange, exchange.take)
            self._serve(turn)
            return True
        return False

    def join(self, store: Store, pending: Pending) -> None:
        """Answer when nothing in the queue is unfinished."""
        assert isinstance(pending.act, JoinQueue)
        queue = pending.act.queue
        row = store.item_queue(queue)
        if row is None:
            self._answer(pending, missing(queue))
        elif not row.unfinished:
            self._answer(pending, Done())
        else:
            self._touch(queue).joiners[pending.taker] = pending

    def holds(self, pending: Pending) -> bool:
        """Whether a call waits in some line."""
        taker = pending.taker
        for queue in _queues(pending.act):
            line = self._lines.get(queue)
            if line is not None and (
                line.takers.get(taker) is pending
                or line.putters.get(taker) is pending
                or line.joiners.get(taker) is pending
            ):
                return True
        return False

    def leave(self, store: Store, now: float, pending: Pending) -> Exchanged | Done | None:
        """Take a call out of its line: what it is answered if its time is over."""
        taker = pending.taker
        for queue in _queues(pending.act):
            if not self._lines.get(queue):
                continue
            line = self._touch(queue)
            if line.takers.pop(taker, None):
                return Exchanged(ExchangeEnd.EMPTY)
            if line.joiners.pop(taker, None):
                return Done(False)
            if line.pop_putter(taker):
                # Those behind it may want less room.
                self._room.append(queue)
                self._serve(_Turn(store, now))
                return Exchanged(ExchangeEnd.OK if pending.surplus else ExchangeEnd.FULL)
        return None

    def look(self, store: Store, now: float, queue: int) -> None:
        """A queue was closed, or has got items back: serve who waits at it."""
        self._items.append(queue)
        self._room.append(queue)
        self._serve(_Turn(store, now))

    def drop(self, queue: int) -> None:
        """A queue is no more: tell who waits at it."""
        self._policies.pop(queue, None)
        if not self._lines.get(queue):
            return
        line = self._touch(queue)
        for pending in [*line.takers.values(), *line.putters.values()]:
            end = ExchangeEnd.OK if pending.surplus else ExchangeEnd.CLOSED
            self._answer(pending, Exchanged(end))
        for pending in line.joiners.values():
            self._answer(pending, missing(queue))
        self._lines[queue] = Line()

    def waiting(self, queue: int) -> int:
        """How many takers wait for an item of a queue."""
        line = self._lines.get(queue)
        return len(line.takers) if line else 0

    def is_lossy(self, store: Store, queue: int) -> bool:
        """Whether items of a queue are confirmed as they are taken, and can't be given again."""
        policy = self._policies.get(queue)
        if policy is None:
            row = store.item_queue(queue)
            if row is None:
                return False
            policy = self._policies[queue] = row.confirm
        return policy is Confirm.GET

    # transactions --------------------------------------------------------------------------

    def keep(self) -> None:
        """The transaction is kept."""
        if not self._before:  # nor is there anything of the rest
            return
        for queue in self._before:
            if not self._lines[queue]:
                del self._lines[queue]
        self._before.clear()
        self._rests.clear()
        self._early.clear()

    def undo(self) -> None:
        """The transaction did not happen."""
        self._lines.update(self._before)
        self._before.clear()
        for pending, rest in reversed(self._rests):
            pending.rest = rest
        self._rests.clear()
        for pending in self._early:
            pending.surplus = 0
        self._early.clear()
        self._policies.clear()
        self._room.clear()
        self._items.clear()

    # serving -------------------------------------------------------------------------------

    def _try(
        self, turn: _Turn, pending: Pending, exchange: Exchange, *, overfills: bool = False
    ) -> Exchanged | Rejected | None:
        """Do an exchange; None: it waits for an item, and all else of it is done."""
        result = turn.store.exchange(
            pending.taker, pending.number, exchange, turn.now, overfills=overfills
        )
        if isinstance(result, Rejected) or result.end > ExchangeEnd.EMPTY:
            if _is_closed(result) and exchange.take is not None and _has_rest(exchange):
                return self._close_with(turn, pending, exchange)
            return result
        if self._lines:
            self._note_changes(turn, exchange, result)
        if exchange.puts or exchange.confirms or exchange.finishes:
            self._answers.must_last = True
        if result.end is ExchangeEnd.EMPTY:
            return None
        if result.items and self.is_lossy(turn.store, exchange.take):  # type: ignore[arg-type]
            self._answers.must_last = pending.is_lossy = True
        return result

    def _note_changes(self, turn: _Turn, exchange: Exchange, result: Exchanged) -> None:
        """An exchange was done: see who waits for what it changed."""
        lines = self._lines
        for put in exchange.puts:
            if put.queue in lines:
                self._items.append(put.queue)
        for item in exchange.returns:
            self._items.append(queue_of(item))
        for finish in exchange.finishes:
            self._look_at_joiners(turn, finish.queue)
        if exchange.take in lines and result.end is not ExchangeEnd.EMPTY:
            self._room.append(exchange.take)

    def _close_with(
        self, turn: _Turn, pending: Pending, exchange: Exchange
    ) -> Exchanged | Rejected | None:
        """Nothing will ever come to be taken, or be put: at least finish what was taken before."""
        result = self._try(turn, pending, msgspec.structs.replace(exchange, take=None))
        if isinstance(result, Exchanged) and result.end is ExchangeEnd.OK:
            return Exchanged(ExchangeEnd.CLOSED)
        return result

    def _join_line(self, turn: _Turn, pending: Pending, exchange: Exchange, queue: int) -> None:
        """Do all of an exchange but the take, for which others were there first."""
        if _has_rest(exchange):
            rest = msgspec.structs.replace(exchange, take=None)
            result = self._try(turn, pending, rest)
            if result is None or isinstance(result, Rejected) or result.end is not ExchangeEnd.OK:
                self._place(turn, pending, result)
                return
        self._wait_for_item(pending, exchange, queue)

    def _place(self, turn: _Turn, pending: Pending, result: Exchanged | Rejected | None) -> None:
        """Answer an exchange, or put it into the line where it has to wait."""
        exchange = pending.rest
        assert exchange is not None
        if result is None:
            assert exchange.take is not None
            self._wait_for_item(pending, exchange, exchange.take)
        elif isinstance(result, Exchanged) and result.end is ExchangeEnd.FULL:
            self._wait_for_room(turn, pending, exchange, _full(turn.store, exchange))
        else:
            self._answer(pending, result)

    def _wait_for_room(self, turn: _Turn, pending: Pending, exchange: Exchange, queue: int) -> None:
        """Wait at a full queue: with all that is to be put, or when that is done."""
        if pending.wait_s is None and exchange.take is None and _is_spread(exchange):
            result = self._try(turn, pending, exchange, overfills=True)
            assert result is not None
            if isinstance(result, Rejected) or result.end is not ExchangeEnd.OK:
                self._answer(pending, result)
                return
            pending.surplus = _count(exchange, queue)
            self._early.append(pending)
        self._touch(queue).add_putter(pending)

    def _wait_for_item(self, pending: Pending, exchange: Exchange, queue: int) -> None:
        self._rests.append((pending, exchange))
        pending.rest = Exchange(take=queue, limit=exchange.limit)
        self._touch(queue).takers[pending.taker] = pending

    def _serve(self, turn: _Turn) -> None:
        """Serve until nobody can be served."""
        while self._items or self._room:
            if self._items:
                self._serve_takers(turn, self._items.popleft())
            else:
                self._serve_putters(turn, self._room.popleft())

    def _serve_takers(self, turn: _Turn, queue: int) -> None:
        line = self._lines.get(queue)
        while line is not None and line.takers:
            pending = next(iter(line.takers.values()))
            assert pending.rest is not None
            result = self._try(turn, pending, pending.rest)
            if result is None:
                return
            line = self._touch(queue)
            del line.takers[pending.taker]
            self._answer(pending, result)

    def _serve_putters(self, turn: _Turn, queue: int) -> None:
        line = self._lines.get(queue)
        while line is not None and line.putters:
            pending = next(iter(line.putters.values()))
            assert pending.rest is not None
            result: Exchanged | Rejected | None
            if pending.surplus:
                result = _end_of_wait(turn.store, queue, line.surplus - pending.surplus)
            else:
                fits = _fits(turn.store, pending.rest, queue, line.surplus)
                result = self._try(turn, pending, pending.rest, overfills=fits)
            is_full = isinstance(result, Exchanged) and result.end is ExchangeEnd.FULL
            if is_full and (pending.surplus or _full(turn.store, pending.rest) == queue):
                return
            line = self._touch(queue)
            line.pop_putter(pending.taker)
            self._place(turn, pending, result)

    def _look_at_joiners(self, turn: _Turn, queue: int) -> None:
        line = self._lines.get(queue)
        if line is None or not line.joiners:
            return
        row = turn.store.item_queue(queue)
        if row is None or row.unfinished:
            return
        line = self._touch(queue)
        for pending in line.joiners.values():
            self._answer(pending, Done())
        line.joiners.clear()

    def _touch(self, queue: int) -> Line:
        """Line of a queue, to be changed."""
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = Line()
        if queue not in self._before:
            self._before[queue] = line.copy()
        return line


def _is_closed(result: Exchanged | Rejected) -> bool:
    return isinstance(result, Exchanged) and result.end is ExchangeEnd.CLOSED


def _has_rest(exchange: Exchange) -> bool:
    """Whether an exchange does more than take."""
    return bool(exchange.confirms or exchange.returns or exchange.puts or exchange.finishes)


def _is_spread(exchange: Exchange) -> bool:
    """Whether an exchange puts into several queues."""
    return len({put.queue for put in exchange.puts}) > 1


def _count(exchange: Exchange, queue: int) -> int:
    """Items that an exchange puts into a queue."""
    return sum(len(put.payloads) for put in exchange.puts if put.queue == queue)


def _fits(store: Store, exchange: Exchange, queue: int, surplus: int) -> bool:
    """Whether there is room but for items whose takers wait behind this one."""
    row = store.item_queue(queue)
    if row is None or not surplus or not _is_plain(exchange, queue):
        return False
    before = row.waiting - surplus
    return before <= 0 or before + _count(exchange, queue) <= row.limit


def _is_plain(exchange: Exchange, queue: int) -> bool:
    """Whether a queue is the only one that an exchange puts into."""
    return all(put.queue == queue for put in exchange.puts)


def _end_of_wait(store: Store, queue: int, surplus: int) -> Exchanged:
    """What becomes of a call whose items are in the queue, before a ``surplus`` of others."""
    row = store.item_queue(queue)
    has_room = row is None or row.is_closed or row.waiting - surplus <= row.limit
    return Exchanged(ExchangeEnd.OK if has_room else ExchangeEnd.FULL)


def _full(store: Store, exchange: Exchange) -> int:
    """Queue that has no room for what an exchange puts."""
    for put in exchange.puts:
        row = store.item_queue(put.queue)
        if row is not None and row.limit and row.waiting + len(put.payloads) > row.limit:
            return put.queue
    # Puts that fit one by one but not together.
    return exchange.puts[0].queue


def missing(queue: int) -> Rejected:
    """There is no such queue."""
    return Rejected(
        RejectCode.NOT_FOUND, f"queue {queue} doesn't exist (any more); open it by its name"
    )


def _queues(act: AnyAct) -> list[int]:
    """Queues in whose lines a call may wait."""
    if isinstance(act, Exchange):
        queues = [put.queue for put in act.puts]
        return queues if act.take is None else [*queues, act.take]
    return [act.queue] if isinstance(act, JoinQueue) else []
