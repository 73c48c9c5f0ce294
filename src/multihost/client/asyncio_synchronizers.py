"""Locks, semaphores, conditions, events and barriers for coroutines, by their names.

The verbs of ``multihost.synchronize``, awaited. A holder is an asyncio task.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from multihost.client.asyncio_taker import LoopTaker
from multihost.client.handles import wait_of
from multihost.client.synchronizers import Synchronizer
from multihost.wire.act import Kind, OpenSynchronizer

if TYPE_CHECKING:
    from multihost.client.calls import Calls


class _Shared:
    """Base: a synchronizer that is open."""

    def __init__(self, calls: "Calls", name: str, remote: Synchronizer) -> None:
        self._calls = calls
        self._remote = remote
        self.name = name

    @classmethod
    async def open(cls, calls: "Calls", kind: Kind, name: str, number: int = 0) -> Self:
        """Find the synchronizer of this name, or make it."""
        act = OpenSynchronizer(kind, name, number)
        return cls(calls, name, await Synchronizer.open(calls.tasks.mine(), act))

    def _taker(self) -> LoopTaker:
        return self._calls.tasks.mine()

    def __repr__(self) -> str:
        return f"<multihost.{type(self).__name__} {self.name!r}>"


class AsyncLock(_Shared):
    """A lock, reentrant lock or semaphore; ``async with`` acquires and releases it."""

    async def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: ASYNC109, FBT001, FBT002 - as ``Lock``
        """Acquire it; False when that was not possible at once, or in ``timeout`` seconds."""
        return await self._remote.acquire(self._taker(), wait_of(block, timeout))

    async def release(self) -> None:
        """Release it."""
        await self._remote.release(self._taker())

    @property
    def token(self) -> int | None:
        """Fencing token of this task's latest acquire; None when it holds nothing."""
        return self._remote.token(self._taker())

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()


class AsyncSemaphore(AsyncLock):
    """A semaphore."""

    async def get_value(self) -> int:
        """How often it can be acquired right now."""
        return (await self._remote.measure(self._taker()))[0]


class AsyncCondition(_Shared):
    """A condition; ``async with`` acquires and releases its lock."""

    lock: AsyncLock

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as ``Condition``
        """Let go of the lock, wait for a notify, take it again; False after ``timeout`` seconds."""
        lock = self.lock._remote.number
        return await self._remote.wait_notified(self._taker(), lock, wait_of(True, timeout))

    async def notify(self, n: int = 1) -> None:
        """Wake ``n`` of those who wait."""
        await self._remote.notify(self._taker(), n)

    async def notify_all(self) -> None:
        """Wake all who wait."""
        await self._remote.notify(self._taker(), -1)

    async def __aenter__(self) -> Self:
        await self.lock.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.lock.release()


class AsyncEvent(_Shared):
    """An event."""

    async def is_set(self) -> bool:
        """Whether it is set."""
        return bool((await self._remote.measure(self._taker()))[0])

    async def set(self) -> None:
        """Set it; whoever waits goes on."""
        await self._remote.set(self._taker(), is_set=True)

    async def clear(self) -> None:
        """Clear it."""
        await self._remote.set(self._taker(), is_set=False)

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as ``Event``
        """Wait until it is set; False after ``timeout`` seconds."""
        return await self._remote.wait_set(self._taker(), wait_of(True, timeout))


class AsyncBarrier(_Shared):
    """A barrier."""

    async def wait(self, timeout: float | None = None) -> int:  # noqa: ASYNC109 - as ``Barrier``
        """Wait for all parties; which of them this is, from 0. Raises BrokenBarrierError."""
        position, _ = await self._remote.pass_barrier(self._taker(), wait_of(True, timeout))
        return position

    async def reset(self) -> None:
        """Make it empty again; whoever waits gets BrokenBarrierError."""
        await self._remote.reset(self._taker(), is_abort=False)

    async def abort(self) -> None:
        """Break it, until it is reset."""
        await self._remote.reset(self._taker(), is_abort=True)


async def open_condition(calls: "Calls", name: str) -> AsyncCondition:
    """The condition of this name, with the lock that ``Condition(name=)`` gives it."""
    lock = await AsyncLock.open(calls, Kind.RLOCK, f"{name}~lock")
    condition = await AsyncCondition.open(calls, Kind.CONDITION, name, lock._remote.number)
    condition.lock = lock
    return condition
