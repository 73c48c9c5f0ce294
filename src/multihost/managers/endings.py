"""Each thread's connections to managers, and how the end of its work is told there.

What a thread took last is done with when its task, or the program, ends well; it is
another's when that failed. The standard library's proxies say nothing at their end.
"""

import os
import sys
import threading
from multiprocessing import managers as standard
from multiprocessing import util
from typing import Any

from multihost.managers.wires import Wire
from multihost.runtime.endings import settle_with

_standard: Any = standard

_locals: dict[tuple[Any, bytes], tuple[Any, set[str]]] = {}
"""Each thread's connection, and this process's references, by manager and authkey."""
_locals_lock: Any = _standard.util.ForkAwareThreadLock()


def locals_of(address: Any, authkey: bytes) -> tuple[Any, set[str]]:
    """What all proxies of this process have together for one manager."""
    with _locals_lock:
        known = _locals.get((address, authkey))
        if known is None:
            known = _standard.util.ForkAwareLocal(), _standard.ProcessLocalSet()
            _locals[address, authkey] = known
        return known


def forget(address: Any) -> None:
    """A manager is no more, and another may come to its address."""
    with _locals_lock:
        for known in [known for known in _locals if known[0] == address]:
            del _locals[known]


_watched: list[Any] = [None, None, None]
"""The process and the hook of threads that have been seen to, and the process's main call."""


def watch_end() -> None:
    """See to it that this process's end, and failing threads, are told from others."""
    if _watched[0] != os.getpid():
        _watched[0] = os.getpid()
        _watched[2] = _main_call()
        util.Finalize(None, _leave, exitpriority=9)
    if threading.excepthook is not _watched[1]:
        report = threading.excepthook

        def hook(arguments: Any) -> None:
            for wire in _mine():
                wire.has_failed = True
            report(arguments)

        _watched[1] = threading.excepthook = hook


def _work_ended(is_clean: bool) -> None:  # noqa: FBT001 - as ``settle_with`` has it
    """A task of this thread is over: what it took last is done with, or is for others."""
    for tls, _ in list(_locals.values()):
        wire = getattr(tls, "connection", None)
        if isinstance(wire, Wire) and wire.held is not None:
            del tls.connection
            wire.has_failed = wire.has_failed or not is_clean
            wire.end()


settle_with(_work_ended)


def _leave() -> None:
    """The process ends, and this is its main thread."""
    is_failing = _is_failing()
    for wire in _mine():
        wire.has_failed = wire.has_failed or is_failing
        wire.end()


def _mine() -> list[Wire]:
    """The calling thread's connections."""
    wires = [getattr(tls, "connection", None) for tls, _ in list(_locals.values())]
    return [wire for wire in wires if isinstance(wire, Wire)]


def _main_call() -> Any:
    """The call of the standard library's that a child process consists of, if this is one."""
    frame = sys._getframe()
    while frame is not None and not (
        frame.f_code.co_name == "_bootstrap"
        and frame.f_globals.get("__name__") == "multiprocessing.process"
    ):
        frame = frame.f_back  # type: ignore[assignment]
    return frame


def _is_failing() -> bool:
    """Whether this program, or this child process, is ending because something was raised."""
    error = sys.exc_info()[1]
    if isinstance(error, SystemExit):
        return error.code not in (None, 0)
    # From Python 3.13 on a child is told of its end when its error is dealt with already.
    main_call = _watched[2]
    code = main_call.f_locals.get("exitcode", 0) if main_call is not None else 0
    return error is not None or code != 0 or getattr(sys, "last_value", None) is not None
