"""Queues of items: put, taken under a lease, confirmed or given back.

What exchanges do is done in memory and noted in the memtable, which ``Book``
writes into the tables; what else happens to queues finds it there already.
"""

import heapq
from typing import Final

from multihost.core.ids import ITEM_BITS, MAX_TAKER, item_id, taker_id
from multihost.store.items import TAKE_BYTES, ItemQueueRow, kept_answer
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.itembook import Hold, ItemQueue
from multihost.store.sqlite.memtable import Exchanging, Row
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

_NEW_QUEUE = (
    'INSERT INTO item_queues (name, "limit", confirm, owner) VALUES (?, ?, ?, ?) RETURNING number'
)
_FRESH = "SELECT id, size, payload FROM items WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
_ITEM = "SELECT id, size, payload FROM items WHERE id = ?"
_BLOBS = "SELECT payload FROM items WHERE id BETWEEN ? AND ? AND size IS NOT NULL"
_OK: Final = ExchangeEnd.OK
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


def exchange(
    book: Book, taker: int, call: int, act: Exchange, *, overfills: bool
) -> Exchanged | Rejected:
    """Do an exchange, whole or not at all."""
    refusal = _refusal(book, taker, act, overfills=overfills)
    if refusal is not None:
        return refusal
    result = carry_out(book, taker, call, act)
    if result.items or act.confirms or act.puts or act.returns or act.finishes:
        book.items.memtable.did(Exchanging(taker, call, act))
    return result


def carry_out(book: Book, taker: int, call: int, act: Exchange) -> Exchanged:
    """Do an exchange that nothing speaks against, and keep its answer."""
    items = book.items
    if act.confirms:
        _confirm(book, act.confirms)
    if act.returns:
        held = [item for item in dict.fromkeys(act.returns) if items.is_held(item, taker)]
        items.give_back(held)
    for part in act.puts:
        _put(book, items.queues[part.queue], part.payloads)
    for finish in act.finishes:
        queue = items.queues[finish.queue]
        queue.unfinished -= finish.times
        items.touch(queue)
    source = None
    if act.take is None:
        result = Exchanged(_OK)
    else:
        source = items.queues[act.take]
        taken = _take(book, source, act.limit, taker, call)
        if taken:
            result = Exchanged(_OK, taken)
        else:
            result = Exchanged(ExchangeEnd.CLOSED if source.is_closed else ExchangeEnd.EMPTY)
    answer = kept_answer(act, result, None if source is None else source.confirm)
    if answer is not None:
        items.memtable.note(taker, call, answer)
    return result


def _refusal(
    book: Book, taker: int, act: Exchange, *, overfills: bool
) -> Exchanged | Rejected | None:
    """Why nothing of it can be done; None when all can."""
    queues = book.items.queues
    source = None
    if act.take is not None:
        source = queues.get(act.take)
        if source is None:
            return _missing(act.take)
    for put in act.puts:
        if put.queue not in queues:
            return _missing(put.queue)
    for finish in act.finishes:
        if finish.queue not in queues:
            return _missing(finish.queue)
    lost = act.confirms and _lost(book, act.confirms, taker)
    if lost:
        return Exchanged(ExchangeEnd.LOST, [], lost)
    refusal = (act.finishes and _finish_refusal(book, act)) or (
        act.puts and _put_refusal(book, act, overfills=overfills)
    )
    if refusal:
        return refusal
    if source is not None and source.is_closed and not source.waiting:
        return Exchanged(ExchangeEnd.CLOSED)
    return None


def _missing(number: int) -> Rejected:
    return Rejected(RejectCode.NOT_FOUND, f"there is no queue {number}; it was dropped")


def _lost(book: Book, numbers: list[int], taker: int) -> list[int]:
    """Items that ``taker`` does not hold."""
    holds, lost = book.items.holds, []
    for item in numbers:
        hold = holds.get(item)
        if hold is None or hold.holder != taker:
            lost.append(item)
    return lost


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


def _put_refusal(book: Book, act: Exchange, *, overfills: bool) -> Exchanged | Rejected | None:
    queues = book.items.queues
    # Who confirms an item by putting another works the store off.
    no_room = None if act.confirms else book.no_room()
    if no_room is not None:
        return Rejected(RejectCode.STORE_FULL, no_room)
    counts: dict[int, int] = {}
    blobs: list[Blob] = []
    for part in act.puts:
        queue = queues[part.queue]
        if queue.is_closed:
            return Exchanged(ExchangeEnd.CLOSED)
        if queue.limit:
            counts[part.queue] = counts.get(part.queue, 0) + len(part.payloads)
        for payload in part.payloads:
            if payload.__class__ is not bytes:
                blobs.append(payload)  # type: ignore[arg-type] # noqa: PERF401 - mostly none
    missing = book.missing_blob(blobs) if blobs else None
    if missing is not None:
        text = f"blob {missing.digest.hex()[:12]} of {missing.size_bytes} bytes is not stored"
        return Rejected(RejectCode.BAD_REQUEST, text)
    for number, count in counts.items():
        queue = queues[number]
        if queue.waiting and queue.waiting + count > queue.limit and not overfills:
            return Exchanged(ExchangeEnd.FULL)
    return None


def _put(book: Book, queue: ItemQueue, payloads: list[Payload]) -> None:
    rows: list[Row] = []
    for number, payload in enumerate(payloads, queue.first + queue.put):
        if payload.__class__ is bytes:
            rows.append((number, None, payload))
        else:
            assert isinstance(payload, Blob)
            book.refer(payload.digest)
            rows.append((number, payload.size_bytes, payload.digest))
    book.items.memtable.put(rows)
    queue.put += len(rows)
    queue.waiting += len(rows)
    queue.unfinished += len(rows)
    book.items.touch(queue)


def _take(book: Book, queue: ItemQueue, limit: int, taker: int, call: int) -> list[Item]:
    if limit < 1 or not queue.waiting:
        return []
    items = book.items
    rows = _next_rows(book, queue, limit)
    queue.fresh = max(queue.fresh, rows[-1][0] + 1)
    taken = []
    for number, size, payload in rows:
        hold = items.holds.get(number)
        attempt = 1 if hold is None else hold.attempt + 1
        taken.append(Item(number, payload if size is None else Blob(payload, size), attempt))
        items.note(number, Hold(taker, call, attempt, None if size is None else payload))
        items.memtable.held[number] = None
    queue.waiting -= len(taken)
    queue.held += len(taken)
    items.touch(queue)
    if queue.confirm is Confirm.GET:
        _confirm(book, [item.number for item in taken])
    return taken


def _next_rows(book: Book, queue: ItemQueue, limit: int) -> list[Row]:
    """The first items that wait: what came back, then what was never taken."""
    if limit == 1 and not queue.returned and queue.fresh >= queue.filed:
        return [book.items.memtable.items[queue.fresh]]
    rows = []
    if queue.returned:
        rows = [_row(book, item) for item in book.items.next_returned(queue, limit)]
    if len(rows) < limit and queue.waiting > len(rows):
        rows += _fresh(book, queue, limit - len(rows))
    return _fitting(queue, rows) if len(rows) > 1 else rows


def _fresh(book: Book, queue: ItemQueue, limit: int) -> list[Row]:
    """The first items that were never taken: those in the table, then those in memory."""
    rows: list[Row] = []
    if queue.fresh < queue.filed:
        rows = book.run(_FRESH, (queue.fresh, queue.filed - 1, limit)).fetchall()
    if len(rows) < limit:
        first, end = max(queue.fresh, queue.filed), queue.first + queue.put
        unfiled = book.items.memtable.items
        rows += [unfiled[item] for item in range(first, min(end, first + limit - len(rows)))]
    return rows


def _row(book: Book, item: int) -> Row:
    row = book.items.memtable.items.get(item)
    if row is None:
        row = book.run(_ITEM, (item,)).fetchone()
    return row


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


def _confirm(book: Book, numbers: list[int]) -> None:
    items = book.items
    for item in numbers if len(numbers) == 1 else dict.fromkeys(numbers):
        digest = items.holds[item].digest
        if digest is not None:
            book.refer(digest, -1)
        items.forget(item)
        items.memtable.drop(item)
        queue = items.queues[item >> ITEM_BITS]
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
            _, size, payload = _row(book, number)
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
    return book.items.give_back(list(book.items.of_taker.get(taker, ())))
