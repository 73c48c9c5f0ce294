"""The model's takers: queues of items as plain lists."""

from multihost.core.ids import item_id, queue_of, session_of
from multihost.store.base import ItemQueueRow, SynchronizerRow, TakerRow
from multihost.store.items import TAKE_BYTES, kept_answer
from multihost.testing.model.data import HeldItem, ItemQueue
from multihost.testing.model.ground import Ground
from multihost.wire.act import (
    Confirm,
    Exchange,
    Exchanged,
    ExchangeEnd,
    Item,
    Kind,
    RejectCode,
    Rejected,
)


def fitting(items: list[HeldItem]) -> list[HeldItem]:
    """The first items, as many as one answer carries."""
    sizes = [len(item.payload) if isinstance(item.payload, bytes) else 0 for item in items]
    fit = (n for n in range(len(items), 1, -1) if sum(sizes[:n]) <= TAKE_BYTES)
    return items[: next(fit, 1)]


class Taking(Ground):
    """Queues of items, synchronizers, and takers' last answers."""

    # queues ------------------------------------------------------------------------------

    def open_item_queue(
        self, name: str, limit: int, confirm: Confirm, owner: int | None
    ) -> tuple[ItemQueueRow, bool]:
        """The queue of this name, and whether it is new."""
        for queue in self._data.item_queues.values():
            if queue.name == name:
                return queue.row(), False
        self._data.last_item_queue += 1
        queue = ItemQueue(self._data.last_item_queue, name, limit, confirm, owner)
        self._data.item_queues[queue.number] = queue
        return queue.row(), True

    def item_queue(self, queue: int) -> ItemQueueRow | None:
        """A queue of items by its number."""
        found = self._data.item_queues.get(queue)
        return None if found is None else found.row()

    def find_item_queue(self, name: str) -> ItemQueueRow | None:
        """A queue of items by its name."""
        rows = [queue.row() for queue in self._data.item_queues.values() if queue.name == name]
        return rows[0] if rows else None

    def item_queues(self) -> list[ItemQueueRow]:
        """Every queue of items that is not transient, by name."""
        rows = [queue.row() for queue in self._data.item_queues.values() if queue.owner is None]
        return sorted(rows, key=lambda row: row.name)

    def close_item_queue(self, queue: int) -> None:
        """Take no more items into it."""
        if queue in self._data.item_queues:
            self._data.item_queues[queue].is_closed = True

    def drop_item_queue(self, queue: int) -> None:
        """Delete it and all its items."""
        self._data.item_queues.pop(queue, None)

    # exchanging --------------------------------------------------------------------------

    def exchange(
        self, taker: int, number: int, exchange: Exchange, now: float, *, overfills: bool = False
    ) -> Exchanged | Rejected:
        """Do an exchange, whole or not at all."""
        refusal = self._exchange_refusal(taker, exchange, overfills=overfills)
        if refusal is not None:
            return refusal
        queues = self._data.item_queues
        for item in dict.fromkeys(exchange.confirms):
            del queues[queue_of(item)].held[item]
            queues[queue_of(item)].confirmed += 1
        for item in dict.fromkeys(exchange.returns):
            if self._holds(taker, item):
                queues[queue_of(item)].give_back(item)
        for put in exchange.puts:
            queue = queues[put.queue]
            for payload in put.payloads:
                queue.waiting.append(HeldItem(item_id(put.queue, queue.put), payload))
                queue.put += 1
                queue.unfinished += 1
        for finish in exchange.finishes:
            queues[finish.queue].unfinished -= finish.times
        source = None if exchange.take is None else queues[exchange.take]
        result = Exchanged(ExchangeEnd.OK)
        if source is not None:
            result = self._take(taker, number, exchange)
        answer = kept_answer(exchange, result, None if source is None else source.confirm)
        if answer is not None:
            self.note_answer(taker, number, answer)
        return result

    def _take(self, taker: int, number: int, exchange: Exchange) -> Exchanged:
        assert exchange.take is not None
        queue = self._data.item_queues[exchange.take]
        taken = fitting(queue.waiting[: max(0, exchange.limit)])
        del queue.waiting[: len(taken)]
        items = []
        for item in taken:
            held = HeldItem(item.number, item.payload, item.attempt + 1, taker, number)
            items.append(Item(held.number, held.payload, held.attempt))
            if queue.confirm is Confirm.GET:
                queue.confirmed += 1
            else:
                queue.held[held.number] = held
        if items:
            return Exchanged(ExchangeEnd.OK, items)
        return Exchanged(ExchangeEnd.CLOSED if queue.is_closed else ExchangeEnd.EMPTY)

    def _exchange_refusal(
        self, taker: int, exchange: Exchange, *, overfills: bool
    ) -> Exchanged | Rejected | None:
        queues = self._data.item_queues
        named = {put.queue for put in exchange.puts}
        named |= {finish.queue for finish in exchange.finishes}
        named |= set() if exchange.take is None else {exchange.take}
        if not named <= queues.keys():
            return Rejected(RejectCode.NOT_FOUND, "")
        lost = [item for item in exchange.confirms if not self._holds(taker, item)]
        if lost:
            return Exchanged(ExchangeEnd.LOST, [], lost)
        for number in named:
            times = sum(part.times for part in exchange.finishes if part.queue == number)
            more = sum(len(part.payloads) for part in exchange.puts if part.queue == number)
            if times > queues[number].unfinished + more:
                return Rejected(RejectCode.TOO_MANY, "")
        if any(queues[put.queue].is_closed for put in exchange.puts):
            return Exchanged(ExchangeEnd.CLOSED)
        if any(self._is_missing(payload) for put in exchange.puts for payload in put.payloads):
            return Rejected(RejectCode.BAD_REQUEST, "")
        for put in exchange.puts:
            queue, waiting = queues[put.queue], len(queues[put.queue].waiting)
            more = sum(len(part.payloads) for part in exchange.puts if part.queue == put.queue)
            if not overfills and queue.limit and waiting and waiting + more > queue.limit:
                return Exchanged(ExchangeEnd.FULL)
        source = None if exchange.take is None else queues[exchange.take]
        if source is not None and source.is_closed and not source.waiting:
            return Exchanged(ExchangeEnd.CLOSED)
        return None

    def _holds(self, taker: int, item: int) -> bool:
        queue = self._data.item_queues.get(queue_of(item))
        return queue is not None and item in queue.held and queue.held[item].holder == taker

    # takers ------------------------------------------------------------------------------

    def taken(self, taker: int, number: int) -> list[Item]:
        """Items that ``taker`` holds and took in its call ``number``."""
        held = [item for queue in self._data.item_queues.values() for item in queue.held.values()]
        mine = [item for item in held if (item.holder, item.call) == (taker, number)]
        return [
            Item(item.number, item.payload, item.attempt)
            for item in sorted(mine, key=lambda item: item.number)
        ]

    def lose_taker(self, taker: int) -> set[int]:
        """A taker is no more: its items wait again."""
        self._data.answers.pop(taker, None)
        return self._lose({taker})

    def lose_takers(self, session: int) -> set[int]:
        """All takers of a session are no more."""
        for taker in [taker for taker in self._data.answers if session_of(taker) == session]:
            del self._data.answers[taker]
        queues = self._data.item_queues.values()
        holders = {item.holder for queue in queues for item in queue.held.values()}
        return self._lose({taker for taker in holders if session_of(taker) == session})

    def _lose(self, takers: set[int]) -> set[int]:
        changed = set()
        for queue in self._data.item_queues.values():
            for item in list(queue.held.values()):
                if item.holder in takers:
                    queue.give_back(item.number)
                    changed.add(queue.number)
        return changed

    def taker(self, taker: int) -> TakerRow | None:
        """The last call of a taker that was noted."""
        return self._data.answers.get(taker)

    def takers(self, session: int) -> list[TakerRow]:
        """The last calls of a session's takers."""
        answers = self._data.answers
        return [answers[taker] for taker in sorted(answers) if session_of(taker) == session]

    def note_answer(self, taker: int, number: int, answer: bytes) -> None:
        """Keep a call's answer; replaces the last."""
        self._data.answers[taker] = TakerRow(taker, number, answer)

    # synchronizers -----------------------------------------------------------------------

    def open_synchronizer(
        self, kind: Kind, name: str, owner: int | None, state: bytes
    ) -> tuple[SynchronizerRow, bool]:
        """The synchronizer of this name, and whether it is new."""
        for row in self._data.synchronizers.values():
            if row.name == name:
                return row, False
        self._data.last_synchronizer += 1
        row = SynchronizerRow(self._data.last_synchronizer, kind, name, owner, state)
        self._data.synchronizers[row.number] = row
        return row, True

    def synchronizers(self) -> list[SynchronizerRow]:
        """Every synchronizer."""
        return [self._data.synchronizers[number] for number in sorted(self._data.synchronizers)]

    def save_synchronizer(self, synchronizer: int, state: bytes) -> None:
        """Keep its state."""
        row = self._data.synchronizers.get(synchronizer)
        if row is not None:
            self._data.synchronizers[synchronizer] = SynchronizerRow(
                row.number, row.kind, row.name, row.owner, state
            )

    def drop_synchronizer(self, synchronizer: int) -> None:
        """Delete it."""
        self._data.synchronizers.pop(synchronizer, None)

    def drop_transients(self, session: int) -> tuple[list[int], list[int]]:
        """Drop queues and synchronizers that live with a session; their numbers."""
        queues = [q.number for q in self._data.item_queues.values() if q.owner == session]
        locks = [row.number for row in self._data.synchronizers.values() if row.owner == session]
        for number in queues:
            del self._data.item_queues[number]
        for number in locks:
            del self._data.synchronizers[number]
        return queues, locks
