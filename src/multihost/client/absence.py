"""Says that the server is away, and that it is back: once each, to who sits at the terminal.

A program that waits for results looks the same while they are computed and
while nobody answers. A restart of the server takes a second or two; what is shorter
than ``AWAY_S`` is not worth a line. Logged as warnings, which Python writes to
stderr in a program that has set up no logging.
"""

import asyncio
import time
from collections.abc import Callable

from multihost.runtime.notices import warn

AWAY_S = 3.0
"""How long the server has to be away until that is told."""


class Absence:
    """One client's view of a server that comes and goes. For the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience_s: float | None,
        is_missed: Callable[[], bool],
    ) -> None:
        """Begin with a server that is there.

        ``patience_s`` is how long it is waited for; it ``is_missed`` while there is something
        that it should do.
        """
        self._loop = loop
        self._is_missed = is_missed
        self._patience_s = patience_s
        self._since = ""
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_told = False

    def began(self, url: str, reason: str) -> None:
        """The connection to ``url`` broke."""
        self._since = time.strftime("%H:%M:%S")
        self._began_s = self._loop.time()
        self._timer = self._loop.call_later(AWAY_S, self._tell, url, reason)

    def ended(self, url: str) -> None:
        """The server at ``url`` answers again."""
        self.forget()
        if self._is_told:
            self._is_told = False
            away_s = self._loop.time() - self._began_s
            warn("the server at %s is back after %.0f s", url, away_s)

    def forget(self) -> None:
        """Nobody waits for it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, url: str, reason: str) -> None:
        if not self._is_missed():
            self._timer = self._loop.call_later(AWAY_S, self._tell, url, reason)
            return
        self._is_told = True
        until = "" if self._patience_s is None else f", for {self._patience_s:g} s in all"
        warn(
            "the server at %s has not answered since %s (%s); trying again%s. What it "
            "has acknowledged is kept, and work goes on when it is back",
            *(url, self._since, reason or "the connection was closed", until),
        )
