"""The one kind of WebSocket frame that carries messages, read and written without ado.

An unfragmented binary frame is a header of a few bytes and the payload. Nearly
all traffic is that, and the library's general parser costs several times what
the message in it does. Whatever else comes (control frames, fragments, frames
too large, a broken header) is left to the library, byte for byte.
"""

import random
import struct

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where that is built

Buffer = bytes | bytearray | memoryview

_BINARY = 0x82
"""FIN and opcode 2, no extension bits."""
_MASKED = 0x80
_SHORT, _MEDIUM = 126, 127
"""Length codes: 16 and 64 bits of length follow."""
_MASK_BYTES = 4
_HEAD_2 = struct.Struct("!BB")
_HEAD_4 = struct.Struct("!BBH")
_HEAD_10 = struct.Struct("!BBQ")
_LENGTH_16 = struct.Struct("!H")
_LENGTH_64 = struct.Struct("!Q")

NO_MASK = bytes(_MASK_BYTES)
"""Changes nothing: for where no network is between, and so no proxy to be misled."""
# Masks keep proxies from taking payloads for HTTP; they hide nothing.
_masks = random.Random()  # noqa: S311


class PlainReader:
    """Takes plain frames off the front of a byte stream.

    Invariant: between calls it holds at most one frame, of which all but the
    end has come.
    """

    __slots__ = ("_is_masked", "_missing", "_parts", "limit_bytes")

    def __init__(self, *, is_masked: bool, limit_bytes: int) -> None:
        """Expect frames as clients send them (masked) or servers, of at most ``limit_bytes``."""
        self._is_masked = is_masked
        self.limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> tuple[list[Buffer], Buffer]:
        """Payloads of the frames that are whole now, and the bytes that are not for us."""
        if self._missing:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return [], b""
            data = b"".join(self._parts)
            self._parts.clear()
            self._missing = 0
        payloads: list[Buffer] = []
        at, size = 0, len(data)
        while at < size:
            head = self._head(data, at, size)
            if head is None:
                return payloads, data[at:] if at else data
            start, end = head
            if end > size:
                self._parts.append(data[at:] if at else data)
                self._missing = end - size
                break
            if self._is_masked:
                mask = data[start - _MASK_BYTES : start]
                payload = memoryview(data)[start:end]
                payloads.append(payload if mask == NO_MASK else apply_mask(payload, mask))
            else:
                payloads.append(memoryview(data)[start:end])
            at = end
        return payloads, b""

    def _head(self, data: bytes, at: int, size: int) -> tuple[int, int] | None:
        """Where the payload of a plain frame starts and ends; None if it is not one."""
        if size - at < _HEAD_2.size or data[at] != _BINARY:
            return None
        length = data[at + 1]
        if self._is_masked:
            length -= _MASKED
            if length < 0:
                return None
        start = at + _HEAD_2.size
        if length >= _SHORT:
            kind = _LENGTH_16 if length == _SHORT else _LENGTH_64
            if length > _MEDIUM or size - start < kind.size:
                return None
            (length,) = kind.unpack_from(data, start)
            start += kind.size
        if length > self.limit_bytes:
            return None
        if self._is_masked:
            start += _MASK_BYTES
            if size < start:
                return None
        return start, start + length


def _head_of(size: int, bit: int) -> bytes:
    """How a frame with a payload of ``size`` bytes begins; ``bit`` says that a mask follows."""
    if size < _SHORT:
        return _HEAD_2.pack(_BINARY, bit | size)
    if size < 1 << 16:
        return _HEAD_4.pack(_BINARY, bit | _SHORT, size)
    return _HEAD_10.pack(_BINARY, bit | _MEDIUM, size)


def whole_frame(payload: bytes, is_masked: bool, is_nearby: bool) -> bytes:  # noqa: FBT001 - hot
    """The frame with this payload, as ``plain_frame`` makes it, in one piece."""
    size = len(payload)
    if is_masked and not is_nearby:
        return b"".join(plain_frame(payload, is_masked=is_masked, is_nearby=is_nearby))
    head = _head_of(size, _MASKED if is_masked else 0)
    return head + NO_MASK + payload if is_masked else head + payload


def plain_frame(*payload: bytes, is_masked: bool, is_nearby: bool = False) -> list[bytes]:
    """Parts of the frame with this payload, to be sent in order; it may be in parts itself.

    ``is_nearby``: it crosses no network, so that a mask, where there has to be one, is ``NO_MASK``.
    """
    size = sum(map(len, payload))
    head = _head_of(size, _MASKED if is_masked else 0)
    if is_masked and is_nearby:
        return [head + NO_MASK, *payload]
    if is_masked:
        mask = _masks.randbytes(_MASK_BYTES)
        return [head + mask, apply_mask(b"".join(payload), mask)]
    return [head, *payload]
