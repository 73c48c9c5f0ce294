"""``Value`` and ``Array``: numbers and bytes that the server keeps for all who share them.

What they are without a lock is in ``sharedobjects``; here they are made and get one. With
``lock=True``, the default, writing and reading several elements waits for whoever
holds ``get_lock()``, as with the standard library. ``RawValue`` and ``RawArray``, whose
point is memory without a lock, refuse.
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from multihost.sharedobjects import (
    SharedArray,
    SharedObject,
    SharedStructure,
    SharedValue,
    elements,
    is_array,
    is_record,
)
from multihost.synchronize import RLock

if TYPE_CHECKING:
    from multihost.client import Client

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

typecode_to_type: dict[str, type[Any]] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}
"""Types by their codes in the module ``array``."""


def Value(  # noqa: N802 - the standard library's name
    typecode_or_type: str | type[Any],
    *args: Any,
    lock: Any = True,
    name: str | None = None,
    client: "Client | None" = None,
) -> Any:
    """A value of a ctypes type; ``lock``: True, False, or the lock to use.

    With a lock it has ``get_lock()`` and ``get_obj()``. A Structure's or Union's fields are
    attributes; those that are Structures or arrays themselves are views.
    """
    _check_lock(lock)
    kind = _type_of(typecode_or_type)
    first = bytes(kind(*args))
    if is_record(kind):
        raw: SharedObject = SharedStructure(kind, first, name, client)
    elif is_array(kind):
        raw = SharedArray(kind._type_, first, name, client)
    else:
        raw = SharedValue(kind, first, name, client)
    return _with_lock(raw, lock, name, client)


def Array(  # noqa: N802 - the standard library's name
    typecode_or_type: str | type[Any],
    size_or_initializer: int | Sequence[Any],
    *,
    lock: Any = True,
    name: str | None = None,
    client: "Client | None" = None,
) -> Any:
    """An array of a ctypes type, of zeros or of what the initializer has.

    Elements that are Structures or arrays are views: to set a field of one is to write it.
    """
    _check_lock(lock)
    kind = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        first = bytes((kind * size_or_initializer)())
    else:
        items = elements(tuple(size_or_initializer))
        first = bytes((kind * len(items))(*items))
    return _with_lock(SharedArray(kind, first, name, client), lock, name, client)


def RawValue(typecode_or_type: Any, *args: Any) -> NoReturn:  # noqa: N802, ARG001 - the standard library's signature
    """Refuse: there is no memory that several machines share."""
    _refuse("RawValue", "Value(..., lock=False)")


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> NoReturn:  # noqa: N802, ARG001 - as above
    """Refuse: there is no memory that several machines share."""
    _refuse("RawArray", "Array(..., lock=False)")


def copy(obj: Any) -> NoReturn:  # noqa: ARG001 - as above
    """Refuse: there is no memory that several machines share."""
    _refuse("sharedctypes.copy", "Value or Array with the object's content")


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:  # noqa: ARG001 - as above
    """What ``Value`` or ``Array`` made with ``lock=False``, with a lock."""
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    if not isinstance(obj, SharedObject):
        _refuse("sharedctypes.synchronized of local memory", "Value or Array")
    return _with_lock(obj, True if lock is None else lock, None, obj._client)


class SynchronizedBase:
    """A shared object and the lock for it."""

    def __init__(self, obj: SharedObject, lock: Any) -> None:
        """Guard ``obj`` by ``lock``."""
        self._obj: Any = obj
        self._lock = lock
        self.acquire = lock.acquire
        self.release = lock.release

    def get_obj(self) -> Any:
        """The object without its lock."""
        return self._obj

    def get_lock(self) -> Any:
        """The lock."""
        return self._lock

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._obj, self._lock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"

    def _locked(self) -> contextlib.AbstractContextManager[Any]:
        """The lock, unless this thread holds it already: a call saved."""
        if isinstance(self._lock, RLock) and self._lock.token is not None:
            return contextlib.nullcontext()
        lock: contextlib.AbstractContextManager[Any] = self._lock
        return lock


class Synchronized(SynchronizedBase):
    """A value with a lock."""

    @property
    def value(self) -> Any:
        """The value; reading one is atomic as it is."""
        return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._locked():
            self._obj.value = value


class SynchronizedStructure(SynchronizedBase):
    """A Structure with a lock; its fields are attributes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._obj, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in ("acquire", "release"):
            super().__setattr__(name, value)
            return
        with self._locked():
            setattr(self._obj, name, value)


class SynchronizedArray(SynchronizedBase):
    """An array with a lock."""

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, key: int | slice) -> Any:
        with self._locked() if isinstance(key, slice) else contextlib.nullcontext():
            return self._obj[key]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        with self._locked():
            self._obj[key] = value

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        with self._locked():
            return self._obj.__array__(dtype, copy)

    def __getslice__(self, start: int, stop: int) -> Any:
        return self[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        self[start:stop] = values

    def __iter__(self) -> Iterator[Any]:
        with self._locked():
            return iter(list(self._obj))


class SynchronizedString(SynchronizedArray):
    """An array of characters with a lock."""

    @property
    def value(self) -> Any:
        """The string, up to its first zero."""
        with self._locked():
            return self._obj.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._locked():
            self._obj.value = value

    @property
    def raw(self) -> bytes:
        """All bytes."""
        with self._locked():
            data: bytes = self._obj.raw
            return data

    @raw.setter
    def raw(self, data: bytes) -> None:
        with self._locked():
            self._obj.raw = data


def _with_lock(raw: SharedObject, lock: Any, name: str | None, client: "Client | None") -> Any:
    if lock is False:
        return raw
    if lock in (True, None):
        lock = RLock(name=None if name is None else f"{name}~lock", client=client)
    if isinstance(raw, SharedStructure):
        return SynchronizedStructure(raw, lock)
    if isinstance(raw, SharedArray):
        is_text = raw._kind is ctypes.c_char
        return (SynchronizedString if is_text else SynchronizedArray)(raw, lock)
    return Synchronized(raw, lock)


def _check_lock(lock: Any) -> None:
    if lock not in (True, False, None) and not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")


def _type_of(typecode_or_type: str | type[Any]) -> type[Any]:
    if not isinstance(typecode_or_type, str):
        return typecode_or_type
    kind = typecode_to_type.get(typecode_or_type)
    if kind is None:
        codes = ", ".join(typecode_to_type)
        raise TypeError(f"{typecode_or_type!r} is no typecode ({codes}), and no type of ctypes")
    return kind


def _refuse(what: str, instead: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} is memory of one machine, and processes here run on any; use {instead}: "
        "the server keeps it, and every access is a call"
    )
