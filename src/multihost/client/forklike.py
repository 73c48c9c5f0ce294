"""Locks that functions refer to: each process gets its own, free, as after a fork of the program.

With them come what the standard library builds on them: events, conditions, queues of threads.
Only what functions refer to is treated so. A lock that is passed as an argument is meant to be
shared, and is refused.
"""

import io
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from multihost.byvalue import Pickler
from multihost.client.sharing import SharingPickler

_FRESH: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    type(threading.Lock()): lambda _: (threading.Lock, ()),
    type(threading.RLock()): lambda _: (threading.RLock, ()),
}


class _Pickler(Pickler):
    dispatch_table = ChainMap(_FRESH, Pickler.dispatch_table)


class _SharingPickler(SharingPickler):
    dispatch_table = ChainMap(_FRESH, Pickler.dispatch_table)


def dumps(thing: object, protocol: int, *, shares_globals: bool) -> bytes:
    """The pickle of what holds functions; ``shares_globals`` as in ``packing``."""
    with io.BytesIO() as file:
        (_SharingPickler if shares_globals else _Pickler)(file, protocol).dump(thing)
        return file.getvalue()


def references(function: object) -> Iterator[tuple[str, Any]]:
    """What a function refers to that is not its own: globals and variables around it, named."""
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        return
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield f"the global {name!r}", function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"the variable {name!r}", cell.cell_contents
        except ValueError:  # not set yet
            continue


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)
