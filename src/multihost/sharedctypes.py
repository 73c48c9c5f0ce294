"""``Value`` and ``Array``: numbers and bytes that the server keeps for all who share them.

Not shared memory: every reading and writing is a call to the server, so a slice
costs what one element does. Each call is atomic; with ``lock=True``, the
default, writing and reading several elements also waits for whoever holds
``get_lock()``, as with the standard library. ``RawValue`` and ``RawArray``, whose
point is memory without a lock, refuse.
"""

import contextlib
import ctypes
import importlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from multihost.client.synchronizers import Synchronizer
from multihost.client.thread_taker import run
from multihost.synchronize import RLock, Shared
from multihost.wire.act import Kind

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

    With a lock it has ``get_lock()`` and ``get_obj()``. A Structure's fields are attributes.
    """
    _check_lock(lock)
    kind = _type_of(typecode_or_type)
    first = bytes(kind(*args))
    if issubclass(kind, ctypes.Structure):
        raw: SharedObject = SharedStructure(kind, first, name, client)
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

    Elements of an array of Structures are views: to set a field of one is to write it.
    """
    _check_lock(lock)
    kind = _type_of(typecode_or_type)
    if issubclass(kind, ctypes.Union | ctypes.Array):
        raise TypeError(
            f"an Array holds simple types and Structures, not {kind.__name__}; use a Value of each"
        )
    if isinstance(size_or_initializer, int):
        first = bytes((kind * size_or_initializer)())
    else:
        items = _each(tuple(size_or_initializer))
        first = bytes((kind * len(items))(*items))
    of = SharedStructures if issubclass(kind, ctypes.Structure) else SharedArray
    return _with_lock(of(kind, first, name, client), lock, name, client)


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
    if not isinstance(obj, SharedObject):
        _refuse("sharedctypes.synchronized of local memory", "Value or Array")
    return _with_lock(obj, True if lock is None else lock, None, obj._client)


# --- without a lock --------------------------------------------------------------------


class SharedObject(Shared):
    """Base: bytes on the server that are of a ctypes type here."""

    def __init__(
        self, kind: type[Any], first: bytes, name: str | None, client: "Client | None"
    ) -> None:
        """Objects of ``kind``, with these bytes if they are new."""
        self._kind = kind
        self._size = ctypes.sizeof(kind)
        self._open(Kind.VALUE, name, client, 0, first)

    def _read(self, start: int, stop: int) -> bytes:
        remote: Synchronizer = self._remote
        return run(remote.read(self._taker(), start, stop))

    def _write(self, start: int, data: bytes) -> None:
        run(self._remote.write(self._taker(), start, data))


class SharedValue(SharedObject):
    """One simple value."""

    @property
    def value(self) -> Any:
        """The value, as it is now."""
        return self._kind.from_buffer_copy(self._read(0, self._size)).value

    @value.setter
    def value(self, value: Any) -> None:
        self._write(0, bytes(self._kind(value)))

    def __repr__(self) -> str:
        return f"{self._kind.__name__}({self.value!r})"


class SharedStructure(SharedObject):
    """A ctypes Structure; its fields are attributes, whatever else has their names."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or not _is_field(self._kind, name):
            return super().__getattribute__(name)
        return getattr(self._kind.from_buffer_copy(self._read(0, self._size)), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or not _is_field(self._kind, name):
            super().__setattr__(name, value)
            return
        whole = self._kind.from_buffer_copy(self._read(0, self._size))
        setattr(whole, name, value)
        field = getattr(self._kind, name)
        bits = field.size >> 16
        start = 0 if bits else field.offset
        stop = self._size if bits else field.offset + field.size
        self._write(start, bytes(whole)[start:stop])

    def __repr__(self) -> str:
        return f"<shared {self._kind.__name__}>"


class SharedArray(SharedObject):
    """An array of simple values; slices are read and written whole."""

    def __init__(
        self, kind: type[Any], first: bytes, name: str | None, client: "Client | None"
    ) -> None:
        """An array of as many ``kind`` as ``first`` has."""
        super().__init__(kind, first, name, client)
        self._length = self._remote_length()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(self._length)
            numbers = range(start, stop, step)
            if not numbers:
                return self._elements(b"", 0)
            low, high = min(numbers), max(numbers) + 1
            whole = self._elements(self._read(low * self._size, high * self._size), high - low)
            return whole[::step] if step > 0 else whole[::-1][::-step]
        at = self._index(key) * self._size
        return self._elements(self._read(at, at + self._size), 1)[0:1][0]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        if not isinstance(key, slice):
            at = self._index(key) * self._size
            self._write(at, bytes((self._kind * 1)(*_each((value,)))))
            return
        numbers = range(*key.indices(self._length))
        values = tuple(value) if not isinstance(value, bytes) else value
        if len(values) != len(numbers):
            raise ValueError("Can only assign sequence of same size")
        if numbers.step == 1 and numbers:
            data = bytes((self._kind * len(values))(*_each(values)))
            self._write(numbers[0] * self._size, data)
            return
        for number, each in zip(numbers, _each(values), strict=True):
            self[number] = each

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """A copy, for numpy; by the elements it would be a call for each."""
        numpy: Any = importlib.import_module("numpy")
        if self._kind is ctypes.c_wchar:
            whole = numpy.array(list(self[:]))
        else:
            whole = numpy.ndarray(self._length, self._kind, bytearray(self.raw))
        return whole if dtype is None else whole.astype(dtype)

    def __buffer__(self, flags: int) -> NoReturn:
        """Refuse to be taken for memory, by Python 3.12 and newer."""
        raise BufferError(
            "an Array is kept by the server, not in memory here: numpy.asarray(array) copies it, "
            "array[:] = values writes it"
        )

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return self._read(0, self._length * self._size)

    @raw.setter
    def raw(self, data: bytes) -> None:
        if len(data) > self._length * self._size:
            raise ValueError("byte string too long")
        self._write(0, bytes(data))

    @property
    def value(self) -> Any:
        """A string, up to its first zero; of ``c`` and ``u`` arrays."""
        whole = (self._kind * self._length).from_buffer_copy(self.raw)
        return whole.value

    @value.setter
    def value(self, value: Any) -> None:
        if len(value) > self._length:
            raise ValueError("byte string too long")
        end = [self._kind().value] if len(value) < self._length else []
        content = [*_each(value), *end]
        self._write(0, bytes((self._kind * len(content))(*content)))

    def __repr__(self) -> str:
        return f"<shared {self._kind.__name__} array of {self._length}>"

    def _remote_length(self) -> int:
        return self._measure()[0] // self._size

    def _index(self, key: int) -> int:
        index = key + self._length if key < 0 else key
        if not 0 <= index < self._length:
            raise IndexError("invalid index")
        return index

    def _elements(self, data: bytes, count: int) -> Any:
        return (self._kind * count).from_buffer_copy(data)[:]


class SharedStructures(SharedArray):
    """An array of ctypes Structures; it hands out views of its elements."""

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return [StructureInArray(self, at) for at in range(*key.indices(self._length))]
        return StructureInArray(self, self._index(key))


class StructureInArray(SharedStructure):
    """One Structure of an array; its fields are attributes, read and written where it stands."""

    def __init__(self, array: SharedStructures, index: int) -> None:
        """View the element ``index`` of ``array``."""
        self._kind = array._kind
        self._size = array._size
        self._array = array
        self._start = index * array._size

    def _copied(self) -> ctypes.Structure:
        """What it is now, as an object of its type."""
        structure: ctypes.Structure = self._kind.from_buffer_copy(self._read(0, self._size))
        return structure

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._array, self._start // self._size)

    def _read(self, start: int, stop: int) -> bytes:
        return self._array._read(self._start + start, self._start + stop)

    def _write(self, start: int, data: bytes) -> None:
        self._array._write(self._start + start, data)


# --- with a lock ------------------------------------------------------------------------


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
        return iter(self[:])


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
    if isinstance(typecode_or_type, str):
        return typecode_to_type[typecode_or_type]
    return typecode_or_type


def _is_field(kind: type[Any], name: str) -> bool:
    return hasattr(getattr(kind, name, None), "offset")


def _each(values: Any) -> list[Any]:
    """Elements as ctypes wants them: bytes one by one, not as numbers, and no views."""
    if isinstance(values, bytes):
        return [values[at : at + 1] for at in range(len(values))]
    return [each._copied() if isinstance(each, StructureInArray) else each for each in values]


def _refuse(what: str, instead: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} is memory of one machine, and processes here run on any; use {instead}: "
        "the server keeps it, and every access is a call"
    )
