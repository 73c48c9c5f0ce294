"""A child's process as the system has it: how it is told and signalled, and how its end is seen."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from multihost.worker.launch import ChildSetup, launch, wait

REAP_S = 0.01
LINGER_S = 1.0
"""A child that has closed its pipes and does not end is killed after so long."""


class ChildProcess:
    """A child's process.

    Invariant: nothing is sent to a number that is another's by now, and who waits for the
    end is told once, when nothing that the process left behind goes on either.
    """

    def __init__(self, setup: ChildSetup) -> None:
        """Start it; raises OSError, and leaves nothing behind, where that is impossible."""
        self.is_gone = False
        self._setup = setup
        self._launched = launch(setup)
        self._pidfd = -1
        self._loop = asyncio.get_running_loop()
        self.pid = self._launched.pid
        self.tasks = self._launched.tasks
        """This descriptor and the next ones are for others to use, and to close."""
        self.outcomes = self._launched.outcomes
        self.prints = self._launched.prints
        """Standard output and error, and which is which."""

    def watch(self, exited: Callable[[], None]) -> None:
        """Call it when the process has ended, where the system tells, perhaps before its pipes."""
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # no descriptor left: its pipes tell of its end, too
                self._pidfd = os.pidfd_open(self.pid)
                self._loop.add_reader(self._pidfd, self._exited, exited)

    def _exited(self, tell: Callable[[], None]) -> None:
        self._close_pidfd()
        tell()

    def command(self, data: bytes) -> None:
        """Tell its second thread something; nothing happens if it has ended."""
        if not self.is_gone:  # else the number may be that of another descriptor
            with contextlib.suppress(OSError):
                os.write(self._launched.control, data)

    def signal(self, number: int) -> None:
        """Send a signal to the child and all that it started."""
        if self.is_gone:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it was forked just now, and leads no group yet
            self.signal_alone(number)
        except PermissionError:
            pass

    def signal_alone(self, number: int) -> None:
        """Send a signal to the child, not to what it started; nothing happens if it has ended."""
        if not self.is_gone:  # not reaped, so the number is still its own
            os.kill(self.pid, number)

    def reap(self, then: Callable[[int, int], None], tries: int = 0) -> None:
        """It has ended or is about to: call with exit code and peak memory in bytes once it has."""
        pid, code, peak_memory_bytes = wait(self._launched)
        if pid == 0:
            if tries * REAP_S > LINGER_S:
                self.signal(signal.SIGKILL)
            self._loop.call_later(REAP_S, self.reap, then, tries + 1)
            return
        self.is_gone = True
        # Whatever it had started and left behind goes with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._setup.numbers.discard(self._launched.number)
        self._setup.pids.discard(pid)
        self._close_pidfd()
        os.close(self._launched.control)
        os.close(self._launched.life)
        then(code, peak_memory_bytes)

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
