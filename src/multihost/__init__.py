"""multiprocessing, across machines.

The names here are loaded when they are first used, so that importing the
package costs a program nothing that it does not need.
"""

TYPE_CHECKING = False  # type checkers take it for true; typing itself costs 7 ms to import

__version__ = "0.1.0"

_HOMES = {
    "Pool": "multihost.pool",
    "Executor": "multihost.executor",
    "AsyncClient": "multihost.client",
    "Client": "multihost.client",
    "connect": "multihost.client",
    "Process": "multihost.process",
    "Manager": "multihost.managers",
    "BufferTooShort": "multihost.context",
    "ProcessError": "multihost.context",
    "Queue": "multihost.queues",
    "JoinableQueue": "multihost.queues",
    "SimpleQueue": "multihost.queues",
    "Lock": "multihost.synchronize",
    "RLock": "multihost.synchronize",
    "Semaphore": "multihost.synchronize",
    "BoundedSemaphore": "multihost.synchronize",
    "Condition": "multihost.synchronize",
    "Event": "multihost.synchronize",
    "Barrier": "multihost.synchronize",
    "Value": "multihost.sharedctypes",
    "Array": "multihost.sharedctypes",
    "RawValue": "multihost.sharedctypes",
    "RawArray": "multihost.sharedctypes",
    "Pipe": "multihost.connection",
    "active_children": "multihost.context",
    "allow_connection_pickling": "multihost.context",
    "cpu_count": "multihost.context",
    "current_process": "multihost.context",
    "freeze_support": "multihost.context",
    "get_all_start_methods": "multihost.context",
    "get_context": "multihost.context",
    "get_logger": "multihost.context",
    "get_start_method": "multihost.context",
    "log_to_stderr": "multihost.context",
    "parent_process": "multihost.context",
    "reducer": "multihost.context",
    "set_executable": "multihost.context",
    "set_forkserver_preload": "multihost.context",
    "set_start_method": "multihost.context",
    "AuthenticationError": "multihost.errors",
    "MultihostError": "multihost.errors",
    "TimeoutError": "multihost.errors",
}

_MODULES = {
    "connection",
    "context",
    "dummy",
    "managers",
    "pool",
    "process",
    "queues",
    "reduction",
    "resource_tracker",
    "shared_memory",
    "sharedctypes",
    "spawn",
    "synchronize",
    "util",
}
"""Modules of multiprocessing that are here, too."""

_LEVELS = {"SUBDEBUG", "SUBWARNING"}
"""Of logging; not for ``import *``, as in multiprocessing."""

# Spelled out because type checkers read it; a test holds it to the table.
__all__ = [
    "Array",
    "AsyncClient",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Client",
    "Condition",
    "Event",
    "Executor",
    "JoinableQueue",
    "Lock",
    "Manager",
    "MultihostError",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "connect",
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

if TYPE_CHECKING:
    from multihost.client import AsyncClient, Client, connect
    from multihost.connection import Pipe
    from multihost.context import (
        BufferTooShort,
        ProcessError,
        active_children,
        allow_connection_pickling,
        cpu_count,
        current_process,
        freeze_support,
        get_all_start_methods,
        get_context,
        get_logger,
        get_start_method,
        log_to_stderr,
        parent_process,
        reducer,
        set_executable,
        set_forkserver_preload,
        set_start_method,
    )
    from multihost.errors import AuthenticationError, MultihostError, TimeoutError  # noqa: A004
    from multihost.executor import Executor
    from multihost.managers import Manager
    from multihost.pool import Pool
    from multihost.process import Process
    from multihost.queues import JoinableQueue, Queue, SimpleQueue
    from multihost.sharedctypes import Array, RawArray, RawValue, Value
    from multihost.synchronize import (
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Lock,
        RLock,
        Semaphore,
    )
else:  # hidden from type checkers, which would take any misspelt name for found

    def __getattr__(name: str) -> object:
        import importlib

        if name in _MODULES:  # after "import multiprocessing" most of them are there
            return importlib.import_module("multihost." + name)
        home = "multihost.util" if name in _LEVELS else _HOMES.get(name)
        if home is None:
            message = f"module 'multihost' has no attribute {name!r}"
            raise AttributeError(message)
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


del TYPE_CHECKING  # no name for users
