"""A payload: bytes, or a reference to bytes that are stored once."""

import msgspec


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """Reference to a byte string stored once under its digest (BLAKE3)."""

    digest: bytes
    size_bytes: int


Payload = bytes | Blob
