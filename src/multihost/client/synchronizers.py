"""Synchronizers: what their users' verbs mean in calls to the server.

Written once with ``await``, for threads and for coroutines (see ``taker``).
"""

from multihost.client.taker import Taker
from multihost.errors import BarrierBroken
from multihost.wire.act import (
    Acquire,
    Data,
    Done,
    DropSynchronizer,
    FinishAction,
    Measured,
    MeasureSynchronizer,
    Notify,
    OpenSynchronizer,
    PassBarrier,
    ReadValue,
    Release,
    ResetBarrier,
    SetEvent,
    SynchronizerOpened,
    WaitNotified,
    WaitSet,
    WriteValue,
)


class Synchronizer:
    """A lock, semaphore, condition, event, barrier or value on the server, by its number there."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        """The synchronizer ``number``."""
        self.number = number

    @classmethod
    async def open(cls, taker: Taker, act: OpenSynchronizer) -> "Synchronizer":
        """Find the synchronizer of this name and kind, or make it."""
        result = await taker.call(act)
        assert isinstance(result, SynchronizerOpened)
        return cls(result.synchronizer)

    async def acquire(self, taker: Taker, wait_s: float | None) -> bool:
        """Whether the lock or semaphore was acquired in time; the taker notes the token."""
        result = await taker.call(Acquire(self.number), wait_s)
        return isinstance(result, Done) and result.value

    async def release(self, taker: Taker, times: int = 1) -> None:
        """Let go of a lock or semaphore; raises NotHeld or TooMany."""
        await taker.call(Release(self.number, times))

    def token(self, taker: Taker) -> int | None:
        """Token of the taker's latest acquire; None when it holds nothing."""
        tokens = taker.tokens.get(self.number)
        return tokens[-1] if tokens else None

    async def wait_notified(self, taker: Taker, lock: int, wait_s: float | None) -> bool:
        """Let go of a condition's lock until notified, then take it again; False: not in time."""
        result = await taker.call(WaitNotified(self.number), wait_s)
        assert isinstance(result, Done)
        tokens = taker.tokens.get(lock)
        if tokens:
            tokens[-1] = result.token
        return result.value

    async def notify(self, taker: Taker, count: int) -> None:
        """Wake so many waiters of a condition; -1: all."""
        await taker.call(Notify(self.number, count))

    async def set(self, taker: Taker, *, is_set: bool) -> None:
        """Set an event, or clear it."""
        await taker.call(SetEvent(self.number, is_set))

    async def wait_set(self, taker: Taker, wait_s: float | None) -> bool:
        """Wait for an event; whether it is set."""
        result = await taker.call(WaitSet(self.number), wait_s)
        return isinstance(result, Done) and result.value

    async def pass_barrier(
        self, taker: Taker, wait_s: float | None, *, has_action: bool = False
    ) -> tuple[int, int]:
        """Wait for all parties; which of them this is, from 0. Raises BarrierBroken.

        And the action's token, if there is one that this party has to do: then the others
        wait for ``finish_action``.
        """
        result = await taker.call(PassBarrier(self.number, has_action), wait_s)
        assert isinstance(result, Done)
        if not result.value:
            raise BarrierBroken("not all parties came to the barrier in time; it is broken now")
        return result.number, result.token

    async def finish_action(self, taker: Taker, token: int, *, has_failed: bool) -> None:
        """Let a barrier's parties go on, or break it. Raises BarrierBroken if it is already."""
        await taker.call(FinishAction(self.number, token, has_failed))

    async def reset(self, taker: Taker, *, is_abort: bool) -> None:
        """Empty a barrier, or break it."""
        await taker.call(ResetBarrier(self.number, is_abort))

    async def read(self, taker: Taker, start: int = 0, stop: int = -1) -> bytes:
        """Bytes of a value; ``stop`` -1: to the end."""
        result = await taker.call(ReadValue(self.number, start, stop))
        assert isinstance(result, Data)
        return result.data

    async def write(self, taker: Taker, start: int, data: bytes) -> None:
        """Overwrite bytes of a value."""
        await taker.call(WriteValue(self.number, start, data))

    async def measure(self, taker: Taker) -> list[int]:
        """Numbers of its state; see MeasureSynchronizer."""
        result = await taker.call(MeasureSynchronizer(self.number))
        assert isinstance(result, Measured)
        return result.numbers

    async def drop(self, taker: Taker) -> None:
        """Delete it."""
        await taker.call(DropSynchronizer(self.number))
