"""How a child process is started, and what the agent has of it then."""

import contextlib
import fcntl
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from multihost.runtime.config import environment_of
from multihost.runtime.memory import KEPT_BY_CHILD
from multihost.wire import message as m
from multihost.worker import frames
from multihost.worker.options import WorkerOptions

PIPE_BYTES = 1 << 20
CHILD_DESCRIPTORS = 8
"""That an agent has for one child: pipes, and one for its end."""
Fork = Callable[[int, Sequence[int]], int | None]
"""Number and descriptors of a child to be: its process id; None if it has to be started."""


class ForkLost(Exception):
    """Who was asked to fork a child is gone. Perhaps it has."""


def never_forked(number: int, descriptors: Sequence[int]) -> int | None:  # noqa: ARG001 - a Fork
    """Nobody forks."""
    return None


@dataclass(slots=True)
class ChildSetup:
    """How children are started."""

    cwd: str | None = None
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    setup: bytes = b""
    """What a child reads first: JSON of sys_path and argv, or nothing."""
    spool: str = ""
    """Directory for large results."""
    is_for_processes: bool = False
    """Whether it should have at hand from the start what a process needs."""
    numbers: set[int] = field(default_factory=set)
    """Those of the children that live."""
    pids: set[int] = field(default_factory=set)
    """Processes that somebody waits for."""
    fork: Fork = never_forked
    """Another way to start a child."""

    def take_number(self) -> int:
        """The smallest that no child has."""
        number = next(number for number in itertools.count(1) if number not in self.numbers)
        self.numbers.add(number)
        return number

    def whole_environment(self) -> dict[str, str]:
        """What a child is started with."""
        return {**KEPT_BY_CHILD, **os.environ, **self.environment}

    def tell(self, process: "subprocess.Popen[bytes]") -> None:
        """Write what it reads first."""
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already; its pipes tell of it
            process.stdin.write(self.setup)
            process.stdin.close()


@dataclass(slots=True)
class Launched:
    """A process that was started, and the agent's ends of its pipes."""

    pid: int
    process: "subprocess.Popen[bytes] | None"
    """None if it was forked."""
    number: int
    """Of ``ChildSetup.numbers``."""
    tasks: int
    outcomes: int
    control: int
    life: int
    """The child is killed when it is closed, whatever it does."""
    prints: dict[int, int]
    """Its standard output and error, and which is which."""


def setup_of(options: WorkerOptions, spool: Path) -> ChildSetup:
    """How a worker with these options starts its children."""
    setup = b""
    if options.sys_path or options.argv or options.first_path or options.seal:
        setup = msgspec.json.encode(
            {
                "first_path": options.first_path,
                "sys_path": options.sys_path,
                "argv": options.argv,
                "seal": None if options.seal is None else options.seal.hex(),
            }
        )
    return ChildSetup(options.cwd, environment_of(options.target), setup, str(spool))


def launch(setup: ChildSetup) -> Launched:
    """Start a child; raises OSError, and leaves nothing behind, where that is impossible."""
    try:
        return _launch(setup, setup.fork)
    except ForkLost:
        # What may have been forked has the pipes' other ends and goes with them: now others.
        return _launch(setup, never_forked)


def _launch(setup: ChildSetup, fork: Fork) -> Launched:
    with contextlib.ExitStack() as on_failure:
        (task_read, tasks), (outcomes, outcome_write) = _pipes(2, on_failure)
        (control_read, control), (life_read, life) = _pipes(2, on_failure)
        (out_read, out_write), (err_read, err_write) = _pipes(2, on_failure)
        theirs = (task_read, outcome_write, control_read, life_read, out_write, err_write)
        number = setup.take_number()
        on_failure.callback(setup.numbers.discard, number)
        process = None
        pid = fork(number, theirs)
        if pid is None:
            process = _start(setup, number, theirs)
            pid = process.pid
        on_failure.pop_all()
    setup.pids.add(pid)
    for descriptor in theirs:
        os.close(descriptor)
    if process is not None:
        setup.tell(process)
    for descriptor in (tasks, outcomes, out_read, err_read):
        os.set_blocking(descriptor, False)
    for descriptor in (tasks, outcomes):
        _widen(descriptor)
    prints: dict[int, int] = {out_read: m.Stream.STDOUT, err_read: m.Stream.STDERR}
    return Launched(pid, process, number, tasks, outcomes, control, life, prints)


def _start(setup: ChildSetup, number: int, descriptors: Sequence[int]) -> "subprocess.Popen[bytes]":
    """A process with an interpreter of its own."""
    *inherited, out, err = descriptors
    last = [frames.FOR_PROCESSES] if setup.is_for_processes else []
    return subprocess.Popen(
        [*command_line(), *map(str, inherited), setup.spool, str(number), *last],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=err,
        pass_fds=inherited,
        cwd=setup.cwd,
        env=setup.whole_environment(),
        start_new_session=True,
    )


def _pipes(count: int, on_failure: contextlib.ExitStack) -> list[tuple[int, int]]:
    """Pipes that are closed again unless all goes well; raises OSError if there are no more."""
    pipes = []
    for _ in range(count):
        pipes.append(os.pipe())
        for descriptor in pipes[-1]:
            on_failure.callback(os.close, descriptor)
    return pipes


def _widen(descriptor: int) -> None:
    """Let a pipe hold as much as the system allows: large payloads take fewer turns."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def wait(launched: Launched) -> tuple[int, int, int]:
    """Process id (0 while it lives), exit code, and peak memory in bytes."""
    try:
        pid, status, usage = os.wait4(launched.pid, os.WNOHANG)
    except ChildProcessError:
        return launched.pid, -1, 0
    if pid == 0:
        return 0, 0, 0
    code = os.waitstatus_to_exitcode(status)
    if launched.process is not None:
        launched.process.returncode = code
    return pid, code, usage.ru_maxrss * 1024


def command_line() -> list[str]:
    """What starts a process of ours; its arguments follow."""
    flags: Callable[[], list[str]] = subprocess._args_from_interpreter_flags  # type: ignore[attr-defined]
    return [sys.executable, *flags(), "-m", "multihost.worker"]
