"""The server that is started for this program when there is no other.

One a process, shared by all its pools, started with the first and stopped at
exit. It watches a pipe whose other end only this process holds, so it ends
when this program ends, in whatever way.
"""

import atexit
import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from multihost.client.forking import forget_in_child
from multihost.errors import ServerNotFound
from multihost.runtime.config import Target, dead_server
from multihost.runtime.descriptors import fill_standard_descriptors
from multihost.runtime.variables import unknown

READY_S = 30.0
"""How long an embedded server may take to start, on however slow a machine."""
STOP_S = 5.0
OPTIONS_VARIABLE = "MULTIHOST_EMBEDDED"
_READ_BYTES = 4096

_log = logging.getLogger("multihost")
_lock = threading.Lock()
_running: "Embedded | None" = None


class Embedded:
    """An embedded server's process, seen from the program that it serves."""

    def __init__(self) -> None:
        """Start the process; ``target`` waits until it is ready."""
        ready_read, ready_write = os.pipe()
        parent_read, self._parent_write = os.pipe()
        command = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
        command += ["-m", "multihost.embedded", str(ready_write), str(parent_read)]
        environment = os.environ | {OPTIONS_VARIABLE: json.dumps(_options())}
        try:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(ready_write, parent_read),
            )
        finally:
            os.close(ready_write)
            os.close(parent_read)
        self._ready_read = ready_read
        self._target: Target | None = None

    def target(self) -> Target:
        """Where it answers, as soon as it does; raises ServerNotFound if it never does."""
        if self._target is None:
            line = self._read_line()
            os.close(self._ready_read)
            try:
                note = json.loads(line)
                urls, key = (str(note["url"]),), str(note["key"]).encode()
                self._target = Target(urls, key, socket=note["socket"])
            except (ValueError, KeyError, TypeError):
                self.stop()
                reason = f"it ended with exit code {self.process.poll()} before it was ready"
                raise ServerNotFound("the embedded server", reason) from None
        return self._target

    def _read_line(self) -> bytes:
        deadline, line = time.monotonic() + READY_S, b""
        # Not select(), which takes no descriptor above 1,023: the program may have many open.
        ready = select.poll()
        ready.register(self._ready_read, select.POLLIN)
        while not line.endswith(b"\n"):
            left_s = max(0.0, deadline - time.monotonic())
            if not ready.poll(left_s * 1000):
                break
            part = os.read(self._ready_read, _READ_BYTES)
            if not part:
                break
            line += part
        return line

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End it: close the pipe that it watches, and insist after a while."""
        self.forget()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """Let go of the pipe without waiting for anything."""
        with contextlib.suppress(OSError):
            os.close(self._parent_write)
        self._parent_write = -1


def start() -> Embedded:
    """The embedded server of this process; started if there is none or it has died."""
    global _running  # noqa: PLW0603 - one a process is the point
    with _lock:
        if _running is None or not _running.is_running():
            if _running is not None:
                _running.forget()
            _tell_of_dead_server()
            _tell_of_typos()
            fill_standard_descriptors()
            _running = Embedded()
        return _running


def _tell_of_dead_server() -> None:
    """Say that this program's work will not last, to who may think that it does."""
    dead = dead_server()
    if dead is not None:
        _log.warning(
            "multihost: your server on this machine (%s, pid %d) has died, so this program uses "
            "one of its own that ends with it; 'multihost server' starts yours again, with all "
            "that it kept",
            *dead,
        )


def _tell_of_typos() -> None:
    """Say that a variable means nothing, to who may think that it names a server."""
    for name, meant in unknown().items():
        if meant is not None:
            _log.warning(
                "multihost: the variable %s is set and means nothing (did you mean %s?); this "
                "program uses a server of its own, on this machine",
                *(name, meant),
            )


def stop() -> None:
    """Stop the embedded server of this process, if there is one."""
    global _running
    with _lock:
        embedded, _running = _running, None
    if embedded is not None:
        # Who presses Ctrl-C once more waits for nothing: without its pipe it ends by itself.
        with contextlib.suppress(KeyboardInterrupt):
            embedded.stop()


def _options() -> dict[str, object]:
    directory = None
    with contextlib.suppress(OSError):  # it may have been removed
        directory = str(Path.cwd())
    return {
        "sys_path": [str(Path(directory or "/", path)) for path in sys.path],
        "cwd": directory,
        "argv": sys.argv,
    }


def _forget() -> None:
    """In a forked child: the server is the parent's, and so is the pipe."""
    global _running, _lock  # noqa: PLW0603 - as above
    _lock = threading.Lock()
    if _running is not None:
        _running.process.returncode = 0  # not ours to wait for
        _running.forget()
        _running = None


forget_in_child(_forget)
atexit.register(stop)
