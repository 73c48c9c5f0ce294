"""A manager's door that stands before the server this program is configured for.

Clients connect to the manager's address, and the queues are the server's: they
are there when the program is not. Runs on the event loop of a client of its own.
"""

import asyncio
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from multihost.client.blobs import Bytes
from multihost.client.blocking import Bridge
from multihost.client.opening import open_session
from multihost.client.session import Session
from multihost.client.taker import Pending, Taker
from multihost.core.digest import digest_of
from multihost.errors import MultihostError
from multihost.managers.front import FrontPlan
from multihost.managers_front import DROPPED, KEPT
from multihost.runtime.config import Target
from multihost.server.managers.door import Door, make_door
from multihost.server.managers.host import Host
from multihost.server.managers.options import ManagersOptions
from multihost.wire import act as a
from multihost.wire.blob import Blob

PATIENCE_S = 10.0
"""How long the server is waited for when the manager starts, and after it went away."""
STOP_S = 5.0


class RemoteBacking:
    """The queues of a server, through a client's session; a backing for ``server.managers``."""

    def __init__(self, session: Session, *, is_transient: bool) -> None:
        """Use ``session``, on its loop; ``is_transient``: its queues end with it."""
        self._is_transient = is_transient
        self._calls = session.calls
        self._blobs = session.blobs
        self._relays: dict[int, _Relay] = {}

    async def begin(self) -> None:
        """Nothing is left from before: the session is new."""

    def open_taker(self) -> int:
        """A number for one more taker."""
        relay = _Relay(self._calls, self._calls.new_number())
        self._relays[relay.number] = relay
        return relay.number

    def call(
        self,
        taker: int,
        number: int,
        act: a.AnyAct,
        wait_s: float | None,
        reply: Callable[[a.AnyResult], None],
    ) -> None:
        """Do an act for a taker; a server that is gone for good refuses it."""
        relay = self._relays[taker]
        if self._is_transient and isinstance(act, a.OpenQueue):
            act = msgspec.structs.replace(act, is_transient=True)

        def wake() -> None:
            relay.pending = None
            if pending.result is not None:
                reply(pending.result)
            else:
                why = str(pending.error or "the client was closed")
                reply(a.Rejected(a.RejectCode.BAD_REQUEST, why))

        pending = Pending(relay, lambda: act, wait_s, wake)
        relay.pending = pending
        self._calls.start(pending)

    def end_taker(self, taker: int) -> None:
        """A taker is no more: what it holds goes to others."""
        relay = self._relays.pop(taker)
        if relay.pending is not None:
            relay.pending.wake = _nobody
            self._calls.abandon(relay.pending)
        self._calls.end(relay, is_clean=False)

    async def open_writer(self, uid: bytes, name: str, realm: str) -> int | None:
        """None: the session sees to it that every call is done once."""
        return None

    def leave_writer(self, writer: int, number: int) -> None:
        """There is none."""

    async def store(self, item: bytes) -> Blob:
        """Keep a large item's bytes."""
        blob = Blob(digest_of(item), len(item))
        done: asyncio.Future[MultihostError | None] = asyncio.get_running_loop().create_future()
        self._blobs.put(blob, item, done.set_result)
        error = await done
        if error is not None:
            raise OSError(str(error))
        return blob

    async def load(self, blob: Blob) -> bytes:
        """The bytes of a large item."""
        done: asyncio.Future[Bytes | MultihostError] = asyncio.get_running_loop().create_future()
        self._blobs.get(blob, done.set_result)
        result = await done
        if isinstance(result, MultihostError):
            raise FileNotFoundError(str(result))
        return bytes(result)


class _Relay(Taker):
    """A taker whose items are followed elsewhere: by its connection at the door."""

    pending: Pending | None = None

    def _settle(self, act: a.AnyAct, result: a.AnyResult) -> a.AnyAct | None:
        """Its connection follows what becomes of it."""
        return None


def _nobody() -> None:
    """Nobody waits."""


class RemoteFront:
    """What ``managers.front.Front`` is without a process: a door of this program's."""

    def __init__(
        self,
        target: Target,
        plan: FrontPlan,
        listener: socket.socket,
        on_dropped: Callable[[], None],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Serve at ``listener``, over TLS if there is a ``context``.

        ``on_dropped`` is called when a client asked for shutdown.
        """
        self._target = target
        self._context = context
        self._plan = plan
        self._listener = listener
        self._on_dropped = on_dropped
        self._code: int | None = None
        self._bridge: Bridge
        self._session: Session
        self._door: Door

    def start(self) -> None:
        """Open the session and the door; raises as a client's connecting does."""
        self._bridge, self._session, _ = open_session(lambda: self._target, PATIENCE_S)
        self._bridge.call(self._open())

    def stop(self) -> int | None:
        """Close both."""
        if not self._bridge.is_stopped:
            self._bridge.call(self._close(), STOP_S)
            self._bridge.stop()
        return self._code

    async def _open(self) -> None:
        plan = self._plan
        options = ManagersOptions(
            # Nobody else can guess the name of what nobody is to find again.
            keys=((plan.realm or secrets.token_hex(8), plan.authkey),),
            objects=Host(plan.host, plan.token, frozenset(plan.typeids)),
            on_shutdown=self._shut_down,
        )
        self._backing = RemoteBacking(self._session, is_transient=plan.realm is None)
        self._door = make_door(self._backing, options, plan.authkey, context=self._context)
        await self._door.start(self._listener)

    async def _close(self) -> None:
        await self._door.stop()
        if self._code == DROPPED:  # only now: a client that waits is to see a manager that ends
            await self._drop()
        await self._session.close()

    async def _drop(self) -> None:
        """Delete the queues that were used through this manager."""
        taker = self._backing.open_taker()
        loop = asyncio.get_running_loop()
        (realm,) = self._door.realms.values()
        for number, queue in enumerate(realm.queues.values(), 1):
            done: asyncio.Future[Any] = loop.create_future()
            self._backing.call(taker, number, a.DropQueue(queue.number), None, done.set_result)
            await done

    def _shut_down(self, *, keeps: bool) -> None:
        self._code = KEPT if keeps else DROPPED
        # Not here: whoever ends the manager waits for this very loop.
        threading.Thread(target=self._on_dropped, daemon=True).start()
