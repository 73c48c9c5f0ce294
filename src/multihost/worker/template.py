"""The process that an agent's children are forked from: all they need is imported here, once.

Starting an interpreter and importing costs a child far more than what it does;
a fork costs next to nothing. So that a fork is as good as a start, nothing
ever happens here: no user's code or path, no thread, no task. What a child has
from here are imported modules, the agent's environment and an end of a socket
that it closes.

A child is forked twice, and what is between ends at once: so the kernel makes
the agent its parent, who alone waits for it. When this process dies its
children go on, and when the agent dies the socket's end is all this one needs.
"""

import atexit
import contextlib
import ctypes
import errno
import gc
import importlib
import os
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import NoReturn

from multihost.worker import output

REQUEST = struct.Struct("<I")
"""The number of the child to be; with it come the descriptors of its pipes."""
ANSWER = struct.Struct("<q")
"""Its process id, or minus the number of the error that prevented it."""
READY = b"ready"
DESCRIPTORS = 6
"""As ``launch`` makes them: tasks, outcomes, control, life, standard output and error."""
NEEDED = (
    "cloudpickle",
    "multihost.process",  # which pickled processes name
    "multihost.runtime.settings",
    "multihost.worker.start",
    "multihost.worker.failures",
    "multihost.worker.process",
)
NAME = "mh-template"
"""Of this process, for who lists processes: its command line is its children's, too."""
COMMAND = Path("/proc/self/comm")
THREADS = Path("/proc/self/task")


def main() -> None:
    """Fork children until the agent is gone; in each child: be it, to its end."""
    descriptor, spool, directory = int(sys.argv[2]), sys.argv[3], sys.argv[4]
    os.set_inheritable(descriptor, False)
    agent = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    name = COMMAND.read_text().strip()
    _be_called(NAME)
    setup = sys.stdin.buffer.read()
    parent = os.getppid()
    _import_all()
    if len(list(THREADS.iterdir())) > 1:
        os._exit(1)  # something here starts threads with every interpreter: no copies of that
    gc.collect()
    gc.freeze()  # a child need not look through it, which would copy it
    with contextlib.suppress(OSError):  # the agent is gone, as it is about to find
        agent.send(READY)
    number, descriptors = _serve(agent)
    agent.close()
    *pipes, out, err = descriptors
    _stand(out, err, directory)
    _be_called(name)

    from multihost.worker.start import serve

    _end(serve(pipes, spool, number, parent, setup))


def _serve(agent: socket.socket) -> tuple[int, list[int]]:
    """Fork whenever asked to; what a child is to be, in the child."""
    while True:
        try:
            request, descriptors, _, _ = socket.recv_fds(agent, REQUEST.size, DESCRIPTORS)
        except OSError:
            request = b""
        if not request:
            os._exit(0)
        answer = _fork()
        if answer is None:
            return int(REQUEST.unpack(request)[0]), descriptors
        for each in descriptors:
            os.close(each)
        with contextlib.suppress(OSError):
            agent.send(ANSWER.pack(answer))


def _import_all() -> None:
    """Have at hand what children need sooner or later; only of what is installed."""
    for name in NEEDED:
        importlib.import_module(name)


def _fork() -> int | None:
    """What to answer; None in the child."""
    read, write = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        os.close(read)
        os.close(write)
        return -(error.errno or 1)
    if between == 0 and _is_child(write):
        os.close(read)
        os.close(write)
        return None
    os.close(write)
    answer = os.read(read, ANSWER.size)
    os.close(read)
    os.waitpid(between, 0)  # now the agent is the child's parent
    return int(ANSWER.unpack(answer)[0]) if answer else -errno.EAGAIN


def _is_child(write: int) -> bool:
    """True in the child; what is between tells of it and ends."""
    try:
        child = os.fork()
    except OSError as error:
        child = -(error.errno or 1)
    if child == 0:
        return True
    os.write(write, ANSWER.pack(child))
    os._exit(0)


def _stand(out: int, err: int, directory: str) -> None:
    """Have session, output and directory as a process that the agent has started itself."""
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    if directory:
        with contextlib.suppress(OSError):  # gone by now; the old one is as good as any
            os.chdir(directory)


def _be_called(name: str) -> None:
    with contextlib.suppress(OSError):
        COMMAND.write_text(name)


def _end(code: int) -> NoReturn:
    """End this child, without taking apart the interpreter that was made for all of them.

    All that ``Py_Finalize`` calls is called, and what C code has printed is written.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    output.flush()
    libc = ctypes.CDLL(None)
    libc.fflush(ctypes.c_void_p.in_dll(libc, "stdout"))
    os._exit(code)
