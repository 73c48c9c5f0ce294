"""The ends of pipes: who holds them, and how the other end learns that nobody does.

An end is held by every Connection of it, in whatever process: each time it is
pickled there is one holder more. A copy that arrives somewhere holds a lock by
the taker of its process, and tells the pipe's *maker* which. The maker's client
waits for these locks: whoever lets go of one, closes it, ends or dies, is one
holder less. So a killed holder is noticed as fast as that of a lock.
"""

import asyncio
import contextlib
import os
import queue as standard
import secrets
import threading
from typing import TYPE_CHECKING, Any

from multihost.client.asyncio_taker import LoopTaker
from multihost.client.handles import UNNAMED, Handle
from multihost.client.items import Items
from multihost.client.packing import travels
from multihost.client.synchronizers import Synchronizer
from multihost.client.taker import Taker
from multihost.client.thread_taker import run
from multihost.errors import MultihostError
from multihost.runtime.config import find_target
from multihost.wire.act import Exchange, Kind, OpenSynchronizer, Put

if TYPE_CHECKING:
    from multihost.client import Client
    from multihost.client.calls import Calls

_A_HOLDER = b"N."
TICKET_BYTES = 8
ARRIVAL_S = 5.0
"""How long a copy waits, before its first use, to be known to the maker."""


class End(Handle):
    """One end of a pipe; knows no Connection.

    Invariant: ``holders`` has an item for each holder but one. Whoever finds none
    to take was the last, and closes the queues.
    """

    takes: Items | None = None
    gives: Items | None = None
    arrivals: Items | None = None
    """Where copies tell that they have arrived; made with the first that leaves."""
    ticket = b""
    """What tells a copy that arrives again, with a task that is tried again."""
    _is_makers = False
    _lock: Synchronizer | None = None
    _arrived: threading.Event | None = None

    def __init__(self, client: "Client | None") -> None:
        """An end whose queues live with this program."""
        self._attach(client, None)
        self._is_own = False
        self._is_makers = True
        self.holders = self.make_queue()
        self.pid = os.getpid()

    def make_queue(self) -> Items:
        """A queue that lives with this program."""
        taker = self._attach(self._client, None)
        self._is_own = False
        return run(Items.open(taker, self._name, 0, "get", is_transient=True))

    # letting go ------------------------------------------------------------------------

    def close(self) -> None:
        """One holder less."""
        if self._is_makers:
            run(self._let_go(self._taker()))
        else:
            self.forget()

    def forget(self) -> None:
        """Let go of it without waiting: nobody has it any more, or the process ends."""
        client = self._client
        if self.pid != os.getpid() or (client is not None and not client.is_usable):
            return
        with contextlib.suppress(MultihostError):  # no server: the pipe has ended with it
            self._calls().spawn(self._let_go if self._is_makers else self._retire)

    async def _let_go(self, taker: Taker) -> None:
        """One holder less; the last one closes the end."""
        try:
            await self.holders.take(taker, 1, 0.0, is_checked=False)
        except standard.Empty:
            # Whoever gets EOFError can't send any more either.
            for items in (self.takes, self.gives, self.arrivals):
                if items is not None:
                    await items.shut(taker)

    async def _retire(self, taker: Taker) -> None:
        """What a copy does: the maker sees that its lock is gone."""
        async with self._turn:
            if self._lock is None:
                await self._let_go(taker)
            else:
                await self._lock.drop(taker)

    # travelling ------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        if self.arrivals is None:
            self.arrivals = self.make_queue()
            calls = self._calls()
            asyncio.run_coroutine_threadsafe(self._follow(calls), calls.loop)
        if travels(self):
            run(self._add_holder(self._taker()))
        state = super().__getstate__()
        for key in ("pid", "_is_makers", "_lock", "_turn", "_arrived"):
            state.pop(key, None)
        return {**state, "ticket": secrets.token_bytes(TICKET_BYTES)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.pid = os.getpid()
        self._turn = asyncio.Lock()
        self._arrived = threading.Event()
        with contextlib.suppress(MultihostError):  # told when it is used
            if self._has_client() or find_target() is not None:
                self._calls().spawn(self._arrive)
                return
        self._arrived.set()

    def wait_arrived(self) -> None:
        """Return when the maker will learn what becomes of this copy; before its first use."""
        if self._arrived is not None:
            self._arrived.wait(ARRIVAL_S)
            self._arrived = None

    def _has_client(self) -> bool:
        from multihost.client.client import open_clients

        return any(client.session.store == self._store for client in open_clients())

    async def _add_holder(self, taker: Taker) -> None:
        """One holder more: it is on its way to another process."""
        put = Put(self.holders.number, [_A_HOLDER])
        await taker.exchange(lambda: Exchange(puts=[put]))

    async def _arrive(self, taker: Taker) -> None:
        """Hold a lock for as long as this copy lives, and tell the maker which."""
        arrived = self._arrived
        async with self._turn:
            try:
                self._lock = await self._tell(taker)
            finally:
                if arrived is not None:
                    arrived.set()

    async def _tell(self, taker: Taker) -> Synchronizer:
        name = f"{UNNAMED}{secrets.token_hex(8)}"
        act = OpenSynchronizer(Kind.LOCK, name, is_transient=True)
        lock = await Synchronizer.open(taker, act)
        await lock.acquire(taker, 0.0)
        assert self.arrivals is not None
        note = self.ticket + lock.number.to_bytes(8, "little")
        put = Put(self.arrivals.number, [note])
        await taker.exchange(lambda: Exchange(puts=[put]))
        return lock

    # the maker, on its client's loop -----------------------------------------------------

    async def _follow(self, calls: "Calls") -> None:
        """Wait for copies to arrive, and for each to be let go of, until the end is closed."""
        taker = LoopTaker(calls, calls.new_number())
        known: set[bytes] = set()
        assert self.arrivals is not None
        with contextlib.suppress(MultihostError):
            while True:
                _, (note,) = await self.arrivals.take(taker, 1, None, is_checked=False)
                ticket, number = note[:TICKET_BYTES], int.from_bytes(note[TICKET_BYTES:], "little")
                if ticket in known:
                    await self._add_holder(taker)
                known.add(ticket)
                calls.loop.create_task(self._outlive(calls, Synchronizer(number)))
        calls.end(taker, is_clean=False)

    async def _outlive(self, calls: "Calls", lock: Synchronizer) -> None:
        """Let go for a copy that was closed, or whose process ended or died."""
        taker = LoopTaker(calls, calls.new_number())
        with contextlib.suppress(MultihostError):  # dropped, with its session or by itself
            await lock.acquire(taker, None)
            await lock.drop(taker)
        with contextlib.suppress(MultihostError):  # the session is over, and the pipe with it
            await self._let_go(taker)
        calls.end(taker, is_clean=False)
