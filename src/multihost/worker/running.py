"""The task that runs in the process of a slot, and how it is interrupted.

A second thread hears that a task is not wanted any more; the main thread, which runs it,
raises there. Between them is a signal, and that may come late: in the next task, amid a
frame that is being written, in code that must not be left half way.
"""

import _thread
import signal
import threading
import time
from types import FrameType

INTERRUPT = getattr(signal, "SIGUSR1", None)
LATER_S = 0.005


class TaskInterrupted(BaseException):
    """The task was cancelled, or ran into its timeout. Not for ``except Exception``."""


class Running:
    """What the main thread runs.

    Invariant: ``TaskInterrupted`` is raised in the task that is unwanted and in no other,
    never while the main thread prints, and never while it loads native code.
    """

    def __init__(self) -> None:
        """Nothing yet; this thread is the one that will."""
        self.task = 0
        """Zero between tasks."""
        self.token = 0
        self.unwanted = 0
        """Token of the task that the agent wants to end, which may not have begun."""
        self.main = threading.get_ident()
        self.is_writing = False
        """Whether the main thread is printing, and must not be interrupted."""
        self._is_due = False

    @property
    def lease(self) -> tuple[int, int]:
        """Task and token; zero is the task between tasks."""
        return self.task, self.token

    def listen(self) -> None:
        """Be interrupted from now on."""
        if INTERRUPT is not None:
            signal.signal(INTERRUPT, self._interrupted)

    def end(self, token: int) -> None:
        """The agent does not want this task any more; called by another thread."""
        if INTERRUPT is None:
            return
        self.unwanted = token  # first: a task that begins just now looks at it
        if self.task and self.token == token:
            signal.pthread_kill(self.main, INTERRUPT)

    def raise_due(self) -> None:
        """Raise the interruption that came while a frame was written, if one did."""
        if self._is_due:
            self._is_due = False
            self._interrupted()

    def raise_due_later(self) -> None:
        """The same in a moment: whoever called would take it for a write that has failed."""
        if self._is_due:
            self._is_due = False
            _thread.start_new_thread(self._interrupt_later, ())

    def _interrupted(self, _: object = None, frame: FrameType | None = None) -> None:
        # The signal may come late, in the next task, or from users' code.
        if not self.task or self.token != self.unwanted:
            return
        if _loads_native_code(frame):
            # Of that little stands being interrupted: some modules end the process. In a moment.
            _thread.start_new_thread(self._interrupt_later, ())
            return
        if self.is_writing:
            # Raised there it would tear a frame in two, or have it written twice.
            self._is_due = True
            return
        self.unwanted = 0
        raise TaskInterrupted

    def _interrupt_later(self) -> None:
        time.sleep(LATER_S)
        signal.pthread_kill(self.main, signal.SIGUSR1)


def _loads_native_code(frame: FrameType | None) -> bool:
    """Whether a module that is not Python is being loaded there, which may be running Python."""
    while frame is not None:
        if frame.f_code.co_qualname.startswith("ExtensionFileLoader."):
            return True
        frame = frame.f_back
    return False
