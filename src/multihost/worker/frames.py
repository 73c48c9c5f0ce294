"""Frames on the pipes between an agent and its child processes.

A frame is a fixed header and a payload: nothing to unpickle, so that a
child that users' code has broken can at worst send nonsense. Imported by the
child before it is ready, so it imports next to nothing.
"""

import os
import struct
from collections.abc import Iterator

HEADER = struct.Struct("<IBQQ")
"""Payload size in bytes, kind, and two numbers, most often task and token."""

# agent to child
CONTEXT = 2
"""The name of the pool that the child serves, NUL, the pickled initializer call."""
TASK = 3
"""Style, digest and perhaps pickle of the function, and the payload."""

# agent to child, on the control pipe
GIVE_BACK = 10
"""Return what has not begun."""
CANCEL = 11
"""End this task, if it is running."""

# child to agent
DONE = 20
"""Ending, run time, and result or failure."""
OUTPUT = 21
"""Stream, and what was written to it."""
RETURNED = 22
"""Numbers of tasks that will not be begun."""
READY = 23
"""The process has started, or its initializer has ended: now tasks begin."""

DIGEST_BYTES = 32
NO_FUNCTION = bytes(DIGEST_BYTES)
"""In place of a digest: a command has no function."""
FUNCTIONS = 256
"""Functions that a child keeps; both ends forget the least recently used one."""
TASK_HEAD = struct.Struct("<B32sI")
"""Style, digest, size of the function's pickle (0: the child has it)."""
DONE_HEAD = struct.Struct("<Bd")
STYLES = ("call", "map", "starmap", "command")


def pack(kind: int, first: int, second: int, payload: bytes = b"") -> bytes:
    """Bytes of a frame."""
    return HEADER.pack(len(payload), kind, first, second) + payload


def pack_task(
    lease: tuple[int, int], style: str, digest: bytes, function: bytes, payload: bytes
) -> bytes:
    """Bytes of a TASK frame; ``lease`` is task and token."""
    head = TASK_HEAD.pack(STYLES.index(style), digest, len(function))
    size = len(head) + len(function) + len(payload)
    return b"".join((HEADER.pack(size, TASK, *lease), head, function, payload))


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a blocking pipe until everything is out."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class FrameBuffer:
    """Collects bytes and yields whole frames."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        """Begin empty."""
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Take bytes; yield (kind, first, second, payload) of each complete frame."""
        buffer = self._data
        buffer += data
        at, size = 0, len(buffer)
        head = HEADER.size
        while size - at >= head:
            length, kind, first, second = HEADER.unpack_from(buffer, at)
            end = at + head + length
            if end > size:
                break
            yield kind, first, second, bytes(buffer[at + head : end])
            at = end
        if at:
            del buffer[:at]
