"""The module-level functions of multiprocessing that have a meaning across machines.

Child processes are always fresh ones, as with the start method "spawn"; the
others are accepted, for scripts that ask for them, and change nothing.
"""

import logging
import multiprocessing
import sys
import warnings
from functools import cache
from multiprocessing import BufferTooShort, ProcessError, process, util
from multiprocessing import reduction as reducer
from multiprocessing.process import BaseProcess
from typing import Any

from multihost.errors import AuthenticationError, TimeoutError  # noqa: A004 - also here in multiprocessing

__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "Context",
    "ProcessError",
    "TimeoutError",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

_METHODS = ("fork", "spawn", "forkserver")
_method: str | None = None


def cpu_count() -> int:
    """Tasks of this program that can run at once: slots of the server's workers.

    The cores that it may use itself while there is no server, no worker, or no answer.
    """
    from multihost.client.listings import Listings
    from multihost.errors import MultihostError
    from multihost.runtime.config import find_target
    from multihost.runtime.quota import usable_cores

    try:
        target = find_target()
        slots = Listings(target).slots() if target is not None else 0
    except MultihostError:
        slots = 0
    return slots or usable_cores()


def current_process() -> BaseProcess:
    """The process this code runs in: in a child, the ``Process`` that was started."""
    return process.current_process()


def parent_process() -> BaseProcess | None:
    """The process that started this one; None in a program."""
    return process.parent_process()


def active_children() -> list[Any]:
    """Live processes that this one has started."""
    return process.active_children()


def get_logger() -> logging.Logger:
    """The logger that the standard library's multiprocessing and this one share."""
    return util.get_logger()


def log_to_stderr(level: int | str | None = None) -> logging.Logger:
    """Have that logger write to stderr, here and in processes started from now on."""
    return util.log_to_stderr(level)


def allow_connection_pickling() -> None:
    """Do nothing: connections can be pickled anyway."""


def set_executable(executable: object) -> None:
    """Do nothing: the interpreter of a child is its worker's."""


def set_forkserver_preload(module_names: object) -> None:
    """Do nothing: there is no fork server."""


def freeze_support() -> None:
    """Do nothing: frozen programs need no special start here."""


def set_start_method(method: str | None, force: bool = False) -> None:  # noqa: FBT001, FBT002 - the standard library's signature
    """Note a start method; children start as with "spawn" whatever it is."""
    global _method  # noqa: PLW0603 - a setting of the process, as in multiprocessing
    if _method is not None and not force:
        raise RuntimeError("context has already been set")
    if method is not None:
        _check(method)
    _method = method


def get_start_method(allow_none: bool = False) -> str | None:  # noqa: FBT001, FBT002 - as above
    """The start method that was set, "spawn" when none was."""
    return _method if _method is not None or allow_none else "spawn"


def get_all_start_methods() -> list[str]:
    """Start methods that are accepted; "spawn", what happens in truth, comes first."""
    return ["spawn", "fork", "forkserver"]


class Context:
    """What ``get_context`` returns: the names of the package, and a start method of its own.

    To the standard library's own modules it is a context of the standard library: a
    ``ProcessPoolExecutor`` made with it goes into what queues and locks are made of there.
    """

    def __init__(self, method: str | None = None) -> None:
        """Accept ``method``."""
        self._method = method

    def get_start_method(self, allow_none: bool = False) -> str | None:  # noqa: FBT001, FBT002 - as above
        """The method this context was asked for."""
        if _is_asked_by_the_standard_library():
            return multiprocessing.get_context(self._method).get_start_method()
        return self._method or get_start_method(allow_none)

    def set_start_method(self, method: str | None, force: bool = False) -> None:  # noqa: FBT001, FBT002 - as above
        """Only the default context's can be set."""
        if self._method is not None:
            raise ValueError("cannot set start method of concrete context")
        set_start_method(method, force)

    def get_context(self, method: str | None = None) -> "Context":
        """This context, or one for ``method``."""
        return self if method is None else get_context(method)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if _is_asked_by_the_standard_library():
            return getattr(multiprocessing.get_context(self._method), name)
        import multihost

        return getattr(multihost, name)

    def __repr__(self) -> str:
        return f"<multihost context {self._method or 'default'}>"


class SpawnContext(Context):
    """The context of "spawn"; as the next two, for scripts that take it by its name."""

    def __init__(self) -> None:
        """What ``get_context`` returns for its method."""
        super().__init__("spawn")


class ForkContext(Context):
    """The context of "fork"."""

    def __init__(self) -> None:
        """As above."""
        super().__init__("fork")


class ForkServerContext(Context):
    """The context of "forkserver"."""

    def __init__(self) -> None:
        """As above."""
        super().__init__("forkserver")


BaseContext = DefaultContext = Context
_BY_METHOD = {"spawn": SpawnContext, "fork": ForkContext, "forkserver": ForkServerContext}


def __getattr__(name: str) -> Any:
    """``Process`` under the names of every start method; its module imports this one."""
    if name in ("Process", "SpawnProcess", "ForkProcess", "ForkServerProcess"):
        from multihost.process import Process

        return Process
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def get_context(method: str | None = None) -> Context:
    """A context; raises ValueError for a start method that does not exist."""
    if method is None:
        return Context()
    _check(method)
    return _BY_METHOD[method]()


def _check(method: str) -> None:
    if method not in _METHODS:
        raise ValueError(f"cannot find context for {method!r}")


def _is_asked_by_the_standard_library() -> bool:
    """Whether who called the caller is ``concurrent.futures``, or ``multiprocessing`` itself."""
    asker = str(sys._getframe(2).f_globals.get("__name__", ""))
    is_asked = asker.startswith(("concurrent.futures.", "multiprocessing."))
    if is_asked:
        _tell_that_it_stays_here()
    return is_asked


@cache
def _tell_that_it_stays_here() -> None:
    warnings.warn(
        "the standard library's pools and executors run on this machine alone, also with a "
        "context of multihost; multihost.Executor and multihost.Pool reach every worker",
        stacklevel=5,
    )
