"""Messages of ``multiprocessing.connection`` out of bytes, and into them.

A message is its length, four bytes big-endian, and its bytes; above 2 GiB the
four bytes are -1 and eight more have the length. No I/O here.
"""

import struct

LONG_BYTES = 0x7FFFFFFF
HANDSHAKE_BYTES = 256
"""Largest message of somebody who has not shown the key; the standard library's own limit."""
MAX_MESSAGE_BYTES = 1 << 30
"""Largest message at all; the server holds it in memory while it goes by."""

_HEAD = struct.Struct("!i")
_LONG = struct.Struct("!Q")


class FramingError(Exception):
    """The peer announced a message that is too long, or nonsense."""


class Framer:
    """Cuts a stream into messages; ``limit_bytes`` is checked before anything is kept."""

    def __init__(self, limit_bytes: int = HANDSHAKE_BYTES) -> None:
        """Begin at the start of a message."""
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._missing = _HEAD.size

    @property
    def is_within(self) -> bool:
        """Whether part of a message has come and the rest has not."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Messages that are complete with ``data``; raises FramingError."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._missing:
            return []
        messages = []
        position = 0
        while True:
            start, size_bytes = self._head(position)
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
        if not 0 <= size_bytes <= self.limit_bytes:
            raise FramingError(
                f"a message of {size_bytes} bytes was announced, {self.limit_bytes} are allowed"
            )
        return start, size_bytes


def frame(message: bytes) -> bytes:
    """A message with its length before it."""
    if len(message) > LONG_BYTES:
        return _HEAD.pack(-1) + _LONG.pack(len(message)) + message
    return _HEAD.pack(len(message)) + message
