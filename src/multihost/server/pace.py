"""How much to delete at once: as many rows as keep nobody waiting, which depends on their size."""

from multihost.runtime import clock

MOST_ROWS = 500
LEAST_ROWS = 10
STALL_S = 0.005
"""So long the event loop may be busy with one deletion."""


class Pace:
    """Rows for the next deletion, by how long the last ones took."""

    def __init__(self) -> None:
        """Begin with the most."""
        self.rows = MOST_ROWS
        self._began = 0.0

    def begin(self) -> int:
        """A deletion begins: of how many rows."""
        self._began = clock.mono()
        return self.rows

    def end(self) -> None:
        """It has come to its end."""
        took_s = clock.mono() - self._began
        if took_s > STALL_S:
            self.rows = max(LEAST_ROWS, self.rows // 2)
        elif took_s < STALL_S / 4:
            self.rows = min(MOST_ROWS, self.rows * 2)
