"""The part of a store's contract that is about takers: queues of items, synchronizers, answers.

It is one with the rest: the same transactions, the same owner, the same rules
as in ``store.base``.
"""

from typing import Final, Protocol

import msgspec

from multihost.wire.act import Confirm, Exchange, Exchanged, ExchangeEnd, Item, Kind, Rejected

TAKE_BYTES: Final = 8 << 20
"""Payload bytes that one take gives at most, if it is more than one item: they travel together.

Blobs travel by themselves and do not count.
"""


class ItemQueueRow(msgspec.Struct, frozen=True):
    """A queue of items as listings show it."""

    number: int
    name: str
    limit: int
    """Items that may wait in it; 0: no bound of its own."""
    confirm: Confirm
    owner: int | None
    """Session that a transient queue ends with."""
    is_closed: bool
    waiting: int
    held: int
    unfinished: int
    """Put, and not followed by a ``task_done``."""
    put: int
    """Items ever put."""
    confirmed: int
    """Items ever done with."""


class SynchronizerRow(msgspec.Struct, frozen=True):
    """A synchronizer as the store keeps it: its state is opaque here."""

    number: int
    kind: Kind
    name: str
    owner: int | None
    state: bytes


class TakerRow(msgspec.Struct, frozen=True):
    """The last call of a taker that must not be done twice, and its answer."""

    taker: int
    number: int
    answer: bytes
    """msgpack of ``wire.act.AnyResult``; items of an exchange left out, they are looked up."""


def kept_answer(exchange: Exchange, result: Exchanged, confirm: Confirm | None) -> bytes | None:
    """What is kept of an exchange that was done, lest it be done twice; None: nothing need be.

    ``confirm`` is the policy of the queue taken from. Items are looked up, unless they are gone.
    """
    if result.items and confirm is Confirm.GET:
        return _encode(result)
    if exchange.puts or exchange.confirms or exchange.finishes:
        return _WITHOUT_ITEMS[result.end]
    return None


_encode = msgspec.msgpack.Encoder().encode
_WITHOUT_ITEMS = {end: _encode(Exchanged(end)) for end in ExchangeEnd}


class ItemStore(Protocol):
    """What a store keeps of takers."""

    # queues of items -------------------------------------------------------------------

    def open_item_queue(
        self, name: str, limit: int, confirm: Confirm, owner: int | None
    ) -> tuple[ItemQueueRow, bool]:
        """The queue of this name, and whether it is new. One that exists keeps its settings."""
        ...

    def item_queue(self, queue: int) -> ItemQueueRow | None:
        """A queue of items by its number."""
        ...

    def find_item_queue(self, name: str) -> ItemQueueRow | None:
        """A queue of items by its name."""
        ...

    def item_queues(self) -> list[ItemQueueRow]:
        """Every queue of items that is not transient, by name."""
        ...

    def close_item_queue(self, queue: int) -> None:
        """Take no more items into it. Idempotent."""
        ...

    def drop_item_queue(self, queue: int) -> None:
        """Delete it; it is gone at once, of many items the rows follow in ``prune``."""
        ...

    def exchange(
        self, taker: int, number: int, exchange: Exchange, now: float, *, overfills: bool = False
    ) -> Exchanged | Rejected:
        """Do an exchange, whole or not at all, never waiting.

        FULL when a queue's limit would be passed, unless it ``overfills``, CLOSED when a
        queue put into is closed (or the one taken from is, and is empty), LOST when an item
        to be confirmed is not held by ``taker``; then nothing was done. A return of what is
        not held is no matter. A put of more than a bounded queue's whole limit is FULL as long as
        anything waits in it. EMPTY when only the take found nothing.
        ``number`` is the taker's call: taken items remember it. First in, first
        out; what came back comes first. Items of a queue that confirms at GET are
        confirmed as they are taken. Of large items fewer are given than there are:
        TAKE_BYTES of payloads, or one item. Its answer is kept as ``kept_answer`` says.
        Rejected, with nothing done: NOT_FOUND for a queue that does not exist, TOO_MANY for a
        finish beyond what is unfinished, BAD_REQUEST for a payload whose blob is not in the
        store in that size.
        """
        ...

    def taken(self, taker: int, number: int) -> list[Item]:
        """Items that ``taker`` holds and took in its call ``number``, to answer it again."""
        ...

    def lose_taker(self, taker: int) -> set[int]:
        """A taker is no more: its items wait again, its row goes. Queues that got items."""
        ...

    def lose_takers(self, session: int) -> set[int]:
        """All takers of a session are no more."""
        ...

    def drop_transients(self, session: int) -> tuple[list[int], list[int]]:
        """Drop queues and synchronizers that live with a session; their numbers."""
        ...

    # synchronizers ---------------------------------------------------------------------

    def open_synchronizer(
        self, kind: Kind, name: str, owner: int | None, state: bytes
    ) -> tuple[SynchronizerRow, bool]:
        """The synchronizer of this name (kinds share the names), and whether it is new."""
        ...

    def synchronizers(self) -> list[SynchronizerRow]:
        """Every synchronizer; read once, when a server starts."""
        ...

    def save_synchronizer(self, synchronizer: int, state: bytes) -> None:
        """Keep its state."""
        ...

    def drop_synchronizer(self, synchronizer: int) -> None:
        """Delete it. Idempotent."""
        ...

    # takers ----------------------------------------------------------------------------

    def taker(self, taker: int) -> TakerRow | None:
        """The last call of a taker that was noted."""
        ...

    def takers(self, session: int) -> list[TakerRow]:
        """The last calls of a session's takers."""
        ...

    def note_answer(self, taker: int, number: int, answer: bytes) -> None:
        """Keep a call's answer, in the transaction that did it; replaces the last.

        Of calls other than exchanges, whose answers ``exchange`` keeps.
        """
        ...
