"""Who has shown wrong keys lately, and how long the next attempt from there has to wait.

One record for all ports and protocols of a server: who is slowed at one is
slowed at each. Only attempts to come in wait; who is in notices nothing.
"""

from collections import OrderedDict

FREE_FAILURES = 5
"""Wrong keys from one address before its next attempts are slowed."""
FORGIVE_S = 60.0
"""Time after which an address's failures are forgotten."""
MAX_SLOW_S = 1.0
"""Shorter than a worker's grace: one behind the same address still comes back in time."""
REMEMBERED_ADDRESSES = 10_000


class FailureLog:
    """Wrong keys by address, and how long the next attempt from there has to wait."""

    def __init__(self) -> None:
        """Begin with a clean record."""
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note(self, address: str, now: float) -> None:
        """Count a failure."""
        count, at = self._failures.pop(address, (0, now))
        self._failures[address] = (1 if now - at > FORGIVE_S else count + 1, now)
        if len(self._failures) > REMEMBERED_ADDRESSES:
            self._failures.popitem(last=False)

    def slow_s(self, address: str, now: float) -> float:
        """Seconds by which to delay the next handshake from an address."""
        count, at = self._failures.get(address, (0, now))
        if count < FREE_FAILURES or now - at > FORGIVE_S:
            return 0.0
        return min(MAX_SLOW_S, 0.1 * 2.0 ** min(count - FREE_FAILURES, 16))
