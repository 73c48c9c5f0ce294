"""Synchronizers and takers' last answers: small rows whose content is the server's business."""

from multihost.core.ids import MAX_TAKER, taker_id
from multihost.store.items import SynchronizerRow, TakerRow
from multihost.store.sqlite import items
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.memtable import Noting, Saving
from multihost.wire.act import Kind

_FIND = "SELECT number, kind, name, owner, state FROM synchronizers WHERE name = ?"
_ALL = "SELECT number, kind, name, owner, state FROM synchronizers ORDER BY number"
_NEW = "INSERT INTO synchronizers (kind, name, owner, state) VALUES (?, ?, ?, ?) RETURNING number"
_ANSWER = "SELECT number, answer FROM takers WHERE taker = ?"


def open_synchronizer(
    book: Book, kind: Kind, name: str, owner: int | None, state: bytes
) -> tuple[SynchronizerRow, bool]:
    """The synchronizer of this name, and whether it is new."""
    row = book.run(_FIND, (name,)).fetchone()
    if row is not None:
        return _row(*row), False
    number: int = book.run(_NEW, (kind, name, owner, state)).get
    return SynchronizerRow(number, kind, name, owner, state), True


def synchronizers(book: Book) -> list[SynchronizerRow]:
    """Every synchronizer."""
    state_of = book.items.memtable.state
    return [
        _row(number, kind, name, owner, state_of(number) or state)
        for number, kind, name, owner, state in book.run(_ALL)
    ]


def save(book: Book, number: int, state: bytes) -> None:
    """Keep its state."""
    book.items.memtable.save(number, state)
    book.items.memtable.did(Saving(number, state))


def drop(book: Book, number: int) -> None:
    """Delete it."""
    book.run("DELETE FROM synchronizers WHERE number = ?", (number,))


def drop_transients(book: Book, session: int) -> tuple[list[int], list[int]]:
    """Drop queues and synchronizers that live with a session; their numbers."""
    queues = [queue.number for queue in book.items.queues.values() if queue.owner == session]
    for number in queues:
        items.drop_queue(book, number)
    sql = "DELETE FROM synchronizers WHERE owner = ? RETURNING number"
    return queues, [number for (number,) in book.run(sql, (session,)).fetchall()]


def taker(book: Book, number: int) -> TakerRow | None:
    """The last call of a taker that was noted."""
    found = book.items.memtable.answer(number) or book.run(_ANSWER, (number,)).fetchone()
    return None if found is None else TakerRow(number, *found)


def takers(book: Book, session: int) -> list[TakerRow]:
    """The last calls of a session's takers."""
    span = (taker_id(session, 0), taker_id(session, MAX_TAKER))
    sql = "SELECT taker, number, answer FROM takers WHERE taker BETWEEN ? AND ?"
    rows = {taker: row for taker, *row in book.run(sql, span)} | book.items.memtable.answers(*span)
    return [TakerRow(taker, *row) for taker, row in sorted(rows.items())]


def note_answer(book: Book, number: int, call: int, answer: bytes) -> None:
    """Keep a call's answer; replaces the last."""
    book.items.memtable.note(number, call, answer)
    book.items.memtable.did(Noting(number, call, answer))


def _row(number: int, kind: int, name: str, owner: int | None, state: bytes) -> SynchronizerRow:
    return SynchronizerRow(number, Kind(kind), name, owner, state)
