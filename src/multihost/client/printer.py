"""What tasks print appears where their program prints, from a thread of its own.

Never from the event loop's thread: a terminal that was stopped, or a pipe that
nobody reads, must not hold up heartbeats. ``MULTIHOST_OUTPUT`` decides how:
``plain`` as it was printed, ``named`` with the name of the process or task
before each line, ``none`` not at all.
"""

import codecs
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from multihost.client.dispatcher import Dispatcher
from multihost.errors import ConfigError
from multihost.wire.message import Printed
from multihost.wire.message import Stream as Channel

if TYPE_CHECKING:
    from multihost.client.stream import Stream

OUTPUT_VARIABLE = "MULTIHOST_OUTPUT"
WAYS = ("plain", "named", "none")

BEHIND_BYTES = 64 << 20
"""What waits to be written at most; beyond that output is dropped, with a notice."""

_new_decoder = codecs.getincrementaldecoder("utf-8")


def way_of_output() -> str:
    """How this program shows what its tasks print; raises ConfigError for an unknown way."""
    way = os.environ.get(OUTPUT_VARIABLE) or WAYS[0]
    if way not in WAYS:
        raise ConfigError(f"{OUTPUT_VARIABLE} is {way!r}; it can be {', '.join(WAYS)}")
    return way


def is_shown() -> bool:
    """Whether anything that tasks print is wanted here."""
    return way_of_output() != "none"


class Printer:
    """Writes to this program's ``sys.stdout`` and ``sys.stderr``, whatever these are by then."""

    def __init__(self) -> None:
        """Begin with nothing to write; the thread is started with the first output."""
        self._thread = Dispatcher("multihost-output")
        self._torn: dict[tuple[int, int, int], codecs.IncrementalDecoder] = {}
        self._is_named = way_of_output() == "named"
        self._open_lines: set[tuple[int, int, int]] = set()
        """Whose last line has not ended yet."""
        self._put = self._written = 0
        """Bytes; each is changed by one thread only."""
        self._lost = 0

    @property
    def is_behind(self) -> bool:
        """Whether something that was put has not been written yet."""
        return self._put != self._written

    def put(self, message: Printed, job: "Stream | None" = None) -> None:
        """Have a task's output written; ``job`` tells whose it is."""
        size = len(message.data)
        if self._put - self._written > BEHIND_BYTES:
            self._lost += size  # the terminal was stopped, or nobody reads the pipe
            return
        name = ""
        if self._is_named and job is not None:
            name = job.title or f"{job.spec.label} {job.number}/{message.index}"
        lost, self._lost = self._lost, 0
        self._put += size
        self._thread.put(lambda: self._show(message, name, lost))

    def after(self, call: Callable[[], None]) -> None:
        """Call something, on the thread, as soon as all that was put before has been written."""
        self._thread.put(call)

    def join(self) -> None:
        """Wait until all that was put before has been written."""
        self._thread.join()

    def stop(self) -> None:
        """Wait until all has been written, and end the thread."""
        self._thread.join()
        self._thread.stop()

    def _show(self, message: Printed, name: str, lost: int) -> None:
        try:
            if lost:
                text = f"\n[multihost: {lost} bytes of output were not shown]\n"
                self._write(msgspec.structs.replace(message, data=text.encode()), "")
            self._write(message, name)
        finally:
            self._written += len(message.data)

    def _write(self, message: Printed, name: str) -> None:
        key = (message.job, message.index, message.stream)
        decoder = self._torn.pop(key, None) or _new_decoder("replace")
        text = decoder.decode(message.data)
        if decoder.getstate()[0]:
            self._torn[key] = decoder  # a character is torn in two; its rest comes next
        if name:
            text = self._with_name(key, text, name)
        target = sys.stderr if message.stream == Channel.STDERR else sys.stdout
        if target is None:
            return
        try:
            target.write(text)
            target.flush()
        except (OSError, ValueError):
            return  # closed, as it may be at exit: there is nowhere left to say so

    def _with_name(self, key: tuple[int, int, int], text: str, name: str) -> str:
        """The text with the name at the beginning of each line."""
        lines = text.splitlines(keepends=True)
        first = 1 if key in self._open_lines else 0
        if lines and not lines[-1].endswith("\n"):
            self._open_lines.add(key)
        else:
            self._open_lines.discard(key)
        return "".join(lines[:first] + [f"[{name}] {line}" for line in lines[first:]])
