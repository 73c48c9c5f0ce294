"""Messages to bytes and back.

A frame that breaks the schema, or is too large, is a ``WireError``: the peer
is wrong or hostile, and the connection ends. Sizes are checked before anything
is built; nothing here ever unpickles.
"""

from collections.abc import Sequence
from typing import TypeGuard

import msgspec

from multihost.wire.message import (
    FRAME_MESSAGES,
    MAX_FRAME_BYTES,
    BlobPart,
    FromPeer,
    FromServer,
    Message,
    PutBlob,
)

Buffer = bytes | bytearray | memoryview


class WireError(Exception):
    """A frame is not what the protocol allows; the message says in what way."""


UNCOPIED_BYTES = 64 << 10
"""Of a blob: so many more are not copied into a frame."""
_NO_DATA, _LONG_DATA = b"\xc4\x00", b"\xc6"
"""No bytes in msgpack, and how many begin, of which there are 4 bytes of length."""
_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD
"""How long arrays begin in msgpack."""
_LONG_ARRAYS = (_ARRAY_16, _ARRAY_32)

_encoder = msgspec.msgpack.Encoder()
_from_peer = msgspec.msgpack.Decoder(list[FromPeer])
_from_server = msgspec.msgpack.Decoder(list[FromServer])


def encode(messages: Sequence[Message]) -> bytes:
    """Bytes of one frame."""
    return _encoder.encode(messages)


def encode_parts(messages: Sequence[Message]) -> list[bytes]:
    """Bytes of one frame, of which what a last message carries of a blob is not copied."""
    last = messages[-1]
    if not is_bulky(last):
        return [encode(messages)]
    head = encode([*messages[:-1], msgspec.structs.replace(last, data=b"")])
    size = len(last.data).to_bytes(4)
    return [head.removesuffix(_NO_DATA) + _LONG_DATA + size, last.data]


def is_bulky(message: Message) -> TypeGuard[PutBlob | BlobPart]:
    """Whether copying the message takes longer than sending it by itself."""
    return isinstance(message, PutBlob | BlobPart) and len(message.data) > UNCOPIED_BYTES


def decode_from_peer(frame: Buffer) -> list[FromPeer]:
    """Messages of a frame that a client or worker sent; raises WireError."""
    if len(frame) > MAX_FRAME_BYTES or (frame and frame[0] in _LONG_ARRAYS):
        _check_size(frame)
    try:
        return _from_peer.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(_explain(frame, error)) from None


def decode_from_server(frame: Buffer) -> list[FromServer]:
    """Messages of a frame that a server sent; raises WireError."""
    if len(frame) > MAX_FRAME_BYTES or (frame and frame[0] in _LONG_ARRAYS):
        _check_size(frame)
    try:
        return _from_server.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(_explain(frame, error)) from None


def _check_size(frame: Buffer) -> None:
    if len(frame) > MAX_FRAME_BYTES:
        message = f"frame of {len(frame)} bytes; the limit (max_frame_bytes) is {MAX_FRAME_BYTES}"
        raise WireError(message)
    # Longer arrays than of 15 begin with a byte for their kind, then their length.
    if frame and frame[0] in _LONG_ARRAYS:
        count = int.from_bytes(frame[1 : 3 if frame[0] == _ARRAY_16 else 5])
        if count > FRAME_MESSAGES:
            message = f"frame of {count} messages; the limit (frame_messages) is {FRAME_MESSAGES}"
            raise WireError(message)


def _explain(frame: Buffer, error: Exception) -> str:
    return f"frame of {len(frame)} bytes can't be read: {error}"
