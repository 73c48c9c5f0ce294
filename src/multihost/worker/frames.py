"""Frames on the pipes between an agent and its child processes.

A frame is a fixed header and a payload: nothing to unpickle, so that a
child that users' code has broken can at worst send nonsense. Imported by the
child before it is ready, so it imports next to nothing.
"""

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEADER = struct.Struct("<IBBQQd")
"""Payload size in bytes, kind, detail, two numbers (most often task and token), seconds."""

# agent to child
CONTEXT = 2
"""The name of the pool that the child serves, NUL, the pickled initializer call.

Detail 1: the path of the file that has the call.
"""
TASK = 3
"""Detail: the style. Digest and perhaps pickle of the function, and the payload.

In the place of the seconds: the job's priority.
"""
PATHS = 4
"""Directories that come first in ``sys.path``, NUL between them: code that jobs have shipped."""
SEALED = 5
"""Of the job whose tasks follow: its mark, and what that covers; see ``wire.seal``."""
TASK_IN_FILES = 6
"""As TASK; of function and payload, those that ``detail`` says are paths of files."""

# agent to child, on the control pipe
GIVE_BACK = 10
"""Return what has not begun."""
CANCEL = 11
"""End this task, if it is running."""

PARENT_GONE = 12
"""Whoever started this process is gone."""

READ = 13
"""What PRINTED told of has been read."""

# child to agent
DONE = 20
"""Detail: the ending. Seconds: the run time. Result or failure."""
OUTPUT = 21
"""Detail: the stream. What was written to it."""
RETURNED = 22
"""Numbers of tasks that will not be begun."""
READY = 23
"""The process has started, or its initializer has ended: now tasks begin."""
DONE_IN_FILE = 24
"""As DONE; the result is in a file of the spool: its digest, size and name."""
WAITS = 25
"""Detail 1: the task waits for results of others. Detail 0: it goes on."""

PRINTED = 26
"""So many bytes of the task are in the pipes of stdout and stderr: the child waits for READ.

Whatever comes after them is of tasks that begin later.
"""

DIGEST_BYTES = 32
NO_FUNCTION = bytes(DIGEST_BYTES)
"""In place of a digest: a command has no function."""
FUNCTIONS = 256
"""Functions that a child keeps; both ends forget the least recently used one."""
TASK_HEAD = struct.Struct("<32sI")
"""Digest, and size of the function's pickle (0: the child has it)."""
_TASK = struct.Struct("<IBBQQd32sI")
"""Both in one go."""
STYLES = ("call", "map", "starmap", "command", "process")
STYLE_NUMBERS = {style: number for number, style in enumerate(STYLES)}

FUNCTION_IN_FILE, PAYLOAD_IN_FILE = 0x40, 0x80
"""In the detail of TASK_IN_FILES, beside the style."""
STYLE_BITS = 0x3F
SPOOL_BYTES = 4 << 20
"""A larger argument or result passes between agent and child in a file."""
IN_FILE = struct.Struct("<32sQ")
"""Digest and size of a result in a file."""

JOIN_BYTES = 1 << 12
"""Of so little a copy costs less than a write of two buffers."""

FOR_PROCESSES = "for-processes"
"""Argument of a child that may well become a process."""

Bytes = bytes | memoryview
Frame = tuple[int, int, int, int, float, bytes]
"""Kind, detail, first and second number, seconds, payload."""


def pack(
    kind: int, first: int = 0, second: int = 0, payload: bytes = b"", detail: int = 0
) -> bytes:
    """Bytes of a small frame."""
    return HEADER.pack(len(payload), kind, detail, first, second, 0.0) + payload


def task_parts(
    lease: tuple[int, int],
    style: str,
    digest: bytes,
    function: bytes,
    payload: bytes,
    *,
    priority: int = 0,
) -> list[Bytes]:
    """Parts of a TASK frame, so that a large payload is not copied; ``lease``: task, token."""
    size = TASK_HEAD.size + len(function) + len(payload)
    head = _TASK.pack(size, TASK, STYLE_NUMBERS[style], *lease, priority, digest, len(function))
    return [head + function if function else head, payload]


def parts_in_files(
    lease: tuple[int, int],
    style: str,
    digest: bytes,
    function: "bytes | Path",
    payload: "bytes | Path",
    *,
    priority: int = 0,
) -> list[Bytes]:
    """Parts of a TASK_IN_FILES frame."""
    detail = STYLE_NUMBERS[style]
    if not isinstance(function, bytes):
        detail |= FUNCTION_IN_FILE
        function = os.fsencode(function)
    if not isinstance(payload, bytes):
        detail |= PAYLOAD_IN_FILE
        payload = os.fsencode(payload)
    size = TASK_HEAD.size + len(function) + len(payload)
    head = HEADER.pack(size, TASK_IN_FILES, detail, *lease, priority)
    return [head + TASK_HEAD.pack(digest, len(function)) + function, payload]


def write_all(descriptor: int, parts: list[Bytes]) -> None:
    """Write to a blocking pipe until everything is out."""
    while parts:
        parts = unwritten(parts, os.writev(descriptor, parts))


def unwritten(parts: list[Bytes], written: int) -> list[Bytes]:
    """What is left of ``parts`` after so many bytes."""
    for position, part in enumerate(parts):
        if written < len(part):
            return [memoryview(part)[written:], *parts[position + 1 :]]
        written -= len(part)
    return []


class FrameWriter:
    """The pipe to the agent: each frame whole, whichever thread it is from."""

    __slots__ = ("_descriptor", "_lock", "is_closed")

    def __init__(self, descriptor: int) -> None:
        """Write to a blocking pipe."""
        self.is_closed = False
        """Whether this is a process that a task forked: the pipe is not its own."""
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(
        self,
        kind: int,
        first: int,
        second: int,
        payload: bytes,
        *,
        detail: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Write a frame; from any thread."""
        head = HEADER.pack(len(payload), kind, detail, first, second, seconds)
        with self._lock:
            if len(payload) > JOIN_BYTES:
                write_all(self._descriptor, [head, payload])
                return
            data = head + payload
            written = os.write(self._descriptor, data)
            if written < len(data):
                write_all(self._descriptor, [data[written:]])

    def close(self) -> None:
        """Let go of the pipe: the agent knows by its end that the slot's process is gone."""
        self.is_closed = True
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class FrameBuffer:
    """Collects bytes and yields whole frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        """Begin empty."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes; yield each complete frame."""
        rest = self._rest
        buffer: bytes | bytearray = data
        if rest:
            rest += data
            buffer = rest
        at, size = 0, len(buffer)
        head = HEADER.size
        while size - at >= head:
            length, kind, detail, first, second, seconds = HEADER.unpack_from(buffer, at)
            end = at + head + length
            if end > size:
                break
            if buffer is data:
                payload = data[at + head : end]
            else:
                payload = bytes(memoryview(buffer)[at + head : end])
            yield kind, detail, first, second, seconds, payload
            at = end
        if buffer is rest:
            del rest[:at]
        elif at < size:
            rest += memoryview(data)[at:]


class InFile:
    """A result that a child has left in a file of the spool."""

    __slots__ = ("digest", "name", "size_bytes")

    def __init__(self, digest: bytes, size_bytes: int, name: str) -> None:
        """Say where it is."""
        self.digest = digest
        self.size_bytes = size_bytes
        self.name = name

    def pack(self) -> bytes:
        """As it travels."""
        return IN_FILE.pack(self.digest, self.size_bytes) + os.fsencode(self.name)

    @classmethod
    def unpack(cls, payload: bytes) -> "InFile":
        """What a frame says."""
        digest, size_bytes = IN_FILE.unpack_from(payload)
        return cls(digest, size_bytes, os.fsdecode(payload[IN_FILE.size :]))


class Filed:
    """What stands for the payload of a TASK frame of which something is in files."""

    __slots__ = ("data", "digest", "function", "style")

    def __init__(self, detail: int, payload: bytes) -> None:
        """Read what a TASK_IN_FILES frame says."""
        self.style = STYLES[detail & STYLE_BITS]
        self.digest, size = TASK_HEAD.unpack_from(payload)
        at = TASK_HEAD.size + size
        function = payload[TASK_HEAD.size : at]
        self.function = contents(function) if detail & FUNCTION_IN_FILE else function
        data = memoryview(payload)[at:]
        self.data = _mapped(bytes(data)) if detail & PAYLOAD_IN_FILE else data


def split(payload: bytes | Filed) -> tuple[bytes, bytes, memoryview]:
    """Digest and perhaps pickle of the function, and what it is called with."""
    if isinstance(payload, Filed):
        return payload.digest, payload.function, payload.data
    digest, size = TASK_HEAD.unpack_from(payload)
    at = TASK_HEAD.size + size
    return digest, payload[TASK_HEAD.size : at], memoryview(payload)[at:]


def contents(path: bytes) -> bytes:
    """All of a file."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a child does without pathlib
        return file.read()


def _mapped(path: bytes) -> memoryview:
    """A file as memory that the system may take back: what is unpickled from it is a copy."""
    import mmap

    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
