"""The taker of a coroutine: what its core awaits suspends it."""

import asyncio
from typing import Any, TypeVar

from multihost.client.taker import Begin, Decide, Pending, Taker

T = TypeVar("T")


class LoopTaker(Taker):
    """The taker of a coroutine on the session's own loop. Cancelling withdraws."""

    async def _perform(
        self,
        decide: Decide,
        wait_s: float | None,
        is_owed: bool,  # noqa: FBT001 - as in Pending
    ) -> Pending:
        over: asyncio.Future[None] = self.line.loop.create_future()
        pending = Pending(self, decide, wait_s, lambda: _set(over, None), is_owed)
        self.line.start(pending)
        try:
            await over
        except BaseException:
            self.line.abandon(pending)
            raise
        if pending.error is not None:
            raise pending.error
        return pending

    async def _wait_for(self, begin: Begin) -> Any:
        over: asyncio.Future[Any] = self.line.loop.create_future()
        begin(lambda result: _set(over, result))
        return await over


def _set(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)
