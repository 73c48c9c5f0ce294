"""Messages of ``multiprocessing.connection`` out of bytes, and into them.

A message is its length, four bytes big-endian, and its bytes; above 2 GiB the
four bytes are -1 and eight more have the length. No I/O here.
"""

import struct
from typing import NamedTuple

LONG_BYTES = 0x7FFFFFFF
HANDSHAKE_BYTES = 256
"""Largest message of somebody who has not shown the key; the standard library's own limit."""
MAX_MESSAGE_BYTES = 256 << 20
"""Largest request, unless the server was told another; it is in memory while it goes by."""
HOST_MESSAGE_BYTES = 1 << 30
"""Largest message of a manager's own host process."""

_HEAD = struct.Struct("!i")
_LONG = struct.Struct("!Q")


class FramingError(Exception):
    """The peer announced a message that is too long, or nonsense."""


class TooLong(NamedTuple):
    """In place of a message that was too long, and was passed over."""

    size_bytes: int
    limit_bytes: int


class Framer:
    """Cuts a stream into messages; ``limit_bytes`` is checked before anything is kept."""

    def __init__(self, limit_bytes: int = HANDSHAKE_BYTES) -> None:
        """Begin at the start of a message."""
        self.limit_bytes = limit_bytes
        self.passes_over = False
        """Whether what is too long is read without being kept, instead of being an error."""
        self._buffer = bytearray()
        self._missing = _HEAD.size
        self._too_long: TooLong | None = None
        self._over_bytes = 0
        """What is still to come of it."""

    @property
    def is_within(self) -> bool:
        """Whether part of a message has come and the rest has not."""
        return bool(self._buffer) or self._too_long is not None

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Messages that are complete with ``data``; raises FramingError."""
        messages: list[bytes | TooLong] = []
        while True:
            if self._too_long is None:
                messages += self._cut(data)
                if self._too_long is None:
                    return messages
                data = bytes(self._buffer)
                self._buffer.clear()
            over = min(self._over_bytes, len(data))
            self._over_bytes -= over
            if self._over_bytes:
                return messages
            messages.append(self._too_long)
            self._too_long = None
            data = data[over:]

    def _cut(self, data: bytes) -> list[bytes | TooLong]:
        """Messages that are complete with ``data``, up to one that is to be passed over."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._missing:
            return []
        messages: list[bytes | TooLong] = []
        position = 0
        while True:
            start, size_bytes = self._head(position)
            if size_bytes > self.limit_bytes:
                self._too_long, self._over_bytes = TooLong(size_bytes, self.limit_bytes), size_bytes
                self._missing, position = _HEAD.size, start
                break
            if start < 0 or len(buffer) < start + size_bytes:
                needed = _HEAD.size if start < 0 else start - position + size_bytes
                self._missing = max(needed, len(buffer) - position + 1)
                break
            messages.append(bytes(memoryview(buffer)[start : start + size_bytes]))
            position = start + size_bytes
        if position:
            del buffer[:position]
        return messages

    def _head(self, position: int) -> tuple[int, int]:
        """Where the next message's bytes begin (-1: its length has not come) and how many."""
        buffer = self._buffer
        start = position + _HEAD.size
        if len(buffer) < start:
            return -1, 0
        (size_bytes,) = _HEAD.unpack_from(buffer, position)
        if size_bytes == -1:
            if len(buffer) < start + _LONG.size:
                return -1, 0
            (size_bytes,) = _LONG.unpack_from(buffer, start)
            start += _LONG.size
        if size_bytes < 0 or (size_bytes > self.limit_bytes and not self.passes_over):
            raise FramingError(
                f"a message of {size_bytes} bytes was announced, {self.limit_bytes} are allowed"
            )
        return start, size_bytes


def frame(message: bytes) -> bytes:
    """A message with its length before it."""
    if len(message) > LONG_BYTES:
        return _HEAD.pack(-1) + _LONG.pack(len(message)) + message
    return _HEAD.pack(len(message)) + message
