"""Objects to payload bytes and back: the only place of a client that pickles.

Plain pickle first, since it is several times faster. What plain pickle can't
carry to another machine (lambdas, closures, whatever ``__main__`` defines, and
modules registered with cloudpickle) travels by value. What was sent by value is
bytecode and runs only on the same version of Python; the caller is told.
"""

import contextlib
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from multihost.core.digest import digest_of
from multihost.errors import PayloadError
from multihost.runtime import settings
from multihost.wire.message import INLINE_BYTES, Blob

if TYPE_CHECKING:
    from multihost.client.shipping import Ship

PROTOCOL = 5
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""The version that bytecode of this process is bound to."""
ARGV_BYTES = 16 << 10
"""Longer arguments of a program stay with it."""
_MAIN = b"__main__"
_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
"""Types whose pickles hold nothing that would have to be looked at."""
_OWN_FAULT = (pickle.PicklingError, TypeError, AttributeError, RecursionError)
"""What pickle itself raises; anything else comes from a user's ``__reduce__``."""


class _Travel(threading.local):
    """What has been told, in this thread, that it travels with what is being packed."""

    def __init__(self) -> None:
        self.told: set[int] = set()


_travel = _Travel()


def travels(thing: object) -> bool:
    """Whether ``thing`` is told for the first time that it is pickled to be sent.

    What holds code is pickled twice and travels once.
    """
    told = _travel.told
    if id(thing) in told:
        return False
    told.add(id(thing))
    return True


def _dumps(thing: Any, protocol: int) -> bytes:
    if _travel.told:
        _travel.told.clear()
    return pickle.dumps(thing, protocol)


class Packed(NamedTuple):
    """A pickle, and whether it holds code."""

    data: bytes
    is_by_value: bool


class Bulk(NamedTuple):
    """A payload too large to travel inline."""

    blob: Blob
    data: bytes


class Function(NamedTuple):
    """A function ready to be sent."""

    digest: bytes
    data: bytes
    label: str
    """What people see: the qualified name, with its module unless that is ``__main__``."""
    python: str | None
    """Version that can run it; None when it is found by name on the worker."""


def pack_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], label: str = "") -> Packed:
    """Payload of style CALL; the error of an argument that can't be pickled names it."""
    try:
        data = _dumps((args, kwargs), PROTOCOL)
    except Exception:  # whatever a __reduce__ raises; cloudpickle decides
        return _by_value((args, kwargs), lambda error: _blame_call(args, kwargs, label, error))
    if _MAIN not in data and not _has_registered_modules():
        return Packed(data, is_by_value=False)
    return _by_value((args, kwargs), lambda error: _blame_call(args, kwargs, label, error))


def pack_items(items: list[Any], first: int = 0, label: str = "") -> Packed:
    """Payload of style MAP or STARMAP; ``first`` is the index of the first item, for errors."""
    try:
        data = _dumps(items, PROTOCOL)
    except Exception:  # as above
        return _by_value(items, lambda error: _blame_item(items, first, label, error))
    if _MAIN not in data and not _has_registered_modules():
        return Packed(data, is_by_value=False)
    return _by_value(items, lambda error: _blame_item(items, first, label, error))


def pack_function(function: Callable[..., Any], *, shares_globals: bool = False) -> Function:
    """A function by reference where it can be imported, else by value; raises PayloadError.

    ``shares_globals``: it goes to processes whose initializer may set globals of ``__main__``.
    """
    label = label_of(function)
    what = f"the function {label}"
    data, is_by_value = _pack_object(function, what, shares_globals=shares_globals)
    data += _own()
    return Function(digest_of(data), data, label, PYTHON if is_by_value else None)


def pack_initializer(initializer: Callable[..., Any], initargs: Iterable[Any]) -> Function:
    """The pickled ``(function, args)`` that every child of a pool runs first."""
    label = label_of(initializer)
    what = f"the initializer {label} or its arguments"
    call = (initializer, tuple(initargs))
    data, is_by_value = _pack_object(call, what, shares_globals=True)
    data += _own()
    return Function(digest_of(data), data, label, PYTHON if is_by_value else None)


def _own() -> bytes:
    """What follows the pickle of a function: this program's arguments, settings, definitions.

    Its tasks see them, too. Behind the pickle, where who expects none finds none.
    """
    argv = pickle.dumps([*sys.argv], PROTOCOL)
    set_here, main = settings.taken(), definitions_met()
    if len(argv) > ARGV_BYTES:
        argv = pickle.dumps(None, PROTOCOL) if set_here or main else b""
    if set_here or main:
        argv += pickle.dumps(set_here, PROTOCOL)
    return argv + pickle.dumps(main, PROTOCOL) if main else argv


def definitions_met() -> bytes:
    """What this program's children are to find by name, if they may meet a manager's objects."""
    if "multihost.managers.manager" not in sys.modules:
        return b""
    from multihost.client import definitions

    return definitions.of_main()


def pack_process(surroundings: Mapping[str, Any], process: Any, label: str) -> Packed:
    """Payload of style PROCESS: plain data about where it comes from, and the Process object."""

    def blame(error: Exception) -> Exception:
        culprit = _culprit(process._args, process._kwargs, label, error)
        if culprit is not None:
            return culprit
        what = f"the process {process.name} or its target"
        return _blame_function(process._target, label, error) or _error(what, type(process), error)

    def passes_no_lock() -> bool:
        return _culprit(process._args, process._kwargs, label, TypeError()) is None

    head = _dumps(surroundings, PROTOCOL)
    try:
        data = _dumps(process, PROTOCOL)
    except Exception:  # as above
        is_plain = False
    else:
        is_plain = _MAIN not in data and not _has_registered_modules()
    if is_plain:
        return Packed(head + data, is_by_value=False)
    packed = _by_value(process, blame, frees_locks=passes_no_lock)
    return Packed(head + packed.data, is_by_value=True)


def as_payload(data: bytes) -> bytes | Bulk:
    """The payload itself, or a blob when it is too large to travel inline."""
    if len(data) <= INLINE_BYTES:
        return data
    return Bulk(Blob(digest_of(data), len(data)), data)


def archives_of(ship: "Ship | None") -> tuple[Bulk, ...]:
    """Archives of local code to be sent along; raises ShipError or LimitExceeded."""
    if ship is None:
        return ()
    from multihost.client.shipping import pack_ship

    return pack_ship(ship)


def pack_item(item: Any) -> bytes | Bulk:
    """An item for a queue as its payload; raises PayloadError."""
    if type(item) in _PLAIN:
        data = pickle.dumps(item, PROTOCOL)
        if len(data) <= INLINE_BYTES:
            return data
    return as_payload(_pack_object(item, "the item").data)


def is_reusable(function: object) -> bool:
    """Whether pickling this very object again gives the same again.

    Not so for closures, bound methods and callable objects, whose state may change
    between two calls.
    """
    kind = type(function)
    if kind is FunctionType:
        return function.__closure__ is None  # type: ignore[attr-defined]
    if kind is BuiltinFunctionType:
        return isinstance(function.__self__, ModuleType)  # type: ignore[attr-defined]
    return isinstance(function, type)


def label_of(function: object) -> str:
    """What people see of a function."""
    inner = getattr(function, "func", None)
    if callable(inner) and hasattr(function, "keywords"):
        return f"partial({label_of(inner)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    name = str(getattr(named, "__qualname__", "?"))
    module = getattr(named, "__module__", None)
    return name if module in (None, "__main__", "builtins") else f"{module}.{name}"


def _pack_object(thing: object, what: str, *, shares_globals: bool = False) -> Packed:
    def blame(error: Exception) -> Exception:
        return _blame_function(thing, what, error) or _error(what, type(thing), error)

    frees_locks = (lambda: True) if isinstance(thing, FunctionType) else None
    try:
        data = _dumps(thing, PROTOCOL)
    except Exception:  # as above
        return _by_value(thing, blame, shares_globals=shares_globals, frees_locks=frees_locks)
    if _MAIN not in data and not _has_registered_modules():
        return Packed(data, is_by_value=False)
    return _by_value(thing, blame, shares_globals=shares_globals, frees_locks=frees_locks)


def _by_value(
    thing: object,
    blame: Callable[[Exception], Exception],
    *,
    shares_globals: bool = False,
    frees_locks: Callable[[], bool] | None = None,
) -> Packed:
    """Pickle what holds code.

    ``frees_locks``: asked when a lock may be in the way, whether each process is to have its own.
    """
    try:
        if shares_globals:
            from multihost.client import sharing

            data = sharing.dumps(thing, PROTOCOL)
        else:
            from multihost import byvalue

            data = byvalue.dumps(thing, PROTOCOL)
    except Exception as error:  # named and raised again
        if frees_locks is not None and isinstance(error, TypeError) and frees_locks():
            from multihost.client import forklike

            with contextlib.suppress(Exception):  # the first error is told
                data = forklike.dumps(thing, PROTOCOL, shares_globals=shares_globals)
                return Packed(data, is_by_value=True)
        blamed = blame(error)
        if blamed is error:
            raise
        raise blamed from error
    return Packed(data, is_by_value=True)


def _has_registered_modules() -> bool:
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def _blame_function(function: object, label: str, error: Exception) -> Exception | None:
    """The error that names what a function refers to and can't be pickled, if there is such."""
    from multihost.client import forklike

    for what, thing in forklike.references(function):
        if not _can_pickle(thing):
            remedy = "have each process make its own, in an initializer or in the function"
            return _error(f"{what} that {label} uses", type(thing), error, remedy)
    return None


def _blame_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], label: str, error: Exception
) -> Exception:
    culprit = _culprit(args, kwargs, label, error)
    if culprit is not None:
        return culprit
    return _error(f"the arguments of {label}" if label else "the arguments", tuple, error)


def _culprit(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], label: str, error: Exception
) -> Exception | None:
    named: list[tuple[str, Any]] = [(f"argument {i}", arg) for i, arg in enumerate(args)]
    named += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
    for what, thing in named:
        if not _can_pickle(thing):
            return _error(f"{what} of {label}" if label else what, type(thing), error)
    return None


def _blame_item(items: list[Any], first: int, label: str, error: Exception) -> Exception:
    for index, item in enumerate(items, first):
        if not _can_pickle(item):
            return _error(
                f"item {index} for {label}" if label else f"item {index}", type(item), error
            )
    return _error("the items", list, error)


def _can_pickle(thing: object) -> bool:
    from multihost import byvalue

    try:
        byvalue.dumps(thing, PROTOCOL)
    except Exception:  # the question is whether it raises
        return False
    return True


def _error(what: str, kind: type, error: Exception, remedy: str = "") -> Exception:
    """The error to raise: what a user's own ``__reduce__`` raised stays what it is."""
    text = f"{what} ({kind.__module__}.{kind.__qualname__}) can't be pickled"
    if isinstance(error, _OWN_FAULT):
        return PayloadError(f"{text}: {error}{'; ' if remedy else ''}{remedy}", what)
    error.add_note(f"multihost: {text}")
    return error
