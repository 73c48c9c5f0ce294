"""Queues of items, synchronizers and takers in a few dicts: a store for tests of calls."""

import copy
from types import SimpleNamespace

from multihost.core.ids import item_id, queue_of, session_of
from multihost.store.base import Changes, ItemQueueRow, SynchronizerRow, TakerRow
from multihost.store.items import kept_answer
from multihost.wire.act import Confirm, Exchanged, ExchangeEnd, Item, RejectCode, Rejected


class ItemStore:
    """What ``Calls`` needs of a store; transactions are copies of everything."""

    epoch = 1

    def __init__(self):
        self.data = SimpleNamespace(queues={}, synchronizers={}, notes={}, numbers=0)
        self.log = []
        self.publish_errors = []
        self._before = None

    # transactions

    def begin(self):
        self._before = copy.deepcopy(self.data)

    def prepare(self, now):
        return Changes([], [])

    def publish(self):
        if self.publish_errors:
            raise self.publish_errors.pop()

    def commit(self, *, is_durable):
        self.log.append("durable" if is_durable else "quick")

    def rollback(self):
        self.data = self._before
        self.log.append("rollback")

    # queues of items

    def open_item_queue(self, name, limit, confirm, owner):
        for queue in self.data.queues.values():
            if queue.name == name:
                return self.item_queue(queue.number), False
        self.data.numbers += 1
        self.data.queues[self.data.numbers] = SimpleNamespace(
            number=self.data.numbers,
            name=name,
            limit=limit,
            confirm=confirm,
            owner=owner,
            is_closed=False,
            waiting=[],
            held={},
            unfinished=0,
            put=0,
            confirmed=0,
        )
        return self.item_queue(self.data.numbers), True

    def item_queue(self, queue):
        found = self.data.queues.get(queue)
        if found is None:
            return None
        counts = {"waiting": len(found.waiting), "held": len(found.held)}
        return ItemQueueRow(**{**vars(found), **counts})

    def close_item_queue(self, queue):
        self.data.queues[queue].is_closed = True

    def drop_item_queue(self, queue):
        self.data.queues.pop(queue, None)

    def exchange(self, taker, number, exchange, now, *, overfills=False):
        refusal = self._refusal(taker, exchange, overfills)
        if refusal is not None:
            return refusal
        data = self.data.queues
        for item in exchange.confirms:
            del data[queue_of(item)].held[item]
            data[queue_of(item)].confirmed += 1
        for item in exchange.returns:
            if self._is_held(taker, item):
                self._give_back(item)
        for put in exchange.puts:
            queue = data[put.queue]
            for payload in put.payloads:
                queue.waiting.append((item_id(put.queue, queue.put), payload, 0))
                queue.put += 1
                queue.unfinished += 1
        for finish in exchange.finishes:
            data[finish.queue].unfinished -= finish.times
        result, confirm = Exchanged(ExchangeEnd.OK), None
        if exchange.take is not None:
            result = self._take(taker, number, exchange)
            confirm = self.data.queues[exchange.take].confirm
        answer = kept_answer(exchange, result, confirm)
        if answer is not None:
            self.note_answer(taker, number, answer)
        return result

    def _refusal(self, taker, exchange, overfills):
        data = self.data.queues
        named = [part.queue for part in (*exchange.puts, *exchange.finishes)]
        named += [] if exchange.take is None else [exchange.take]
        if not data.keys() >= set(named):
            return Rejected(RejectCode.NOT_FOUND, f"queues {named}")
        lost = [item for item in exchange.confirms if not self._is_held(taker, item)]
        if lost:
            return Exchanged(ExchangeEnd.LOST, [], lost)
        if any(finish.times > data[finish.queue].unfinished for finish in exchange.finishes):
            return Rejected(RejectCode.TOO_MANY, "finished too often")
        if any(data[put.queue].is_closed for put in exchange.puts):
            return Exchanged(ExchangeEnd.CLOSED)
        for put in exchange.puts:
            queue = data[put.queue]
            count = len(queue.waiting) + len(put.payloads)
            if not overfills and queue.limit and queue.waiting and count > queue.limit:
                return Exchanged(ExchangeEnd.FULL)
        source = None if exchange.take is None else data[exchange.take]
        if source is not None and source.is_closed and not source.waiting:
            return Exchanged(ExchangeEnd.CLOSED)
        return None

    def _take(self, taker, number, exchange):
        queue, items = self.data.queues[exchange.take], []
        while queue.waiting and len(items) < exchange.limit:
            item, payload, attempts = queue.waiting.pop(0)
            items.append(Item(item, payload, attempts + 1))
            if queue.confirm is not Confirm.GET:
                queue.held[item] = (taker, number, payload, attempts + 1)
        if items:
            return Exchanged(ExchangeEnd.OK, items)
        return Exchanged(ExchangeEnd.CLOSED if queue.is_closed else ExchangeEnd.EMPTY)

    def _is_held(self, taker, item):
        queue = self.data.queues.get(queue_of(item))
        return queue is not None and queue.held.get(item, (None,))[0] == taker

    def _give_back(self, item):
        queue = self.data.queues[queue_of(item)]
        _, _, payload, attempts = queue.held.pop(item)
        queue.waiting.insert(0, (item, payload, attempts))

    def taken(self, taker, number):
        return [
            Item(item, payload, attempts)
            for queue in self.data.queues.values()
            for item, (holder, call, payload, attempts) in queue.held.items()
            if (holder, call) == (taker, number)
        ]

    def lose_taker(self, taker):
        return self._lose(lambda holder: holder == taker)

    def lose_takers(self, session):
        return self._lose(lambda holder: session_of(holder) == session)

    def _lose(self, is_lost):
        queues = set()
        for number, queue in self.data.queues.items():
            for item, (holder, *_) in list(queue.held.items()):
                if is_lost(holder):
                    self._give_back(item)
                    queues.add(number)
        for taker in [taker for taker in self.data.notes if is_lost(taker)]:
            del self.data.notes[taker]
        return queues

    def drop_transients(self, session):
        queues = [n for n, queue in self.data.queues.items() if queue.owner == session]
        synchronizers = [n for n, row in self.data.synchronizers.items() if row.owner == session]
        for number in queues:
            self.drop_item_queue(number)
        for number in synchronizers:
            self.drop_synchronizer(number)
        return queues, synchronizers

    # synchronizers and takers

    def open_synchronizer(self, kind, name, owner, state):
        for row in self.data.synchronizers.values():
            if row.name == name:
                return row, False
        self.data.numbers += 1
        row = SynchronizerRow(self.data.numbers, kind, name, owner, state)
        self.data.synchronizers[self.data.numbers] = row
        return row, True

    def synchronizers(self):
        return list(self.data.synchronizers.values())

    def save_synchronizer(self, synchronizer, state):
        row = self.data.synchronizers[synchronizer]
        self.data.synchronizers[synchronizer] = SynchronizerRow(
            row.number, row.kind, row.name, row.owner, state
        )

    def drop_synchronizer(self, synchronizer):
        self.data.synchronizers.pop(synchronizer, None)

    def taker(self, taker):
        return self.data.notes.get(taker)

    def takers(self, session):
        return [row for row in self.data.notes.values() if session_of(row.taker) == session]

    def note_answer(self, taker, number, answer):
        self.data.notes[taker] = TakerRow(taker, number, answer)
