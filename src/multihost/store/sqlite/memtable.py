"""What the journal has and the tables don't have yet.

It answers for rows that are newer than the tables', and at last writes what is
left of them: of an item that was put and confirmed meanwhile, nothing. What was
done is noted too, for the journal's next record; doing the same again to the
same tables brings the same rows about.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from multihost.wire.act import Exchange

Row = tuple[int, int | None, bytes]
"""An item: its number, a blob's size or None, and the payload or the blob's digest."""

HEAVY_BYTES: Final = 2 << 20
"""Payloads in memory at which all is written into the tables."""
HEAVY_ROWS: Final = 4096
"""Rows in memory at which that is done."""

_PUT = "INSERT INTO items (id, size, payload) VALUES (?, ?, ?)"
_TAKE = (
    "INSERT INTO taken_items (id, holder, call, attempt) VALUES (?, ?, ?, ?) ON CONFLICT (id)"
    " DO UPDATE SET holder = excluded.holder, call = excluded.call, attempt = excluded.attempt"
)
_DELETE: Final = ("DELETE FROM items WHERE id = ?", "DELETE FROM taken_items WHERE id = ?")
_NOTE = (
    "INSERT INTO takers (taker, number, answer) VALUES (?, ?, ?) ON CONFLICT (taker)"
    " DO UPDATE SET number = excluded.number, answer = excluded.answer"
)
_SAVE = "UPDATE synchronizers SET state = ? WHERE number = ?"


class Exchanging(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """An exchange that was done, whole or but for its take."""

    taker: int
    call: int
    act: Exchange


class Noting(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """An answer that was noted."""

    taker: int
    call: int
    answer: bytes


class Saving(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A synchronizer's new state."""

    number: int
    state: bytes


Deed = Exchanging | Noting | Saving
encode_deeds: Callable[[list[Deed]], bytes] = msgspec.msgpack.Encoder().encode
decode_deeds: Callable[[bytes], list[Deed]] = msgspec.msgpack.Decoder(list[Deed]).decode


class Memtable:
    """Rows of items, answers and synchronizers that are newer than their tables.

    Who holds an item is ``ItemBook``'s to know; here is only for which items that has changed.
    """

    def __init__(self) -> None:
        """Begin with what the tables have."""
        self.is_dirty = False
        """Whether there is something to write, counters of queues included."""
        self.deeds: list[Deed] = []
        """What this transaction did, for the journal."""
        self.items: dict[int, Row] = {}
        """Items that were put."""
        self.held: dict[int, None] = {}
        """Items that were taken, or came back."""
        self._gone: list[tuple[int]] = []
        self._answers: dict[int, tuple[int, bytes]] = {}
        self._states: dict[int, bytes] = {}
        self._size_bytes = 0

    @property
    def is_heavy(self) -> bool:
        """Whether it is time to write it all down."""
        rows = len(self.items) + len(self.held) + len(self._gone) + len(self._answers)
        return rows > HEAVY_ROWS or self._size_bytes > HEAVY_BYTES

    def clear(self) -> None:
        """Forget it all: it is in the tables, or never happened."""
        self.is_dirty = False
        for rows in (self.deeds, self.items, self.held, self._gone, self._answers, self._states):
            rows.clear()
        self._size_bytes = 0

    def did(self, deed: Deed) -> None:
        """Note what was done."""
        self.is_dirty = True
        self.deeds.append(deed)

    # items -------------------------------------------------------------------------------

    def put(self, rows: Sequence[Row]) -> None:
        """New items."""
        for row in rows:
            self.items[row[0]] = row
            self._size_bytes += len(row[2])

    def hold(self, item: int) -> None:
        """An item's holder has changed."""
        self.is_dirty = True
        self.held[item] = None

    def drop(self, item: int) -> None:
        """An item is done with."""
        self.held.pop(item, None)
        row = self.items.pop(item, None)
        if row is None:
            self._gone.append((item,))
        else:
            self._size_bytes -= len(row[2])

    # answers and synchronizers -------------------------------------------------------------

    def note(self, taker: int, call: int, answer: bytes) -> None:
        """Keep a taker's last answer."""
        self._answers[taker] = (call, answer)

    def save(self, number: int, state: bytes) -> None:
        """Keep a synchronizer's state."""
        self._states[number] = state

    def answer(self, taker: int) -> tuple[int, bytes] | None:
        """The call and the answer noted here, if any."""
        return self._answers.get(taker)

    def answers(self, first: int, last: int) -> dict[int, tuple[int, bytes]]:
        """Those of a span of takers."""
        return {taker: row for taker, row in self._answers.items() if first <= taker <= last}

    def state(self, number: int) -> bytes | None:
        """A synchronizer's state, if it has a new one."""
        return self._states.get(number)

    # writing -------------------------------------------------------------------------------

    def write(self, many: Callable[..., Any], holds: Callable[[int], tuple[Any, ...]]) -> None:
        """Write what is left of it into the tables; ``holds`` gives an item's row of holders."""
        for sql, rows in (
            *((sql, self._gone) for sql in _DELETE),
            (_PUT, self.items.values()),
            (_TAKE, [holds(item) for item in self.held]),
            (_NOTE, [(taker, *row) for taker, row in self._answers.items()]),
            (_SAVE, [(state, number) for number, state in self._states.items()]),
        ):
            if rows:
                many(sql, rows)
        self.clear()
