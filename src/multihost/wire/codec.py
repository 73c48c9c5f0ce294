"""Messages to bytes and back.

A frame that breaks the schema, or is too large, is a ``WireError``: the peer
is wrong or hostile, and the connection ends. Sizes are checked before anything
is built; nothing here ever unpickles.
"""

from collections.abc import Sequence

import msgspec

from multihost.wire.message import (
    FRAME_MESSAGES,
    MAX_FRAME_BYTES,
    FromPeer,
    FromServer,
    Message,
)

Buffer = bytes | bytearray | memoryview


class WireError(Exception):
    """A frame is not what the protocol allows; the message says in what way."""


_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD
"""How long arrays begin in msgpack."""

_encoder = msgspec.msgpack.Encoder()
_from_peer = msgspec.msgpack.Decoder(list[FromPeer])
_from_server = msgspec.msgpack.Decoder(list[FromServer])


def encode(messages: Sequence[Message]) -> bytes:
    """Bytes of one frame."""
    return _encoder.encode(messages)


def decode_from_peer(frame: Buffer, limit_bytes: int = MAX_FRAME_BYTES) -> list[FromPeer]:
    """Messages of a frame that a client or worker sent; raises WireError."""
    _check_size(frame, limit_bytes)
    try:
        return _from_peer.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(_explain(frame, error)) from None


def decode_from_server(frame: Buffer, limit_bytes: int = MAX_FRAME_BYTES) -> list[FromServer]:
    """Messages of a frame that a server sent; raises WireError."""
    _check_size(frame, limit_bytes)
    try:
        return _from_server.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(_explain(frame, error)) from None


def _check_size(frame: Buffer, limit_bytes: int) -> None:
    if len(frame) > limit_bytes:
        message = f"frame of {len(frame)} bytes; the limit (max_frame_bytes) is {limit_bytes}"
        raise WireError(message)
    # Longer arrays than of 15 begin with a byte for their kind, then their length.
    if frame and frame[0] in (_ARRAY_16, _ARRAY_32):
        count = int.from_bytes(frame[1 : 3 if frame[0] == _ARRAY_16 else 5])
        if count > FRAME_MESSAGES:
            message = f"frame of {count} messages; the limit (frame_messages) is {FRAME_MESSAGES}"
            raise WireError(message)


def _explain(frame: Buffer, error: Exception) -> str:
    return f"frame of {len(frame)} bytes can't be read: {error}"
