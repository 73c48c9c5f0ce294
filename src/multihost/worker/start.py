"""The process of a slot, around the tasks that run in it: how it begins, and how it ends.

Begun here by its own interpreter, or forked from the template: from ``serve`` on they are
the same.
"""

import fcntl
import os
import signal
import sys
from collections.abc import Sequence

from multihost import mainspace
from multihost.runtime.memory import hide_what_is_kept
from multihost.worker import naming, output
from multihost.worker.child import Child
from multihost.worker.frames import FOR_PROCESSES


def main() -> None:
    """Run a slot over the four pipes given; then come the spool's directory and its own number."""
    pipes = [int(argument) for argument in sys.argv[1:5]]
    spool, number = sys.argv[5], int(sys.argv[6])
    is_for_processes = FOR_PROCESSES in sys.argv[7:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup = sys.stdin.buffer.read()
    if is_for_processes:
        import cloudpickle  # noqa: F401 - what a process needs first

        import multihost.worker.process  # noqa: F401 - as above
    sys.exit(serve(pipes, spool, number, os.getppid(), setup))


def serve(pipes: Sequence[int], spool: str, number: int, parent: int, setup: bytes) -> int:
    """Be the child with this number; the exit code of the process."""
    tasks_fd, outcomes_fd, control_fd, life_fd = pipes
    for descriptor in pipes:
        os.set_inheritable(descriptor, False)
    _die_with(life_fd)
    hide_what_is_kept()
    naming.name_process(number, parent, life_fd)
    seal = _setup(setup) if setup else None
    mainspace.stand_in()
    child = Child(tasks_fd, outcomes_fd, control_fd, spool, seal)
    code = child.run()
    _leave()
    return code


def _die_with(life: int) -> None:
    """Have the kernel kill this process and what it started when the agent's end is closed.

    The control thread does so, too, but can't run while C code holds the interpreter.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def _setup(data: bytes) -> bytes | None:
    """Be where the program is that the work comes from; the worker's seal, if it has one."""
    import json

    options = json.loads(data)
    first = [*options.get("first_path", ()), *options.get("sys_path", ())]
    # In the program's order: what it put first may be meant to hide what is installed.
    sys.path[:] = [*first, *(path for path in sys.path if path not in first)]
    if options.get("argv"):
        sys.argv[:] = options["argv"]
    seal = options.get("seal")
    return None if seal is None else bytes.fromhex(seal)


def _leave() -> None:
    """End as a process of multiprocessing does: its finalizers run, then atexit's."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()
    output.flush()
