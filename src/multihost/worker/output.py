"""What a task prints goes to the agent as frames, in order with its outcome."""

import io
import os
import sys
import threading
from fcntl import ioctl
from termios import FIONREAD
from typing import TypeVar

from multihost.worker.frames import OUTPUT, FrameWriter
from multihost.worker.running import Running

LINE_BYTES = 8192
_NOTHING = bytes(4)

Text = TypeVar("Text", bound=io.TextIOWrapper)


class _Stream(io.RawIOBase):
    """A raw stream whose bytes become OUTPUT frames of the running task."""

    def __init__(self, agent: FrameWriter, running: Running, number: int) -> None:
        self._agent = agent
        self._running = running
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        # Libraries that write to the descriptor itself are heard by the agent, too.
        return self._number

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
        if self._agent.is_closed:
            return os.write(self._number, data)
        running = self._running
        if running.is_writing or threading.get_ident() != running.main:
            self._send(data)
            return len(data)
        # Bytes, or a flush by hand: an interruption would tear this frame in two.
        running.is_writing = True
        try:
            self._send(data)
        finally:
            running.is_writing = False
            running.raise_due_later()
        return len(data)

    def _send(self, data) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        self._agent.send(OUTPUT, *self._running.lease, bytes(data), detail=self._number)


class _Text(io.TextIOWrapper):
    """Text to such a stream. An interruption that comes meanwhile is raised when it is written.

    Within it would leave in the buffer what is written already.
    """

    running: Running

    def write(self, text: str) -> int:
        running = self.running
        if threading.get_ident() != running.main:
            return super().write(text)
        running.is_writing = True
        try:
            return super().write(text)
        finally:
            running.is_writing = False
            running.raise_due()


def install(agent: FrameWriter, running: Running) -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``."""
    sys.stdout = _text(agent, running, 1)
    sys.stderr = _text(agent, running, 2)


def install_descriptors() -> None:
    """Let ``sys.stdout`` and ``sys.stderr`` be the descriptors themselves, as in any process.

    Nothing of ours is between them and the agent then: a signal may hit anywhere, and what
    leads the descriptors elsewhere leads the streams.
    """
    sys.stdout = _as_text(io.FileIO(1, "w", closefd=False), io.TextIOWrapper)
    sys.stderr = _as_text(io.FileIO(2, "w", closefd=False), io.TextIOWrapper)


def flush() -> None:
    """Send what is buffered."""
    for stream in (sys.stdout, sys.stderr):
        # A task may have closed it, or put there whatever it liked; asked after every task.
        try:  # noqa: SIM105 - that would cost ten times as much
            stream.flush()
        except Exception:  # noqa: S110 - as above
            pass


def unread(descriptors: tuple[int, int]) -> tuple[int, int]:
    """Bytes that went to the descriptors themselves and that the agent has not read yet."""
    out, err = descriptors
    return _unread(out), _unread(err)


def _unread(descriptor: int) -> int:
    told = ioctl(descriptor, FIONREAD, _NOTHING)
    return 0 if told == _NOTHING else int.from_bytes(told, sys.byteorder)


def _text(agent: FrameWriter, running: Running, number: int) -> io.TextIOWrapper:
    text = _as_text(_Stream(agent, running, number), _Text)
    text.running = running
    return text


def _as_text(raw: io.RawIOBase, kind: type[Text]) -> Text:
    buffer = io.BufferedWriter(raw, LINE_BYTES)
    return kind(buffer, "utf-8", "backslashreplace", line_buffering=True)
