"""A process on some worker, as the program sees it that started it.

It has what the standard library calls a popen: a pid, an exit code to wait
for, signals to send. Its end is told, like any outcome, only after all that it
printed has been written.
"""

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

from multihost.client.forking import forget_in_child
from multihost.client.latch import Latch
from multihost.client.outcomes import exception_of, failure_of
from multihost.client.packing import Bulk
from multihost.client.stream import Stream
from multihost.core.job import JobSpec
from multihost.core.outcome import Ending
from multihost.errors import LimitExceeded, MultihostError

if TYPE_CHECKING:
    from multihost.client.session import Session

UNKNOWN = 255
"""Exit code of a process of which nobody knows how it ended: the server is gone for good."""
_BY_ENDING = {
    Ending.OK: 0,
    Ending.LOST: -signal.SIGKILL,  # which is what ends it when its worker is gone
    Ending.CANCELLED: -signal.SIGTERM,
    Ending.TIMED_OUT: -signal.SIGTERM,
}

_running: set["Launched"] = set()


class Launched:
    """A process from its launch on.

    Invariant: once ``exitcode`` is set it stays, and the sentinel is ready.
    """

    sentinel = -1
    """In the place of the descriptor, which is made only when somebody asks for it."""

    def __init__(self, session: "Session", spec: JobSpec, payload: bytes | Bulk) -> None:
        """Have the process started; ``wait_begun`` waits until it is."""
        self.pid: int | None = None
        """On its host."""
        self.host = ""
        self.worker = ""
        self.exitcode: int | None = None
        self._error: BaseException | None = None
        self._begun = Latch()
        self._ended = Latch()
        self._lock = threading.Lock()
        self._ends: tuple[int, int] | None = None
        """Both ends of the sentinel's pipe; the second is closed when the process ends."""
        self._was_interrupted = False
        self._session = session
        self._stream = Stream(session, spec, is_watched=True)
        _running.add(self)
        self._stream.append(payload, self)
        session.post(self._stream.end_after_one)

    # for the starter -----------------------------------------------------------------

    def wait_begun(self) -> None:
        """Wait until it runs; raises why it never will."""
        try:
            self._begun.wait_open()
        except KeyboardInterrupt:
            interrupt_all()
            raise
        except BaseException:
            self._session.post(self._stream.cancel)
            raise
        if self._error is not None:
            raise self._error

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait at most ``timeout`` seconds for its end; the exit code, if it has ended.

        Ctrl-C, which a terminal sends to all processes of a program, is passed on.
        """
        try:
            self._ended.wait_open(timeout)
        except KeyboardInterrupt:
            interrupt_all()
            raise
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.exitcode is None:
            with contextlib.suppress(MultihostError):  # the session is over, and so is it
                self._session.post(lambda: self._stream.signal(number))

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """SIGINT, once: a second would hit what it does about the first."""
        if not self._was_interrupted:
            self._was_interrupted = True
            self.send_signal(signal.SIGINT)

    def open_sentinel(self) -> int:
        """A descriptor that becomes ready to read when the process ends."""
        with self._lock:
            if self._ends is None:
                self._ends = os.pipe()
                if self.exitcode is not None:
                    os.close(self._ends[1])
            return self._ends[0]

    def close(self) -> None:
        """Let go of the sentinel."""
        with self._lock:
            ends, self._ends = self._ends, None
        if ends is not None:
            os.close(ends[0])
            if self.exitcode is None:
                os.close(ends[1])

    def __del__(self) -> None:
        if getattr(self, "_ends", None) is not None:
            self.close()

    # Watcher: the event-loop thread ----------------------------------------------------

    def stored(self, position: int) -> None:
        """The server keeps it; what matters is that it begins."""

    def started(self, position: int) -> None:
        """A worker has it; what matters is that it begins."""

    def began(self, pid: int, host: str, worker: str) -> None:
        """It runs. May be told again."""
        self.pid, self.host, self.worker = pid, host, worker
        self._begun.open()

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """It has ended, or could not be started."""
        failure = failure_of(ending, payload)
        code = _BY_ENDING.get(ending, 1)
        if failure.certificates:
            known = failure.certificates[-1].exit_code
            code = UNKNOWN if known is None else known
        elif ending is Ending.UNRUNNABLE and not self._begun.is_open():
            if failure.type_name == LimitExceeded.__name__:
                self._error = LimitExceeded(failure.message)
            else:
                self._error = exception_of(ending, payload, RuntimeError)
        self._finish(code)

    def refuse(self, position: int, error: MultihostError) -> None:
        """It was not started, or nobody knows what became of it."""
        if not self._begun.is_open():
            self._error = error
        self._finish(UNKNOWN)

    def _finish(self, code: int) -> None:
        with self._lock:
            self.exitcode = code
            if self._ends is not None:
                os.close(self._ends[1])
        _running.discard(self)
        self._begun.open()
        self._ended.open()


def end_all(patience_s: float) -> None:
    """Wait at most so long for what nobody joins any more, then kill it."""
    for launched in list(_running):
        launched.wait(patience_s)
        launched.kill()


def interrupt_all() -> None:
    """Pass Ctrl-C on to every process that this one has started."""
    for launched in list(_running):
        launched.interrupt()


forget_in_child(_running.clear)
