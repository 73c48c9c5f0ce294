"""The agent's side of the template: has it started when it is first of use, asks it for children.

Where there is none (yet), children are started one by one. The template is
lost without harm: the children it has forked are the agent's own, and the next
need starts another. Asking is done at once and waited for, since it takes no
longer than starting a process does; a template that does not answer is killed.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from multihost.worker import template
from multihost.worker.launch import ChildSetup, ForkLost, command_line

ANSWER_S = 5.0
"""A template that takes longer to fork is stopped, or the machine is in great trouble."""
_PR_SET_CHILD_SUBREAPER = 36
_log = logging.getLogger("multihost")


class Forks:
    """Children by fork, as soon as the template stands.

    Invariant: whoever was told to wait until it is settled is called, once.
    """

    def __init__(self, setup: ChildSetup | None = None, *, is_ours: bool = False) -> None:
        """``is_ours``: this process is an agent's alone, and may be a parent to orphans."""
        self._setup = setup
        self._is_possible = is_ours and sys.platform == "linux"
        self._is_ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._waiting: list[Callable[[], None]] = []
        self._has_adopted = False
        self._known: set[int] = set() if setup is None else setup.pids

    @property
    def is_starting(self) -> bool:
        """Whether it is worth waiting for: soon there will be a template."""
        return self._process is not None and not self._is_ready

    def start(self) -> None:
        """Have a template, if there can be one."""
        if not self._is_possible or self._process is not None or self._setup is None:
            return
        try:
            self._adopt_orphans()
            self._process = self._launch(self._setup)
        except OSError:  # no process or descriptor is to be had: another time
            return
        self._known.add(self._process.pid)

    def when_settled(self, call: Callable[[], None]) -> None:
        """Call it when the template stands, or is known not to; now if none is starting."""
        if self.is_starting:
            self._waiting.append(call)
        else:
            call()

    def fork(self, number: int, descriptors: Sequence[int]) -> int | None:
        """Process id of a new child; None if there is no template.

        Raises OSError, as a start would, and ForkLost if there may be a child that nobody knows.
        """
        if not self._is_ready or self._socket is None:
            return None
        try:
            socket.send_fds(self._socket, [template.REQUEST.pack(number)], [*descriptors])
            answer = self._answer(self._socket)
        except OSError:
            answer = b""
        if not answer:
            self._lose()
            raise ForkLost
        (pid,) = template.ANSWER.unpack(answer)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return int(pid)

    def close(self) -> None:
        """End it."""
        self._is_possible = False
        self._lose()
        if self._has_adopted:
            self._has_adopted = False
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _launch(self, setup: ChildSetup) -> "subprocess.Popen[bytes]":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = subprocess.Popen(
                    [
                        *command_line(),
                        "template",
                        str(theirs.fileno()),
                        setup.spool,
                        setup.cwd or "",
                    ],
                    stdin=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    cwd=setup.cwd,
                    env=setup.whole_environment(),
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        setup.tell(process)
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._readable)
        return process

    def _readable(self) -> None:
        """It is ready, or gone."""
        assert self._socket is not None
        try:
            said = self._socket.recv(len(template.READY))
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self._is_ready = True
        else:
            if self.is_starting:
                self._is_possible = False  # nor would the next one; it has said why
            self._lose()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def _answer(self, connection: socket.socket) -> bytes:
        """What it says to a request; nothing if it is gone or stopped."""
        ready = select.poll()
        ready.register(connection, select.POLLIN)
        if not ready.poll(ANSWER_S * 1000):
            return b""
        return connection.recv(template.ANSWER.size)

    def _lose(self) -> None:
        """Have no template any more."""
        process, self._process = self._process, None
        if process is None:
            return
        assert self._socket is not None
        asyncio.get_running_loop().remove_reader(self._socket)
        self._is_ready = False
        process.kill()
        process.wait()
        self._socket.close()
        self._known.discard(process.pid)

    # orphans ---------------------------------------------------------------------------

    def _adopt_orphans(self) -> None:
        """Be the parent of whoever loses its own below us: children that are forked do at once.

        So do processes that tasks leave behind. Somebody has to notice when they end.
        """
        if self._has_adopted:
            return
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            self._is_possible = False
            raise OSError(ctypes.get_errno(), "no subreaper")
        loop = asyncio.get_running_loop()
        # A handler of the loop's own would be refused: uvloop has SIGCHLD to itself.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self.reap_orphans))
        signal.siginterrupt(signal.SIGCHLD, False)
        self._has_adopted = True

    def reap_orphans(self) -> None:
        """Let go of those that have ended and are no children that somebody waits for."""
        if not self._has_adopted:
            return
        with contextlib.suppress(ChildProcessError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid in self._known:
                    return  # when that one is waited for it goes on
                os.waitpid(ended.si_pid, 0)
