"""Messages to bytes and back.

A frame that breaks the schema, or is too large, is a ``WireError``: the peer
is wrong or hostile, and the connection ends. Sizes are checked before anything
is built; nothing here ever unpickles.
"""

from collections.abc import Sequence

import msgspec

from multihost.wire.message import MAX_FRAME_BYTES, FromPeer, FromServer, Message

Buffer = bytes | bytearray | memoryview


class WireError(Exception):
    """A frame is not what the protocol allows; the message says in what way."""


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


def _explain(frame: Buffer, error: Exception) -> str:
    return f"frame of {len(frame)} bytes can't be read: {error}"
