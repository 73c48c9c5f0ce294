"""What is remembered of queues of items: their counters, who holds what, what comes next.

Few items are held at a time, so all that is held is in memory; what waits is
in the file alone, but for what the memtable has. As in ``Book``, counters are
changed here and written with the memtable, and after a rollback all is read
again.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from multihost.core.ids import item_id, queue_of
from multihost.store.items import ItemQueueRow
from multihost.store.sqlite.memtable import Memtable
from multihost.wire.act import Confirm

_QUEUES = (
    'SELECT number, name, "limit", confirm, owner, is_closed, waiting, held, unfinished, put,'
    " confirmed FROM item_queues"
)
_WRITE_QUEUE = (
    "UPDATE item_queues SET is_closed = ?, waiting = ?, held = ?, unfinished = ?, put = ?,"
    " confirmed = ? WHERE number = ?"
)
_TAKEN = (
    "SELECT taken_items.id, holder, call, attempt, iif(size IS NULL, NULL, payload)"
    " FROM taken_items LEFT JOIN items ON items.id = taken_items.id ORDER BY taken_items.id"
)


class Hold(msgspec.Struct, frozen=True, gc=False):
    """An item that was taken."""

    holder: int | None
    """None: it came back and waits."""
    call: int
    attempt: int
    digest: bytes | None
    """Of the blob that is its payload; None: the payload is in its row."""


@dataclass(slots=True)
class ItemQueue:
    """A queue's settings and counters, and where its next items are."""

    number: int
    name: str
    limit: int
    confirm: Confirm
    owner: int | None
    is_closed: bool = False
    waiting: int = 0
    held: int = 0
    unfinished: int = 0
    put: int = 0
    confirmed: int = 0
    fresh: int = 0
    """Items from this one on were never taken."""
    filed: int = 0
    """Items from this one on are in the memtable, one after the other, until they are done with."""
    returned: list[int] = field(default_factory=list)
    """Items before ``fresh`` that wait again; a heap."""
    first: int = field(init=False)
    """Number of the item that was put first."""

    def __post_init__(self) -> None:
        """Its items are numbered from the first on, as they are put."""
        self.first = item_id(self.number, 0)

    def row(self) -> ItemQueueRow:
        """The queue as listings show it."""
        return ItemQueueRow(
            self.number,
            self.name,
            self.limit,
            self.confirm,
            self.owner,
            self.is_closed,
            self.waiting,
            self.held,
            self.unfinished,
            self.put,
            self.confirmed,
        )


class ItemBook:
    """Queues of items and what takers hold."""

    def __init__(self, run: Callable[..., Any], many: Callable[..., Any]) -> None:
        """Read it all through ``run``; write through ``many``."""
        self._run = run
        self._many = many
        self.memtable = Memtable()
        self._dirty: dict[int, ItemQueue] = {}
        self.reload()

    def reload(self) -> None:
        """Read again all that a rollback may have made untrue."""
        self._dirty.clear()
        self.memtable.clear()
        self.queues: dict[int, ItemQueue] = {}
        self.named: dict[str, ItemQueue] = {}
        self.holds: dict[int, Hold] = {}
        self.of_taker: dict[int, dict[int, None]] = {}
        for number, name, limit, confirm, owner, is_closed, *counts in self._run(_QUEUES):
            self.add(
                ItemQueue(number, name, limit, Confirm(confirm), owner, bool(is_closed), *counts)
            )
        for item, *rest in self._run(_TAKEN):
            queue = self.queues.get(queue_of(item))
            if queue is None:
                continue  # of a dropped queue whose rows are still being deleted
            self.note(item, Hold(*rest))
            queue.fresh = item + 1
            if rest[0] is None:
                queue.returned.append(item)  # ascending, which is a heap

    def add(self, queue: ItemQueue) -> None:
        """Know a queue."""
        queue.fresh = max(queue.fresh, queue.first)
        queue.filed = queue.first + queue.put
        self.queues[queue.number] = queue
        self.named[queue.name] = queue

    def remove(self, queue: ItemQueue) -> None:
        """A queue is gone, with all that is held of it."""
        del self.queues[queue.number]
        del self.named[queue.name]
        self._dirty.pop(queue.number, None)
        for item in [item for item in self.holds if queue_of(item) == queue.number]:
            self.forget(item)

    def touch(self, queue: ItemQueue) -> None:
        """Its counters have changed."""
        self._dirty[queue.number] = queue

    def write(self) -> None:
        """Write what has changed, the memtable as well."""
        if self.memtable.is_dirty:
            self.memtable.write(self._many, self._holding)
        if self._dirty:
            for queue in self._dirty.values():
                queue.filed = queue.first + queue.put
            self._many(
                _WRITE_QUEUE,
                [
                    (q.is_closed, q.waiting, q.held, q.unfinished, q.put, q.confirmed, q.number)
                    for q in self._dirty.values()
                ],
            )
            self._dirty.clear()

    # what is held ------------------------------------------------------------------------

    def is_held(self, item: int, taker: int) -> bool:
        """Whether ``taker`` holds the item."""
        hold = self.holds.get(item)
        return hold is not None and hold.holder == taker

    def note(self, item: int, hold: Hold) -> None:
        """An item is in its taker's hands, or waits again."""
        if item in self.holds:
            self.forget(item)
        self.holds[item] = hold
        if hold.holder is not None:
            self.of_taker.setdefault(hold.holder, {})[item] = None

    def forget(self, item: int) -> None:
        """An item was never taken, as far as anybody need know."""
        hold = self.holds.pop(item, None)
        if hold is not None and hold.holder is not None:
            items = self.of_taker[hold.holder]
            del items[item]
            if not items:
                del self.of_taker[hold.holder]

    def next_returned(self, queue: ItemQueue, limit: int) -> list[int]:
        """Take out the first items that came back."""
        return [heapq.heappop(queue.returned) for _ in range(min(limit, len(queue.returned)))]

    def give_back(self, items: Iterable[int]) -> set[int]:
        """Held items wait again; their queues."""
        queues = set()
        for item in items:
            queue = self.queues[queue_of(item)]
            hold = self.holds[item]
            self.note(item, msgspec.structs.replace(hold, holder=None))
            self.memtable.hold(item)
            heapq.heappush(queue.returned, item)
            queue.held -= 1
            queue.waiting += 1
            self.touch(queue)
            queues.add(queue.number)
        return queues

    def _holding(self, item: int) -> tuple[int, int | None, int, int]:
        """Row of an item that was taken."""
        hold = self.holds[item]
        return item, hold.holder, hold.call, hold.attempt
