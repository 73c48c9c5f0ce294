"""What tasks print appears where their program prints, from a thread of its own.

Never from the event loop's thread: a terminal that was stopped, or a pipe that
nobody reads, must not hold up heartbeats.
"""

import codecs
import sys

from multihost.client.dispatcher import Dispatcher
from multihost.wire.message import Printed, Stream

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Printer:
    """Writes to this program's ``sys.stdout`` and ``sys.stderr``, whatever these are by then."""

    def __init__(self) -> None:
        """Begin with nothing to write; the thread is started with the first output."""
        self._thread = Dispatcher("multihost-output")
        self._torn: dict[tuple[int, int, int], codecs.IncrementalDecoder] = {}

    def put(self, message: Printed) -> None:
        """Have a task's output written."""
        self._thread.put(lambda: self._write(message))

    def stop(self) -> None:
        """Wait until all has been written, and end the thread."""
        self._thread.join()
        self._thread.stop()

    def _write(self, message: Printed) -> None:
        key = (message.job, message.index, message.stream)
        decoder = self._torn.pop(key, None) or _new_decoder("replace")
        text = decoder.decode(message.data)
        if decoder.getstate()[0]:
            self._torn[key] = decoder  # a character is torn in two; its rest comes next
        target = sys.stderr if message.stream == Stream.STDERR else sys.stdout
        if target is None:
            return
        try:
            target.write(text)
            target.flush()
        except (OSError, ValueError):
            return  # closed, as it may be at exit: there is nowhere left to say so
