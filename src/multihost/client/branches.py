"""Branches: connections of their own for threads that make many blocking calls.

On the session's connection an answer is read by the event loop's thread, which
wakes the one that waits for it; on a branch that one reads it itself. A branch is
never the only way: a call that it does not answer soon, for whatever reason,
goes on under its number over the session's connection, and is done once.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from multihost.errors import MultihostError
from multihost.runtime import clock
from multihost.wire import message as m
from multihost.wire.act import AnyResult

if TYPE_CHECKING:
    from multihost.client.session import Session
    from multihost.client.thread_taker import ThreadTaker
    from multihost.runtime.blocking import BlockingLink

EVERY_CALLS = 16
"""After so many calls it is looked at how fast a thread makes them."""
BUSY_S = 1.0
"""A thread that has made them within this time gets a branch."""
PATIENCE_S = 1.0
"""A call that waits for longer does so on the session's connection, which has a heartbeat."""
IDLE_S = 10.0
"""A branch that was not used for so long is closed."""
MAX_BRANCHES = 64
"""Of one client."""
REFUSED_S = 30.0
"""After a branch could not be opened none is tried for so long."""
FRAME_BYTES = 64 << 10
"""What is larger goes over the session's connection."""


class Branch:
    """A connection of one thread, which makes one call at a time on it."""

    __slots__ = ("link", "used_at")

    def __init__(self, link: "BlockingLink") -> None:
        """Make calls on ``link``."""
        self.link = link
        self.used_at = 0.0
        """When the last call was made on it."""

    def ask(self, frame: bytes, number: int) -> AnyResult | None:
        """Send the call ``number`` and wait for its answer; None: the branch is of no use."""
        link = self.link
        try:
            link.send(frame)
            while True:
                for message in link.receive():
                    if type(message) is m.Answer:
                        if message.number == number:
                            return message.result
                    elif type(message) is not m.BeatBack:
                        return None
        except OSError:
            return None


class Branches:
    """Which threads of a session have a branch.

    Invariant: a taker's branch belongs to the connection on which its session is open; all are
    cut when that is lost.
    """

    def __init__(self, session: "Session") -> None:
        """Open branches of ``session`` when they are worth it."""
        self._session = session
        self._guard = threading.Lock()
        self._ticket = b""
        self._takers: set[ThreadTaker] = set()
        """Those that have a branch, or get one."""
        self._not_before = 0.0
        self._is_watching = False

    # any thread --------------------------------------------------------------------

    def consider(self, taker: "ThreadTaker", at: float) -> None:
        """Open a branch for a taker if it makes so many calls; from its thread, every so often.

        ``at``: when it made its last call.
        """
        since, taker.looked_at = taker.looked_at, at
        if at - since > BUSY_S or at < self._not_before:
            return
        with self._guard:
            ticket = self._ticket
            if not ticket or taker in self._takers or len(self._takers) >= MAX_BRANCHES:
                return
            self._takers.add(taker)
        # In a thread of its own: no call waits for it, nor does the event loop.
        opener = threading.Thread(
            target=self._open, args=(taker, ticket), name="multihost-branch", daemon=True
        )
        try:
            opener.start()
        except RuntimeError:  # the interpreter is ending and starts no threads any more
            self.forget(taker)

    def forget(self, taker: "ThreadTaker") -> None:
        """A taker has no branch any more."""
        with self._guard:
            self._takers.discard(taker)

    # the loop's thread ---------------------------------------------------------------

    def connected(self, ticket: bytes) -> None:
        """The session's connection stands; branches are made with this ticket."""
        self.cut()
        self._ticket = ticket

    def cut(self) -> None:
        """The session's connection is lost: so is every branch. Whoever waits there goes on."""
        with self._guard:
            self._ticket = b""
            takers = list(self._takers)
        for taker in takers:
            taker.cut_branch()

    # within ------------------------------------------------------------------------------

    def _open(self, taker: "ThreadTaker", ticket: bytes) -> None:
        from multihost.runtime.blocking import open_blocking

        session = self._session
        peer = session.peer
        try:
            opening = m.Branch(session.uid, ticket)
            nearby = peer.nearby if peer.is_nearby else None
            link = open_blocking(peer.url, peer.key, peer.trust, opening, nearby)
        except (OSError, MultihostError):
            self._not_before = clock.mono() + REFUSED_S
            self.forget(taker)
            return
        link.give_time(PATIENCE_S)
        if link.is_waking_slow is not None:
            link.look_if_worth_it()
        branch = Branch(link)
        branch.used_at = clock.mono()
        with self._guard:
            # Under the guard, so that a loss of the connection comes before it or finds it.
            is_of_use = self._ticket == ticket and taker.adopt(branch)
        if not is_of_use:
            link.close()
            self.forget(taker)
            return
        self._watch()
        if link.is_waking_slow is None:  # it takes a while to find out
            link.look_if_worth_it()

    def _watch(self) -> None:
        """Look for idle branches while there are any."""
        with self._guard:
            if self._is_watching:
                return
            self._is_watching = True
        self._post(self._arm)

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._session.post(call)
        except MultihostError:  # closed, and with it every branch
            self._is_watching = False

    def _arm(self) -> None:
        self._session.loop.call_later(IDLE_S / 2, self._close_idle)

    def _close_idle(self) -> None:
        with self._guard:
            takers = list(self._takers)
            self._is_watching = bool(takers)
        oldest = clock.mono() - IDLE_S
        for taker in takers:
            taker.cut_branch(unused_since=oldest)
        if takers:
            self._arm()
