"""What a taker holds and has put since: which exchange comes next.

The rule that makes take, compute, put exact: what a taker puts while it holds
an item is *staged*, and goes out in the one exchange that confirms the item.
If the taker dies before, the item is another's and what was staged never was.
Both ends use it: clients for their own threads, the server for clients that
speak the standard library's protocol.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter

from multihost.wire.act import Confirm, Exchange, Exchanged, ExchangeEnd, Finish, Put
from multihost.wire.blob import Payload

LINGER_S = 0.1
"""What is staged goes out, and confirms, after this time at the latest."""
STAGED_BYTES = 4 << 20
STAGED_ITEMS = 1000
"""So much is staged at most; then it goes out, and confirms."""
BLOB_BYTES = 64
"""About the size of what stands for a blob in a message."""


@dataclass(slots=True)
class Taking:
    """One taker's items and staged puts; decides, sends nothing.

    Call one of the verbs to get an exchange, send it, and give its result to
    ``settle`` before the next. Items in ``kept`` are exempt from being confirmed by the way: they
    belong to a ``with queue.take()``, which confirms or returns them itself, and
    while there are any nothing that is staged goes out.
    """

    held: dict[int, list[int]] = field(default_factory=dict)
    """Items by queue, oldest first, of queues that confirm NEXT or TASK_DONE."""
    policies: dict[int, Confirm] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    marks: dict[int, tuple[int, frozenset[int]]] = field(default_factory=dict)
    """Of items kept within a ``with`` of others: how much was staged when they were taken, which
    is of those, and which items were held beside the kept ones."""
    latest: list[int] = field(default_factory=list)
    """Items that were taken last; another list with each take."""
    staged: list[Put] = field(default_factory=list)
    staged_items: int = 0
    staged_bytes: int = 0

    # deciding --------------------------------------------------------------------------

    def stages(self, limit: int) -> bool:
        """Whether a put to a queue with ``limit`` (0: none) waits for the next exchange.

        Not to a bounded one: whether there is room is for the server to say.
        """
        return limit == 0 and bool(self.held)

    @property
    def is_full(self) -> bool:
        """Whether what is staged should go out now."""
        return self.staged_items >= STAGED_ITEMS or self.staged_bytes >= STAGED_BYTES

    def stage(self, queue: int, payloads: list[Payload]) -> None:
        """Keep items for the next exchange."""
        if self.staged and self.staged[-1].queue == queue:
            self.staged[-1].payloads.extend(payloads)
        else:
            self.staged.append(Put(queue, list(payloads)))
        self.staged_items += len(payloads)
        self.staged_bytes += _bytes_of(payloads)

    def stage_here(self, queue: int, limit: int, payloads: list[Payload]) -> bool:
        """``stage``, if that may be done now; whether it was."""
        if limit or not self.held or self.is_full:
            return False
        self.stage(queue, payloads)
        return True

    def keep(self, items: set[int]) -> None:
        """Items that were just taken are not to be confirmed by the way."""
        if self.kept:
            mark = self.staged_items, frozenset(self.loose()) - items
            self.marks.update(dict.fromkeys(items, mark))
        self.kept.update(items)

    def restage(self, staged: list[Put]) -> None:
        """Keep what was staged before an exchange that was not decided in the end."""
        self.staged = staged
        self.staged_items = sum(len(put.payloads) for put in staged)
        self.staged_bytes = sum(_bytes_of(put.payloads) for put in staged)

    # exchanges -------------------------------------------------------------------------

    def put(self, queue: int, payloads: list[Payload]) -> Exchange:
        """Put at once, with what is staged; what was held is done with."""
        if self.kept:
            return Exchange([], [], [Put(queue, list(payloads))])
        self.stage(queue, payloads)
        return self.flush()

    def take(self, queue: int, limit: int = 1) -> Exchange:
        """Take the next of a queue: what was taken from it before is done with."""
        confirms: list[int] = []
        puts: list[Put] = []
        if not self.kept:
            if self.staged:
                confirms, puts = self._by_the_way(), self._unstage()
            elif self._policy(queue) is Confirm.NEXT:
                confirms = self._loose(queue)
        return Exchange(confirms, [], puts, [], queue, limit)

    def flush(self) -> Exchange:
        """Send what is staged, and confirm what it was made of; nothing while anything is kept."""
        if self.kept:
            return Exchange()
        return Exchange(self._by_the_way(), [], self._unstage())

    def finish(self, queue: int, times: int = 1) -> Exchange:
        """``task_done``: confirms the oldest items of the queue, with what is staged."""
        goes_along = bool(self.staged) and not self.kept
        confirms = set(self._by_the_way()) if goes_along else set()
        confirms.update(self._loose(queue)[:times])
        puts = self._unstage() if goes_along else []
        return Exchange(sorted(confirms), [], puts, [Finish(queue, times)])

    def confirm(self, items: Iterable[int]) -> Exchange:
        """Certain items are done with, with what is staged: a ``with`` that ended well.

        Within another ``with``: what was staged before it began waits on for the end of that one.
        """
        numbers = set(items)
        puts, others = self._part_of(numbers)
        return Exchange(sorted(numbers | others), [], puts)

    def give_back(self, items: Iterable[int]) -> Exchange:
        """Certain items are for others, what was staged is forgotten: a ``with`` that raised.

        Within another ``with``: but for what was staged before it began.
        """
        numbers = set(items)
        _, others = self._part_of(numbers)
        return Exchange([], sorted(numbers | others))

    def end(self) -> Exchange:
        """The taker ends in good order: everything it held is done with."""
        return Exchange(
            [item for items in self.held.values() for item in items], [], self._unstage()
        )

    def settle(self, exchange: Exchange, result: Exchanged) -> None:
        """Follow what became of an exchange.

        FULL: nothing was done, and what it would have put is dropped here: its caller
        is told. LOST: what was lost is not held any more, the rest still is.
        """
        if result.end is ExchangeEnd.FULL:
            return
        gone = (
            set(result.lost)
            if result.end is ExchangeEnd.LOST
            else {*exchange.confirms, *exchange.returns}
        )
        self._forget(gone)
        if result.items and exchange.take is not None:
            queue = exchange.take
            if self.policies.get(queue) is not Confirm.GET:
                self.latest = [item.number for item in result.items]
                self.held.setdefault(queue, []).extend(self.latest)

    def forget_queue(self, queue: int) -> None:
        """A queue was dropped, with what is held of it; what is put from now on is not of that."""
        self._forget(set(self.held.get(queue, ())))

    def lose(self) -> None:
        """The session was lost with all that was held; what was staged is forgotten."""
        self.held.clear()
        self.kept.clear()
        self._unstage()

    def loose(self) -> list[int]:
        """All that is held but for what is kept."""
        return [item for queue in self.held for item in self._loose(queue)]

    # within ----------------------------------------------------------------------------

    def _policy(self, queue: int) -> Confirm:
        return self.policies.get(queue, Confirm.NEXT)

    def _loose(self, queue: int) -> list[int]:
        return [item for item in self.held.get(queue, ()) if item not in self.kept]

    def _by_the_way(self) -> list[int]:
        kept, policy_of = self.kept, self.policies.get
        confirms: list[int] = []
        for queue, items in self.held.items():
            if policy_of(queue, Confirm.NEXT) is Confirm.NEXT:
                confirms += [item for item in items if item not in kept] if kept else items
        return confirms

    def _part_of(self, items: set[int]) -> tuple[list[Put], set[int]]:
        """Take out what was staged since items were taken, and tell what else it was made of."""
        marks = [self.marks[item] for item in items if item in self.marks]
        left, before = min(marks, key=itemgetter(0)) if marks else (0, frozenset[int]())
        puts = self._unstage(left)
        return puts, set(self._by_the_way()) - before if puts else set()

    def _unstage(self, left: int = 0) -> list[Put]:
        """Take out what is staged, but for the first items, of which so many are ``left``."""
        staged, self.staged = self.staged, []
        self.staged_items = self.staged_bytes = 0
        if not left:
            self.marks.clear()
            return staged
        since: list[Put] = []
        for put in staged:
            if left:
                self.stage(put.queue, put.payloads[:left])
            if left < len(put.payloads):
                since.append(Put(put.queue, put.payloads[left:]))
            left = max(0, left - len(put.payloads))
        return since

    def _forget(self, gone: set[int]) -> None:
        if not gone:
            return
        self.kept -= gone
        if self.marks:
            for item in gone:
                self.marks.pop(item, None)
        for queue, items in list(self.held.items()):
            if gone.issuperset(items):
                del self.held[queue]
            else:
                self.held[queue] = [item for item in items if item not in gone]


def _bytes_of(payloads: list[Payload]) -> int:
    """About as many as they are in a message; a loop, since most have one element."""
    size_bytes = 0
    for payload in payloads:
        size_bytes += len(payload) if type(payload) is bytes else BLOB_BYTES
    return size_bytes
