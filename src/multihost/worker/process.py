"""A child that is a user's ``Process``: unpickled, run to its end, its exit code.

What the standard library's own children do around ``run`` (names, counters,
finalizers, the traceback of an exception, exit codes of ``sys.exit``) is left
to its ``BaseProcess``, which a ``Process`` is.
"""

import contextlib
import io
import os
import pickle
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import process as standard
from multiprocessing import util
from typing import Any

from multihost import mainspace


def live(data: bytes | memoryview) -> int:
    """Be the process that ``data`` describes: a pickled dict of its surroundings, and its object.

    Returns the exit code: 1 when it can't be unpickled here, and stderr says why.
    """
    pickles = io.BytesIO(data)
    try:
        _settle(pickle.load(pickles))
        process = _unpickle(pickles)
    except (Exception, SystemExit):  # whatever users' reducers raise
        sys.stderr.write("multihost: the process can't be unpickled on its worker:\n")
        traceback.print_exc()
        return 1
    code: int = process._bootstrap(parent.sentinel())
    return code


def _unpickle(pickles: io.BytesIO) -> Any:
    """The process's object; meanwhile proxies know that they are being inherited."""
    current: Any = standard.current_process()
    current._inheriting = True
    try:
        return pickle.load(pickles)
    finally:
        del current._inheriting


def _settle(surroundings: Mapping[str, Any]) -> None:
    """Take over what a child of the standard library has from its parent."""
    current: Any = standard.current_process()
    current.name = surroundings["name"]
    current.authkey = surroundings["authkey"]
    sys.argv[:] = surroundings["argv"]
    os.environ.update(surroundings["environment"])
    if surroundings["host"] == socket.gethostname():
        _be_where_it_was(surroundings)
    if surroundings.get("settings"):
        from multihost.runtime.settings import take_over

        take_over(surroundings["settings"])
    if surroundings.get("main"):
        mainspace.learn(surroundings["main"])
    if surroundings["logs_to_stderr"]:
        util.log_to_stderr(surroundings["log_level"])
    elif surroundings["log_level"] is not None:
        util.get_logger().setLevel(surroundings["log_level"])


def _be_where_it_was(surroundings: Mapping[str, Any]) -> None:
    """On the machine of the one who started it: find the same files and modules."""
    for path in surroundings["sys_path"]:
        if path not in sys.path:
            sys.path.append(path)
    directory = surroundings["directory"]
    with contextlib.suppress(OSError):  # another user's directory, or one that is gone
        if directory is not None:
            os.chdir(directory)


class Parent:
    """Whether whoever started this process is still there."""

    def __init__(self) -> None:
        """It is there."""
        self._lock = threading.Lock()
        self._has_ended = False
        self._end = -1
        """Of a pipe; the other one is ready as soon as this is closed."""

    def sentinel(self) -> int:
        """A descriptor that becomes ready when the parent has ended."""
        with self._lock:
            sentinel, self._end = os.pipe()
            if self._has_ended:
                os.close(self._end)
        return sentinel

    def ended(self) -> None:
        """It has ended, as far as the server can tell."""
        with self._lock:
            if not self._has_ended and self._end >= 0:
                os.close(self._end)
            self._has_ended = True


parent = Parent()
"""Told by the thread that hears of it; one a process."""
