"""Outcomes on their way to the server, kept until it has settled them."""

from collections.abc import Callable, Iterable

from multihost.wire import message as m

ATTEMPT_BYTES = 200
"""What an outcome counts beside the payload it carries."""
MESSAGE_BYTES = 1 << 20
"""Outcomes beyond this size go into another message: a frame has a limit."""


class Outbox:
    """Collects outcomes, sends them once a turn, and again after a reconnect.

    Invariant: an outcome is here until the server has said that it is recorded
    or stale, or that its lease is gone.
    """

    def __init__(self, send: Callable[[m.Message], None]) -> None:
        """Send through ``send``, which drops what it can't send now."""
        self.size_bytes = 0
        self._send = send
        self._unsettled: dict[m.Held, m.Attempt] = {}
        self._unsent: list[m.Attempt] = []
        self._unsent_bytes = 0

    def __len__(self) -> int:
        """Outcomes not settled."""
        return len(self._unsettled)

    @property
    def held(self) -> list[m.Held]:
        """Leases whose outcome is not settled."""
        return list(self._unsettled)

    def add(self, attempt: m.Attempt) -> None:
        """Take an outcome; it leaves with the next ``flush``."""
        self._unsettled[m.Held(attempt.task, attempt.token)] = attempt
        self._unsent.append(attempt)
        size = _size(attempt)
        self.size_bytes += size
        self._unsent_bytes += size

    def flush(self) -> None:
        """Send what came since the last time, in one message unless it is large."""
        if not self._unsent:
            return
        attempts, self._unsent = self._unsent, []
        size, self._unsent_bytes = self._unsent_bytes, 0
        if size <= MESSAGE_BYTES and len(attempts) <= m.BATCH_TASKS:
            self._send(m.Finished(attempts))
            return
        batch: list[m.Attempt] = []
        size = 0
        for attempt in attempts:
            size += _size(attempt)
            if batch and (size > MESSAGE_BYTES or len(batch) >= m.BATCH_TASKS):
                self._send(m.Finished(batch))
                batch, size = [], _size(attempt)
            batch.append(attempt)
        self._send(m.Finished(batch))

    def send_again(self) -> None:
        """Send all that is not settled, over a new connection."""
        self._unsent = list(self._unsettled.values())
        self._unsent_bytes = self.size_bytes
        self.flush()

    def settle(self, leases: Iterable[m.Held]) -> None:
        """The server needs to hear no more of these."""
        for held in leases:
            attempt = self._unsettled.pop(held, None)
            if attempt is not None:
                self.size_bytes -= _size(attempt)


def _size(attempt: m.Attempt) -> int:
    size = len(attempt.payload) if isinstance(attempt.payload, bytes) else 0
    return size + ATTEMPT_BYTES
