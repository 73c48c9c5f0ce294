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
import traceback
from collections.abc import Mapping
from multiprocessing import process as standard
from multiprocessing import util
from typing import Any

_parent_ends: list[int] = []
"""The end of a pipe; as long as it is open the process that started this one is there."""


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
    code: int = process._bootstrap(_parent_sentinel())
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


def _parent_sentinel() -> int:
    """A descriptor that becomes ready when the process that started this one has ended."""
    sentinel, end = os.pipe()
    _parent_ends.append(end)
    return sentinel


def parent_ended() -> None:
    """Let ``parent_process().join()`` and ``is_alive()`` know."""
    while _parent_ends:
        os.close(_parent_ends.pop())
