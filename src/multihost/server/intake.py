"""What an open session sends, on its way to whoever serves it: a little at a time.

One frame may hold thousands of messages, and one peer may send faster than the
disk keeps up with. Neither may hold the event loop, which everybody shares, nor
fill memory: a long frame is served in slices, between which others have their
turn, and a peer is not read while too much of what it sent waits for the store.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from multihost.core.lease import HEARTBEAT_S
from multihost.runtime.link import Link
from multihost.server.committer import Committer
from multihost.server.operation import Operation
from multihost.store.base import Store
from multihost.wire import message as m

SLICE = 256
"""Messages of one peer that are served before others have their turn."""
UNSERVED_BYTES = 16 << 20
"""Of large frames of one peer that wait for the store; then it is not read."""
LARGE_BYTES = 64 << 10
"""Frames below this size are counted only by the operations in them."""


class SessionPeer(Protocol):
    """What a connection becomes once its session is open."""

    def received(self, messages: Sequence[Any]) -> None:
        """Messages of the open session; also none, as a sign of life."""
        ...

    def writable(self) -> None:
        """Back-pressure is over."""
        ...

    def closed(self, reason: str) -> None:
        """The connection is gone."""
        ...


class Intake:
    """The way of one connection's messages to its peer.

    Invariant: the peer gets every message once, in the order sent, and is told that the
    connection is closed after the last.
    """

    def __init__(self, link: Link, peer: SessionPeer, committer: Committer) -> None:
        """Pass on what comes by ``link`` to ``peer``, whose operations ``committer`` does."""
        self.peer = peer
        self._link = link
        self._committer = committer
        self._waiting: deque[Any] = deque()
        self._frame_bytes = 0
        """Of the frames that are served in slices."""
        self._unserved_bytes = 0
        self._marks = 0
        self._keeping: asyncio.TimerHandle | None = None
        self._closed_because: str | None = None

    def received(self, messages: Sequence[Any]) -> None:
        """Messages of one frame."""
        if self._waiting or len(messages) > SLICE:
            self._queue(messages)
            return
        self.peer.received(messages)
        if self._link.frame_bytes > LARGE_BYTES or self._committer.is_behind:
            self._mark(self._link.frame_bytes)

    def closed(self, reason: str) -> None:
        """The connection is gone; what has come is still served."""
        self._closed_because = reason
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        if not self._waiting:
            self.peer.closed(reason)

    # slices ------------------------------------------------------------------------

    def _queue(self, messages: Sequence[Any]) -> None:
        if not self._waiting:
            self._link.pause_reading("turn")
            asyncio.get_running_loop().call_soon(self._serve_slice)
        self._waiting.extend(messages)
        self._frame_bytes += self._link.frame_bytes

    def _serve_slice(self) -> None:
        waiting = self._waiting
        self.peer.received([waiting.popleft() for _ in range(min(SLICE, len(waiting)))])
        if waiting:
            asyncio.get_running_loop().call_soon(self._serve_slice)
            return
        size_bytes, self._frame_bytes = self._frame_bytes, 0
        if self._closed_because is not None:
            self.peer.closed(self._closed_because)
            return
        if size_bytes > LARGE_BYTES or self._committer.is_behind:
            self._mark(size_bytes)
        self._link.resume_reading("turn")

    # what waits for the store ----------------------------------------------------------

    def _mark(self, size_bytes: int) -> None:
        """Follow a frame through the store; read no more while too much is on that way."""
        self._unserved_bytes += size_bytes
        self._marks += 1
        if self._unserved_bytes > UNSERVED_BYTES or self._committer.is_behind:
            self._link.pause_reading("unserved")
            if self._keeping is None:
                loop = asyncio.get_running_loop()
                self._keeping = loop.call_later(HEARTBEAT_S, self._keep)
        self._committer.submit(
            Operation(
                _nothing,
                partial(self._served, size_bytes),
                is_durable=False,
                may_linger=True,
                is_told=True,
            )
        )

    def _served(self, size_bytes: int, _: object) -> None:
        self._unserved_bytes -= size_bytes
        self._marks -= 1
        if self._unserved_bytes <= UNSERVED_BYTES and (
            not self._committer.is_behind or not self._marks
        ):
            if self._keeping is not None:
                self._keeping.cancel()
                self._keeping = None
            self._link.resume_reading("unserved")

    def _keep(self) -> None:
        """Who is not read can't show that it lives, nor can it see that the server does."""
        self.peer.received(())
        self._link.send(m.BeatBack())
        self._keeping = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._keep)


def _nothing(_: Store, __: float) -> None:
    """Only the place in the line counts."""
