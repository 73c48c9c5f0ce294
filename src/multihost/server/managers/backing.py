"""What keeps the queues behind a door: this server, or one that is reached over the network."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Protocol

from multihost.core.digest import digest_of
from multihost.core.ids import make_uid, session_of, taker_id
from multihost.runtime import clock
from multihost.server.blobs import ROW_BYTES
from multihost.server.services import CLIENT_GRACE_S, Services
from multihost.store.base import SessionInfo, Store
from multihost.wire.act import AnyAct, AnyResult
from multihost.wire.blob import Blob
from multihost.wire.message import Role

SESSION_NAME = "managers"


class Backing(Protocol):
    """Does the calls of takers and keeps large items. Used on one event loop."""

    async def begin(self) -> None:
        """Be ready for takers."""
        ...

    def open_taker(self) -> int:
        """A number for one more taker."""
        ...

    def call(
        self,
        taker: int,
        number: int,
        act: AnyAct,
        wait_s: float | None,
        reply: Callable[[AnyResult], None],
    ) -> None:
        """Do an act for a taker; ``reply`` is called at most once."""
        ...

    def end_taker(self, taker: int) -> None:
        """A taker is no more: what it holds goes to others."""
        ...

    async def open_writer(self, uid: bytes, name: str, realm: str) -> int | None:
        """The taker that a client's puts are done once by, over all its connections; or None."""
        ...

    def leave_writer(self, writer: int, number: int) -> None:
        """Its connection is gone, in call ``number`` if that is not over; it may come again."""
        ...

    async def store(self, item: bytes) -> Blob:
        """Keep a large item's bytes; raises OSError."""
        ...

    async def load(self, blob: Blob) -> bytes:
        """The bytes of a large item; raises OSError when they are gone."""
        ...


class ServicesBacking:
    """This server.

    All connections are takers of one session of the server's own. It begins anew with
    each start: connections do not outlive the process, so that what those of the last
    run held goes to others at once.
    """

    def __init__(self, services: Services) -> None:
        """Use the server's services."""
        self._services = services
        self._session = 0
        self._leaving: dict[int, asyncio.TimerHandle] = {}
        """When sessions of writers that left are ended."""

    async def begin(self) -> None:
        """Open the session, and end those of earlier runs."""
        info = SessionInfo(
            make_uid(int(clock.wall() * 1000), os.urandom(10)),
            Role.CLIENT,
            name=SESSION_NAME,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

        def open_session(store: Store, now: float) -> tuple[list[int], int]:
            rows = store.sessions(Role.CLIENT)
            before = [row.number for row in rows if row.info.name == SESSION_NAME]
            session = store.open_session(info, now)
            assert session is not None, "its uid is new"
            return before, session

        before, self._session = await self._services.committer.ask(open_session)
        for session in before:
            self._services.end_client(session)

    def open_taker(self) -> int:
        """A number for one more taker."""
        return self._services.calls.open_taker(self._session)

    def call(
        self,
        taker: int,
        number: int,
        act: AnyAct,
        wait_s: float | None,
        reply: Callable[[AnyResult], None],
    ) -> None:
        """Do an act for a taker."""
        self._services.calls.call(taker, number, act, wait_s, reply)

    def end_taker(self, taker: int) -> None:
        """A taker is no more."""
        self._services.calls.end_taker(taker, is_clean=False)

    async def open_writer(self, uid: bytes, name: str, realm: str) -> int | None:
        """The taker of a session of the client's own, which is kept for a while.

        None: the session is one of another realm's, or was opened with a key.
        """
        key = f"{SESSION_NAME}: {realm}"
        info = SessionInfo(uid, Role.CLIENT, name=f"{SESSION_NAME}: {name}", key=key)
        session: int | None = await self._services.committer.ask(
            lambda store, now: store.open_session(info, now)
        )
        if session is None:
            return None
        timer = self._leaving.pop(session, None)
        if timer is not None:
            timer.cancel()
        # Those tables are for sessions with heartbeats; this one lives with its connection.
        self._services.clients.end(session)
        self._services.takers.end(session)
        return taker_id(session, 1)

    def leave_writer(self, writer: int, number: int) -> None:
        """Its connection is gone; it may come again for a while."""
        self._services.calls.withdraw(writer, number)
        session = session_of(writer)
        self._leaving[session] = asyncio.get_running_loop().call_later(
            CLIENT_GRACE_S, self._end_writer, session
        )

    def _end_writer(self, session: int) -> None:
        del self._leaving[session]
        self._services.end_client(session, is_clean=True)

    async def store(self, item: bytes) -> Blob:
        """Keep a large item's bytes."""
        blob = Blob(digest_of(item), len(item))
        data: bytes | None = item
        if len(item) > ROW_BYTES:
            files = self._services.blobs.files
            try:
                await files.put_part(item, blob, 0, item)
            finally:
                files.forget(item)
            data = None
        await self._services.committer.ask(
            lambda store, now: store.put_blob(blob, data, now), is_durable=True
        )
        return blob

    async def load(self, blob: Blob) -> bytes:
        """The bytes of a large item."""
        found = await self._services.blobs.find(blob.digest)
        if found is None:
            raise FileNotFoundError(
                f"the item's {blob.size_bytes} bytes are not in the store any more"
            )
        if found.data is not None:
            return found.data
        return await self._services.blobs.files.read(blob.digest, 0, blob.size_bytes)
