"""Queues of items: put, taken under a lease, confirmed or given back."""

import heapq
from typing import Final

from multihost.core.ids import ITEM_BITS, MAX_TAKER, item_id, queue_of, taker_id
from multihost.store.items import TAKE_BYTES, ItemQueueRow
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.itembook import Hold, ItemQueue
from multihost.wire.act import (
    Confirm,
    Exchange,
    Exchanged,
    ExchangeEnd,
    Item,
    RejectCode,
    Rejected,
)
from multihost.wire.message import Blob, Payload

FEW_ITEMS: Final = 500
"""A dropped queue with no more is deleted at once; else its rows follow in ``prune``."""
MAX_QUEUES: Final = (1 << (63 - ITEM_BITS)) - 1
"""Queues of items that one store can ever have (33,554,431)."""

Row = tuple[int, int | None, bytes]
"""An item: its number, a blob's size or None, and the payload or the blob's digest."""

_NEW_QUEUE = (
    'INSERT INTO item_queues (name, "limit", confirm, owner) VALUES (?, ?, ?, ?) RETURNING number'
)
_PUT = "INSERT INTO items (id, size, payload) VALUES (?, ?, ?)"
_FRESH = "SELECT id, size, payload FROM items WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
_ITEM = "SELECT id, size, payload FROM items WHERE id = ?"
_TAKE = (
    "INSERT INTO taken_items (id, holder, call, attempt) VALUES (?, ?, ?, ?) ON CONFLICT (id)"
    " DO UPDATE SET holder = excluded.holder, call = excluded.call, attempt = excluded.attempt"
)
_RETURN = "UPDATE taken_items SET holder = NULL WHERE id = ?"
_DELETE: Final = ("DELETE FROM items WHERE id = ?", "DELETE FROM taken_items WHERE id = ?")
_BLOBS = "SELECT payload FROM items WHERE id BETWEEN ? AND ? AND size IS NOT NULL"
_BLOB = "SELECT payload FROM items WHERE id = ? AND size IS NOT NULL"
_NTH = "SELECT id FROM items WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1 OFFSET ?"


# --- queues -----------------------------------------------------------------------------


def open_queue(
    book: Book, name: str, limit: int, confirm: Confirm, owner: int | None
) -> tuple[ItemQueueRow, bool]:
    """The queue of this name, and whether it is new."""
    queue = book.items.named.get(name)
    if queue is not None:
        return queue.row(), False
    number: int = book.run(_NEW_QUEUE, (name, limit, confirm, owner)).get
    assert number <= MAX_QUEUES, "the store has used up the numbers of its queues"
    queue = ItemQueue(number, name, limit, confirm, owner)
    book.items.add(queue)
    return queue.row(), True


def close_queue(book: Book, number: int) -> None:
    """Take no more items into it."""
    queue = book.items.queues.get(number)
    if queue is not None:
        queue.is_closed = True
        book.items.touch(queue)


def drop_queue(book: Book, number: int) -> None:
    """Delete it; of many items the rows follow."""
    queue = book.items.queues.get(number)
    if queue is None:
        return
    book.items.remove(queue)
    book.run("DELETE FROM item_queues WHERE number = ?", (number,))
    if queue.waiting + queue.held > FEW_ITEMS:
        book.run("INSERT INTO item_graves (queue) VALUES (?)", (number,))
    else:
        _delete_span(book, item_id(number, 0), item_id(number + 1, 0) - 1)


def clear_graves(book: Book, limit: int) -> int:
    """Delete about ``limit`` items of dropped queues. How many."""
    deleted = 0
    while deleted < limit:
        number: int | None = book.run("SELECT queue FROM item_graves LIMIT 1").get
        if number is None:
            break
        first, last = item_id(number, 0), item_id(number + 1, 0) - 1
        nth: int | None = book.run(_NTH, (first, last, limit - deleted - 1)).get
        deleted += _delete_span(book, first, last if nth is None else nth)
        if nth is None:
            book.run("DELETE FROM item_graves WHERE queue = ?", (number,))
    return deleted


def _delete_span(book: Book, first: int, last: int) -> int:
    for (digest,) in book.run(_BLOBS, (first, last)):
        book.refer(digest, -1)
    book.run("DELETE FROM taken_items WHERE id BETWEEN ? AND ?", (first, last))
    book.run("DELETE FROM items WHERE id BETWEEN ? AND ?", (first, last))
    return book.db.changes()


# --- exchanging -------------------------------------------------------------------------


def exchange(book: Book, taker: int, call: int, act: Exchange) -> Exchanged | Rejected:
    """Do an exchange, whole or not at all."""
    refusal = _refusal(book, taker, act)
    if refusal is not None:
        return refusal
    if act.confirms:
        _confirm(book, dict.fromkeys(act.confirms))
    if act.returns:
        held = [item for item in dict.fromkeys(act.returns) if book.items.is_held(item, taker)]
        book.many(_RETURN, book.items.give_back(held))
    for part in act.puts:
        _put(book, book.items.queues[part.queue], part.payloads)
    for finish in act.finishes:
        queue = book.items.queues[finish.queue]
        queue.unfinished -= finish.times
        book.items.touch(queue)
    if act.take is None:
        return Exchanged(ExchangeEnd.OK)
    source = book.items.queues[act.take]
    taken = _take(book, source, act.limit, taker, call)
    if taken:
        return Exchanged(ExchangeEnd.OK, taken)
    return Exchanged(ExchangeEnd.CLOSED if source.is_closed else ExchangeEnd.EMPTY)


def _refusal(book: Book, taker: int, act: Exchange) -> Exchanged | Rejected | None:
    """Why nothing of it can be done; None when all can."""
    queues, items = book.items.queues, book.items
    named = [part.queue for part in act.puts] + [finish.queue for finish in act.finishes]
    if act.take is not None:
        named.append(act.take)
    for number in named:
        if number not in queues:
            return Rejected(RejectCode.NOT_FOUND, f"there is no queue {number}; it was dropped")
    lost = [item for item in act.confirms if not items.is_held(item, taker)]
    if lost:
        return Exchanged(ExchangeEnd.LOST, [], lost)
    refusal = _finish_refusal(book, act) or _put_refusal(book, act)
    if refusal is not None:
        return refusal
    source = None if act.take is None else queues[act.take]
    if source is not None and source.is_closed and not source.waiting:
        return Exchanged(ExchangeEnd.CLOSED)
    return None


def _finish_refusal(book: Book, act: Exchange) -> Rejected | None:
    times: dict[int, int] = {}
    for finish in act.finishes:
        times[finish.queue] = times.get(finish.queue, 0) + finish.times
    for number, count in times.items():
        queue = book.items.queues[number]
        more = sum(len(part.payloads) for part in act.puts if part.queue == number)
        if count < 0 or count > queue.unfinished + more:
            return Rejected(RejectCode.TOO_MANY, "task_done() called too many times")
    return None


def _put_refusal(book: Book, act: Exchange) -> Exchanged | Rejected | None:
    queues = book.items.queues
    # Who confirms an item by putting another works the store off.
    no_room = book.no_room() if act.puts and not act.confirms else None
    if no_room is not None:
        return Rejected(RejectCode.STORE_FULL, no_room)
    if any(queues[part.queue].is_closed for part in act.puts):
        return Exchanged(ExchangeEnd.CLOSED)
    counts: dict[int, int] = {}
    for part in act.puts:
        counts[part.queue] = counts.get(part.queue, 0) + len(part.payloads)
        missing = book.missing_blob(part.payloads)
        if missing is not None:
            text = f"blob {missing.digest.hex()[:12]} of {missing.size_bytes} bytes is not stored"
            return Rejected(RejectCode.BAD_REQUEST, text)
    for number, count in counts.items():
        queue = queues[number]
        if queue.limit and queue.waiting and queue.waiting + count > queue.limit:
            return Exchanged(ExchangeEnd.FULL)
    return None


def _put(book: Book, queue: ItemQueue, payloads: list[Payload]) -> None:
    first = item_id(queue.number, queue.put)
    rows: list[Row] = []
    for number, payload in enumerate(payloads, first):
        if isinstance(payload, Blob):
            book.refer(payload.digest)
            rows.append((number, payload.size_bytes, payload.digest))
        else:
            rows.append((number, None, payload))
    book.many(_PUT, rows)
    queue.put += len(rows)
    queue.waiting += len(rows)
    queue.unfinished += len(rows)
    book.items.touch(queue)


def _take(book: Book, queue: ItemQueue, limit: int, taker: int, call: int) -> list[Item]:
    if limit < 1 or not queue.waiting:
        return []
    items = book.items
    rows = [book.run(_ITEM, (item,)).fetchone() for item in items.next_returned(queue, limit)]
    if len(rows) < limit and queue.waiting > len(rows):
        span = (queue.fresh, item_id(queue.number + 1, 0) - 1, limit - len(rows))
        rows += book.run(_FRESH, span).fetchall()
    if len(rows) > 1:
        rows = _fitting(queue, rows)
    queue.fresh = max(queue.fresh, rows[-1][0] + 1)
    taken = []
    for number, size, payload in rows:
        hold = items.holds.get(number)
        attempt = 1 if hold is None else hold.attempt + 1
        taken.append(Item(number, payload if size is None else Blob(payload, size), attempt))
    queue.waiting -= len(taken)
    queue.held += len(taken)
    items.touch(queue)
    for item in taken:
        items.note(item.number, Hold(taker, call, item.attempt))
    if queue.confirm is Confirm.GET:
        _confirm(book, dict.fromkeys(item.number for item in taken))
    else:
        book.many(_TAKE, [(item.number, taker, call, item.attempt) for item in taken])
    return taken


def _fitting(queue: ItemQueue, rows: list[Row]) -> list[Row]:
    """The first rows, as many as fit an answer; those behind go on waiting."""
    room = TAKE_BYTES
    for position, (_, size, payload) in enumerate(rows):
        room -= len(payload) if size is None else 0
        if room < 0 and position:
            for number, _, _ in rows[position:]:
                if number < queue.fresh:
                    heapq.heappush(queue.returned, number)
            return rows[:position]
    return rows


def _confirm(book: Book, numbers: dict[int, None]) -> None:
    items = book.items
    rows = [(item,) for item in numbers]
    for (digest,) in book.many(_BLOB, rows):
        book.refer(digest, -1)
    for sql in _DELETE:
        book.many(sql, rows)
    for item in numbers:
        items.forget(item)
        queue = items.queues[queue_of(item)]
        queue.held -= 1
        queue.confirmed += 1
        items.touch(queue)


# --- takers -----------------------------------------------------------------------------


def taken(book: Book, taker: int, call: int) -> list[Item]:
    """What a taker holds and took in a certain call."""
    found = []
    for number in sorted(book.items.of_taker.get(taker, ())):
        hold = book.items.holds[number]
        if hold.call == call:
            _, size, payload = book.run(_ITEM, (number,)).fetchone()
            found.append(
                Item(number, payload if size is None else Blob(payload, size), hold.attempt)
            )
    return found


def lose_taker(book: Book, taker: int) -> set[int]:
    """A taker is no more; queues that got items back."""
    book.run("DELETE FROM takers WHERE taker = ?", (taker,))
    return _lose(book, taker)


def lose_takers(book: Book, session: int) -> set[int]:
    """All takers of a session are no more; queues that got items back."""
    first, last = taker_id(session, 0), taker_id(session, MAX_TAKER)
    book.run("DELETE FROM takers WHERE taker BETWEEN ? AND ?", (first, last))
    queues: set[int] = set()
    for taker in [taker for taker in book.items.of_taker if first <= taker <= last]:
        queues |= _lose(book, taker)
    return queues


def _lose(book: Book, taker: int) -> set[int]:
    rows = book.items.give_back(list(book.items.of_taker.get(taker, ())))
    book.many(_RETURN, rows)
    return {queue_of(item) for (item,) in rows}
