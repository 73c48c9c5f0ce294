"""Queues of items: what their users' verbs mean in exchanges with the server.

Written once with ``await``, for threads and for coroutines (see ``taker``).
"""

import queue as standard
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from multihost.client.arguments import text, whole
from multihost.client.packing import Bulk, as_payload
from multihost.client.taker import Taker
from multihost.core.ids import queue_of
from multihost.errors import KeyConflict, LeaseLost, QueueClosed, SealError
from multihost.wire.act import (
    CloseQueue,
    Confirm,
    DropQueue,
    Exchange,
    Exchanged,
    ExchangeEnd,
    Finish,
    Item,
    JoinQueue,
    Measured,
    MeasureQueue,
    OpenQueue,
    Put,
    QueueOpened,
)
from multihost.wire.blob import Payload
from multihost.wire.seal import PREFIX_BYTES, Seal
from multihost.wire.taking import STAGED_ITEMS

CHUNK_BYTES = 1 << 20
"""Bytes of payloads after which ``put_many`` begins another exchange."""
POLICIES = {"next": Confirm.NEXT, "task_done": Confirm.TASK_DONE, "get": Confirm.GET}
"""Names by which users choose when an item that was taken is done with."""


class Size(NamedTuple):
    """What is in a queue."""

    waiting: int
    held: int
    """Taken, and not done with yet."""
    unfinished: int
    """Put, and not followed by a ``task_done``."""
    limit: int


class Items:
    """A queue of items on the server, by its number there."""

    __slots__ = ("confirm", "limit", "name", "number")

    def __init__(self, number: int, limit: int, confirm: Confirm, name: str) -> None:
        """The queue ``number`` for ``limit`` items (0: no bound), with its policy."""
        self.name = name
        self.number = number
        self.limit = limit
        self.confirm = confirm

    @classmethod
    async def open(
        cls, taker: Taker, name: str, limit: int, confirm: str | None, *, is_transient: bool = False
    ) -> "Items":
        """Find the queue of this name, with the settings that it has, or make it.

        Raises KeyConflict when it has others than were asked for: a ``limit`` of 0 and a
        ``confirm`` of None ask for none.
        """
        policy = Confirm.NEXT if confirm is None else policy_of(confirm)
        limit = max(0, whole("maxsize", limit))
        result = await taker.call(OpenQueue(text("name", name), limit, policy, is_transient))
        assert isinstance(result, QueueOpened)
        if limit not in {0, result.limit}:
            raise _conflict(name, f"maxsize={result.limit}", f"maxsize={limit}")
        if confirm is not None and policy is not result.confirm:
            raise _conflict(name, f"confirm={result.confirm.name.lower()!r}", f"{confirm!r}")
        return cls(result.queue, result.limit, result.confirm, name)

    @property
    def title(self) -> str:
        """What people call it."""
        return "a queue without a name" if self.name.startswith("~") else f"queue {self.name!r}"

    def stage(self, taker: Taker, packed: bytes | Bulk) -> bool:
        """Keep an item to go with the confirmation of what is held; False: it has to be ``put``."""
        if self.limit or not taker.taking.held:
            return False
        packed = self._sealed(taker, packed)
        return type(packed) is bytes and taker.stage(self.number, self.limit, [packed])

    async def put(self, taker: Taker, packed: bytes | Bulk, wait_s: float | None) -> None:
        """Add an item; raises queue.Full when there is no room in time."""
        packed = self._sealed(taker, packed)
        payload = packed if type(packed) is bytes else await taker.upload(packed)
        if taker.stage(self.number, self.limit, [payload]):
            return
        taking = taker.taking
        _check_room(await taker.exchange(lambda: taking.put(self.number, [payload]), wait_s))

    async def send(self, taker: Taker, packed: bytes | Bulk) -> None:
        """Add a message to a queue without bound, at once and whatever the taker holds.

        It is no part of what becomes of an item: its sender may wait for the answer to it before
        that is decided.
        """
        packed = self._sealed(taker, packed)
        put = Put(self.number, [await taker.upload(packed)])
        if taker.taking.staged and not taker.taking.kept:
            await taker.exchange(taker.staged_act)
        with taker.apart(self.number):
            await taker.exchange(lambda: Exchange(puts=[put]))

    async def put_many(
        self, taker: Taker, packed: Iterable[bytes | Bulk], wait_s: float | None
    ) -> None:
        """Add items, up to a thousand in one exchange; when it raises, those before are in."""
        taking, seal = taker.taking, taker.line.seal
        if seal is not None:
            packed = (self._signed(seal, each) for each in packed)
        for chunk in _chunks(packed, min(STAGED_ITEMS, self.limit or STAGED_ITEMS)):
            payloads: list[Payload] = [
                each if type(each) is bytes else await taker.upload(each) for each in chunk
            ]
            if not taker.stage(self.number, self.limit, payloads):
                decide = partial(taking.put, self.number, payloads)
                _check_room(await taker.exchange(decide, wait_s))

    async def take(
        self,
        taker: Taker,
        count: int,
        wait_s: float | None,
        *,
        keeps: bool = False,
        is_checked: bool = True,
    ) -> tuple[Sequence[Item], list[bytes]]:
        """Take up to ``count`` items and fetch their bytes; raises queue.Empty if none comes.

        What was taken before is done with, unless it ``keeps``: then it is so when
        ``confirm`` says it. Raises QueueClosed when none will come, and, if there is a seal
        and it ``is_checked``, SealError when an item is not signed with it.
        """
        taking = taker.taking
        taking.policies[self.number] = self.confirm
        while True:
            result = await taker.exchange(partial(taking.take, self.number, count), wait_s)
            if result.end is ExchangeEnd.OK:
                break
            if result.end is ExchangeEnd.EMPTY:
                raise standard.Empty
            if result.end is ExchangeEnd.CLOSED:
                raise QueueClosed(f"{self.title} was closed or dropped, and is empty")
        items = result.items
        if keeps:
            taker.keep(item.number for item in items)
        try:
            datas = [
                item.payload if type(item.payload) is bytes else await taker.fetch(item.payload)
                for item in items
            ]
        except BaseException:
            taker.give_back_soon([item.number for item in items])
            raise
        if taker.line.seal is not None and is_checked:
            datas = await self._opened(taker, taker.line.seal, items, datas)
        return items, datas

    async def _opened(
        self, taker: Taker, seal: Seal, items: Sequence[Item], datas: list[bytes]
    ) -> list[bytes]:
        """Items without their marks; all are given back if one of them is not signed."""
        try:
            return [self._checked(seal, data) for data in datas]
        except SealError:
            await self.give_back(taker, items)
            raise

    def _sealed(self, taker: Taker, packed: bytes | Bulk) -> bytes | Bulk:
        """An item as it leaves this program: signed, if there is a seal."""
        seal = taker.line.seal
        return packed if seal is None else self._signed(seal, packed)

    def _signed(self, seal: Seal, packed: bytes | Bulk) -> bytes | Bulk:
        data = packed if isinstance(packed, bytes) else packed.data
        return as_payload(seal.item(self.name, data))

    def _checked(self, seal: Seal, data: bytes) -> bytes:
        """An item without its mark; nobody unpickles one that is not signed for this queue."""
        if seal.is_item(self.name, data):
            return data[PREFIX_BYTES:]
        raise SealError(
            f"an item of {self.title} is not signed with this program's seal "
            f"({seal.id.hex()}), and was not unpickled; with confirm='get' it is lost, else it is "
            "in the queue again. Whoever "
            "put it has no seal or another one (give it this one: a join string, MULTIHOST_SEAL, "
            "the file 'seal'), or it was altered at the server. Drop the queue, or take the item "
            "with MULTIHOST_SEAL=off"
        )

    async def confirm_kept(self, taker: Taker, items: Sequence[Item]) -> None:
        """Kept items are done with; raises LeaseLost when others may have got them."""
        numbers = [item.number for item in items]
        if self.confirm is Confirm.GET:
            return
        finishes = [Finish(self.number, len(items))] if self.confirm is Confirm.TASK_DONE else []

        def decide() -> Exchange:
            exchange = taker.taking.confirm(numbers)
            return Exchange(exchange.confirms, [], exchange.puts, finishes)

        result = await taker.exchange(decide, is_owed=True)
        if result.end is ExchangeEnd.LOST:
            raise LeaseLost(
                f"the lease on {len(result.lost)} item(s) of {self.title} was lost: this "
                "session was away too long; others get them, and what was put for them is void"
            )

    async def give_back(self, taker: Taker, items: Sequence[Item]) -> None:
        """Items are for others; what was staged since is forgotten."""
        numbers = [item.number for item in items]
        if self.confirm is not Confirm.GET:
            await taker.exchange(lambda: taker.taking.give_back(numbers))

    async def task_done(self, taker: Taker, times: int = 1) -> None:
        """The oldest items taken are done with; raises TooMany (a ValueError) if there are none."""
        taking = taker.taking
        while times > 0:
            result = await taker.exchange(partial(taking.finish, self.number, times), is_owed=True)
            if result.end is not ExchangeEnd.LOST:
                return
            # What was lost is done, and finished, by others.
            lost = sum(queue_of(item) == self.number for item in result.lost)
            if lost:
                times = min(times - lost, len(taking.held.get(self.number, ())))

    async def join(self, taker: Taker) -> None:
        """Wait until all that was put is finished."""
        await taker.call(JoinQueue(self.number), None)

    async def measure(self, taker: Taker) -> Size:
        """What is in it."""
        result = await taker.call(MeasureQueue(self.number))
        assert isinstance(result, Measured)
        return Size(*result.numbers)

    async def leave(self, taker: Taker) -> None:
        """The taker is done with the queue: what it took and what it staged are settled."""
        taking = taker.taking

        def decide() -> Exchange | None:
            if taking.staged and not taking.kept:
                return taking.flush()
            loose = [item for item in taking.held.get(self.number, ()) if item not in taking.kept]
            if self.confirm is not Confirm.NEXT or not loose:
                return None
            return taking.confirm(loose)

        if taking.held or taking.staged:
            await taker.exchange(decide)

    async def shut(self, taker: Taker) -> None:
        """Take nothing more into it; who takes gets QueueClosed once it is empty."""
        await taker.call(CloseQueue(self.number))

    async def drop(self, taker: Taker) -> None:
        """Delete the queue and what is in it, also what the taker holds of it."""
        taker.line.forget_queue(self.number)
        await taker.call(DropQueue(self.number))


def _conflict(name: str, has: str, asked: str) -> KeyConflict:
    return KeyConflict(
        f"there is a queue {name!r} with {has}, not {asked}: ask for what it has, or for nothing, "
        "to use it as it is; choose another name; or drop it first "
        f"('multihost queues drop {name}')"
    )


def policy_of(confirm: str) -> Confirm:
    """The policy of this name; raises ValueError that tells which there are."""
    policy = POLICIES.get(confirm)
    if policy is None:
        raise ValueError(f"confirm={confirm!r}: it is one of {', '.join(map(repr, POLICIES))}")
    return policy


def _check_room(result: Exchanged) -> None:
    if result.end is ExchangeEnd.FULL:
        raise standard.Full


def _chunks(packed: Iterable[bytes | Bulk], items: int) -> Iterator[list[bytes | Bulk]]:
    chunk: list[bytes | Bulk] = []
    size = 0
    for each in packed:
        chunk.append(each)
        size += len(each) if isinstance(each, bytes) else 64
        if len(chunk) >= items or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
