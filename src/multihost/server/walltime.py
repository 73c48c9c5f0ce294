"""What time it is, for tasks that wait for one: the wall clock, which people set.

Leases and timers go by a clock that nobody sets. But times that outlast the
server have to be the wall's, and when that is set back by an hour, what was to
begin in a minute would begin in an hour and a minute. So each transaction
compares how far both clocks have come, and the first one after such a step
moves all that waits. A step forward moves nothing: the machine may as well have stood
still for so long, as virtual ones do, and what was due then is due.
"""

import logging

from multihost.runtime import clock
from multihost.store.base import Store

STEP_S = 5.0
"""What the wall clock lost is corrected from here on; less is what keeping it right takes."""

_log = logging.getLogger("multihost")


class WallTime:
    """The wall clock, as the transactions of one store see it.

    Invariant: the times of all that waits in the store are those of the clock as it was
    ``read`` last, if the transaction under way is written.
    """

    def __init__(self) -> None:
        """Take the clock as it is: what it did before nobody knows."""
        self._ahead_s = self._kept_s = clock.wall() - clock.mono()

    def read(self, store: Store) -> float:
        """The time, within a transaction; what waits is moved when the clock was set back."""
        now = clock.wall()
        ahead_s = now - clock.mono()
        by_s, self._ahead_s = self._ahead_s - ahead_s, ahead_s
        if by_s > STEP_S:
            store.turn_back(by_s)
            _log.warning(
                "multihost: this machine's clock was set back by %.0f s; what waits for a time "
                "waits no longer for that",
                by_s,
            )
        return now

    def keep(self) -> None:
        """The transaction is written."""
        self._kept_s = self._ahead_s

    def undo(self) -> None:
        """The transaction did not happen."""
        self._ahead_s = self._kept_s
