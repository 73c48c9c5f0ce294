"""Queues of items for coroutines: the verbs of ``Queue``, awaited.

A taker is an asyncio task: what it took is done with when it takes the next
item or ends without an exception. Timeouts are arguments; ``asyncio.wait_for``
of Python 3.11 runs what it is given in a task of its own, which then is the taker.
"""

import pickle
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from multihost.client.arguments import whole
from multihost.client.asyncio_taker import LoopTaker
from multihost.client.handles import wait_of
from multihost.client.items import Items
from multihost.client.packing import pack_item

if TYPE_CHECKING:
    from multihost.client.calls import Calls


class AsyncQueue:
    """A lasting queue on the server; see ``Queue`` for what its policies mean."""

    def __init__(self, calls: "Calls", name: str, items: Items) -> None:
        """Use the open queue ``items``; ``AsyncClient.queue`` makes one."""
        self._calls = calls
        self._items = items
        self.name = name

    @classmethod
    async def open(
        cls, calls: "Calls", name: str, maxsize: int, confirm: str | None
    ) -> "AsyncQueue":
        """Find the queue of this name, or make it."""
        taker = calls.tasks.mine()
        items = await Items.open(taker, name, maxsize, confirm)
        return cls(calls, name, items)

    async def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ASYNC109, FBT001, FBT002 - as ``Queue``
        """Add an item; raises queue.Full if there is no room in ``timeout`` seconds."""
        await self._items.put(self._taker(), pack_item(obj), wait_of(block, timeout))

    async def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ASYNC109, FBT001, FBT002 - as above
        """The next item; raises queue.Empty if none comes in ``timeout`` seconds.

        Not to be given to ``asyncio.wait_for`` on Python 3.11: its task would be the taker,
        and be done with the item at once. ``timeout`` and ``asyncio.timeout`` are alright.
        """
        _, (data,) = await self._items.take(self._taker(), 1, wait_of(block, timeout))
        return pickle.loads(data)

    async def put_many(
        self,
        objs: Iterable[Any],
        block: bool = True,  # noqa: FBT001, FBT002 - as above
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> None:
        """Add items, up to a thousand in one transaction; when it raises, those before are in."""
        packed = (pack_item(obj) for obj in objs)
        await self._items.put_many(self._taker(), packed, wait_of(block, timeout))

    async def get_many(
        self,
        count: int,
        block: bool = True,  # noqa: FBT001, FBT002 - as above
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> list[Any]:
        """Up to ``count`` items, at least one; raises queue.Empty as ``get`` does."""
        most = whole("count", count)
        _, payloads = await self._items.take(self._taker(), most, wait_of(block, timeout))
        return [pickle.loads(data) for data in payloads]

    @asynccontextmanager
    async def take(self, block: bool = True, timeout: float | None = None) -> AsyncIterator[Any]:  # noqa: ASYNC109, FBT001, FBT002 - as above
        """``async with queue.take() as item:`` an item that is done with when the block ends.

        If the block raises, the item goes to others and what was put in it is void, but for
        puts into bounded queues: these are done when they return.
        """
        taker = self._taker()
        wait_s = wait_of(block, timeout)
        held, (data,) = await self._items.take(taker, 1, wait_s, keeps=True)
        try:
            yield pickle.loads(data)
        except BaseException:
            try:
                await self._items.give_back(taker, held)
            except BaseException:  # cancelled
                taker.undo_soon([item.number for item in held])
                raise
            raise
        await self._items.confirm_kept(taker, held)

    async def task_done(self) -> None:
        """The oldest item taken is done with; raises ValueError when called too often."""
        await self._items.task_done(self._taker())

    async def join(self) -> None:
        """Wait until ``task_done`` was called for every item that was put."""
        await self._items.join(self._taker())

    async def qsize(self) -> int:
        """Items that wait to be taken."""
        return (await self._items.measure(self._taker())).waiting

    async def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not await self.qsize()

    async def full(self) -> bool:
        """Whether there is no room for another item."""
        size = await self._items.measure(self._taker())
        return bool(size.limit) and size.waiting >= size.limit

    async def drop(self) -> None:
        """Delete the queue and all that is in it, for everybody."""
        await self._items.drop(self._taker())

    @property
    def maxsize(self) -> int:
        """How many items may wait in it; 0: no bound."""
        return self._items.limit

    @property
    def confirm(self) -> str:
        """When an item that was taken is done with."""
        return self._items.confirm.name.lower()

    def _taker(self) -> LoopTaker:
        return self._calls.tasks.mine()

    def __repr__(self) -> str:
        return f"<multihost.AsyncQueue {self.name!r}>"
