"""Output on its way to a client that can't take it just now.

A client whose connection is full, or broke a moment ago, is sent later what
it missed: before the outcomes of those who printed it, and with a notice when
it was too much to keep.
"""

from collections import OrderedDict, deque
from typing import NamedTuple

from multihost.wire.message import Stream

HELD_BYTES = 4 << 20
"""Kept for one job at most; of more, the oldest goes."""
AWAY_BYTES = 16 << 20
"""Kept at most for all jobs that nobody watches."""


class Piece(NamedTuple):
    """What a task wrote at once."""

    task_index: int
    stream: int
    data: bytes


class HeldOutput:
    """Output of one job that could not be sent; the latest, in order."""

    def __init__(self) -> None:
        """Begin empty."""
        self.size_bytes = 0
        self._pieces: deque[Piece] = deque()
        self._lost_bytes = 0

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._pieces)

    def add(self, piece: Piece) -> int:
        """Keep a piece; by how many bytes more are held now."""
        before = self.size_bytes
        self._pieces.append(piece)
        self.size_bytes += len(piece.data)
        while self.size_bytes > HELD_BYTES:
            lost = len(self._pieces.popleft().data)
            self.size_bytes -= lost
            self._lost_bytes += lost
        return self.size_bytes - before

    def take(self) -> list[Piece]:
        """All that was held, after a notice if some of it is lost; nothing is held any more."""
        pieces = list(self._pieces)
        if self._lost_bytes:
            text = f"\n[multihost: {self._lost_bytes} bytes of output are not shown]\n"
            # A piece is always left: none is larger than what is held.
            pieces.insert(0, Piece(pieces[0].task_index, Stream.STDERR, text.encode()))
        self._pieces.clear()
        self.size_bytes = self._lost_bytes = 0
        return pieces


class Unheard:
    """Output of jobs that nobody watches: their clients may be about to come back."""

    def __init__(self) -> None:
        """Begin empty."""
        self._by_job: OrderedDict[int, HeldOutput] = OrderedDict()
        self._size_bytes = 0

    def add(self, job: int, piece: Piece) -> None:
        """Keep what was printed; jobs whose first output is oldest are forgotten first."""
        held = self._by_job.setdefault(job, HeldOutput())
        self._size_bytes += held.add(piece)
        while self._size_bytes > AWAY_BYTES:
            _, oldest = self._by_job.popitem(last=False)
            self._size_bytes -= oldest.size_bytes

    def take(self, job: int) -> list[Piece]:
        """What was printed while nobody watched the job."""
        held = self._by_job.pop(job, None)
        if held is None:
            return []
        self._size_bytes -= held.size_bytes
        return held.take()
