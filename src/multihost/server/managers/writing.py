"""Small pickles, written by hand: what the server answers.

Opcodes of protocol 2, which every client reads. Names of exceptions are the
only names in them, and the client is the one to look those up.
"""

import struct
from typing import Any

_RETURN = b"X\x07\x00\x00\x00#RETURN"
_INT32 = struct.Struct("<i")
_UINT32 = struct.Struct("<I")
_PROTOCOL_5 = b"\x80\x05"
_PROTOCOL_4 = b"\x80\x04"


def write(value: Any) -> bytes:
    """Opcodes that push a value of None, bools, ints, floats, strings and tuples."""
    if value is None:
        return b"N"
    if value is True:
        return b"\x88"
    if value is False:
        return b"\x89"
    if isinstance(value, int):
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + _INT32.pack(value)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return b"X" + _UINT32.pack(len(raw)) + raw
    if isinstance(value, tuple):
        return b"(" + b"".join(map(write, value)) + b"t"
    raise TypeError(f"{type(value)} is not among what is answered")


def returned(value: Any) -> bytes:
    """The answer ``('#RETURN', value)``."""
    return b"\x80\x02" + _RETURN + write(value) + b"\x86."


def returned_item(item: bytes) -> bytes:
    """The answer ``('#RETURN', item)`` of an item that is a pickle itself.

    Protocol 5 is announced as 4 to old clients: what was put seldom uses what only 5 has.
    """
    if item[:2] == _PROTOCOL_5:
        return b"".join((_PROTOCOL_4, b"(", _RETURN, memoryview(item)[2:-1], b"t."))
    return b"".join((b"(", _RETURN, memoryview(item)[:-1], b"t."))


def returned_pair(number: int, item: bytes) -> bytes:
    """The answer ``('#RETURN', (number, item))`` of an item that is a pickle itself."""
    body = memoryview(item)[2:-1] if item[:2] == _PROTOCOL_5 else memoryview(item)[:-1]
    return b"".join((_PROTOCOL_4, b"(", _RETURN, b"(", write(number), body, b"tt."))


def failed(text: str) -> bytes:
    """The answer ``('#TRACEBACK', text)``, which the client raises as RemoteError."""
    return b"\x80\x02" + write("#TRACEBACK") + write(text + "\n") + b"\x86."


def raised(module: str, name: str, *args: Any) -> bytes:
    """The answer ``('#ERROR', exception)``, which the client raises."""
    call = b"c" + module.encode() + b"\n" + name.encode() + b"\n" + write(args) + b"R"
    return b"\x80\x02" + write("#ERROR") + call + b"\x86."


RETURN_NONE = returned(None)
EMPTY = raised("queue", "Empty")
FULL = raised("queue", "Full")
