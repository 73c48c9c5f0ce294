"""Values, Structures, Unions and arrays of ctypes types whose bytes the server keeps.

Not shared memory: every reading and writing is a call to the server, so a slice
costs what one element does. Each call is atomic, and two calls are not: whoever needs
that takes a lock, which is ``sharedctypes``'s business.

What stands within another, a field that is a Structure or an array, is a view: it reads and
writes its part of the whole where that stands.
"""

import ctypes
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from multihost.client.synchronizers import Synchronizer
from multihost.client.thread_taker import run
from multihost.synchronize import Shared
from multihost.wire.act import Kind

if TYPE_CHECKING:
    from multihost.client import Client

RECORD = ctypes.Structure | ctypes.Union
"""What has fields."""


class SharedObject(Shared):
    """Base: bytes on the server that are of a ctypes type here."""

    def __init__(
        self, kind: type[Any], first: bytes, name: str | None, client: "Client | None"
    ) -> None:
        """Objects of ``kind``, with these bytes if they are new."""
        self._kind = kind
        self._size = ctypes.sizeof(kind)
        self._open(Kind.VALUE, name, client, 0, first)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_kind": _packed(self._kind)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_kind": _unpacked(state["_kind"])})

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
    """A ctypes Structure or Union; its fields are attributes, whatever else has their names."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or not _is_field(self._kind, name):
            return super().__getattribute__(name)
        blank = getattr(self._kind(), name)
        if isinstance(blank, RECORD | ctypes.Array):
            return _view(self, type(blank), getattr(self._kind, name).offset)
        return getattr(self._copied(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or not _is_field(self._kind, name):
            super().__setattr__(name, value)
            return
        field = getattr(self._kind, name)
        is_bits = bool(field.size >> 16)
        whole = self._copied() if is_bits else self._kind()
        setattr(whole, name, _copy_of(value))
        size = _unit_bytes(self._kind, name) if is_bits else field.size
        self._write(field.offset, bytes(whole)[field.offset : field.offset + size])

    def __repr__(self) -> str:
        return f"<shared {self._kind.__name__}>"

    def _copied(self) -> Any:
        """What it is now, as an object of its type."""
        return self._kind.from_buffer_copy(self._read(0, self._size))


class SharedArray(SharedObject):
    """An array; slices are read whole, and written whole if their elements are neighbours.

    Elements that are no simple values are views.
    """

    def __init__(
        self, kind: type[Any], first: bytes, name: str | None, client: "Client | None"
    ) -> None:
        """An array of as many ``kind`` as ``first`` has."""
        super().__init__(kind, first, name, client)
        self._length = self._remote_length()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: int | slice) -> Any:
        if not isinstance(key, slice):
            at = self._index(key) * self._size
            if not _is_simple(self._kind):
                return _view(self, self._kind, at)
            return self._elements(self._read(at, at + self._size), 1)[0]
        numbers = range(*key.indices(self._length))
        if not _is_simple(self._kind):
            return [_view(self, self._kind, number * self._size) for number in numbers]
        if not numbers:
            return self._elements(b"", 0)[:]
        low, high = min(numbers), max(numbers) + 1
        data = self._read(low * self._size, high * self._size)
        whole = self._elements(data, high - low)[:]
        return whole[:: numbers.step] if numbers.step > 0 else whole[::-1][:: -numbers.step]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        if not isinstance(key, slice):
            at = self._index(key) * self._size
            self._write(at, self._bytes((value,)))
            return
        numbers = range(*key.indices(self._length))
        values = tuple(value) if not isinstance(value, bytes) else value
        if len(values) != len(numbers):
            raise ValueError("Can only assign sequence of same size")
        data, size = self._bytes(values), self._size
        if numbers.step == 1 and numbers:
            self._write(numbers[0] * size, data)
            return
        for position, number in enumerate(numbers):
            self._write(number * size, data[position * size : (position + 1) * size])

    def __iter__(self) -> Iterator[Any]:
        if not _is_simple(self._kind):
            return iter(self[:])
        return iter(self._elements(self.raw, self._length))

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
    def _length_(self) -> int:
        """Its length, as ctypes calls it."""
        return self._length

    @property
    def _type_(self) -> type[Any]:
        """Its elements' type, as ctypes calls it."""
        return self._kind

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
        return self._copied().value

    @value.setter
    def value(self, value: Any) -> None:
        if len(value) > self._length:
            raise ValueError("byte string too long")
        end = [self._kind().value] if len(value) < self._length else []
        self._write(0, self._bytes([*elements(value), *end]))

    def __repr__(self) -> str:
        return f"<shared {self._kind.__name__} array of {self._length}>"

    def _copied(self) -> Any:
        """What it is now, as an array of ctypes."""
        return self._elements(self.raw, self._length)

    def _remote_length(self) -> int:
        return self._measure()[0] // self._size

    def _index(self, key: int) -> int:
        index = key + self._length if key < 0 else key
        if not 0 <= index < self._length:
            raise IndexError("invalid index")
        return index

    def _bytes(self, values: Any) -> bytes:
        """Bytes of elements with these values; raises before any is written if one is none."""
        return bytes((self._kind * len(values))(*elements(values)))

    def _elements(self, data: bytes, count: int) -> Any:
        return (self._kind * count).from_buffer_copy(data)


class StructureView(SharedStructure):
    """A Structure or Union within another shared object."""

    def __init__(self, around: SharedObject, kind: type[Any], start: int) -> None:
        """View what ``around`` has from byte ``start`` on."""
        self._kind = kind
        self._size = ctypes.sizeof(kind)
        self._around = around
        self._start = start

    def __reduce__(self) -> tuple[Any, ...]:
        return _view, (self._around, self._kind, self._start)

    def _read(self, start: int, stop: int) -> bytes:
        return self._around._read(self._start + start, self._start + stop)

    def _write(self, start: int, data: bytes) -> None:
        self._around._write(self._start + start, data)


class ArrayView(SharedArray):
    """An array within another shared object."""

    def __init__(self, around: SharedObject, kind: type[Any], start: int) -> None:
        """View what ``around`` has from byte ``start`` on."""
        self._kind = kind._type_
        self._size = ctypes.sizeof(kind._type_)
        self._length = kind._length_
        self._around = around
        self._start = start

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked_view, (self._around, _packed(self._kind * self._length), self._start)

    def _read(self, start: int, stop: int) -> bytes:
        return self._around._read(self._start + start, self._start + stop)

    def _write(self, start: int, data: bytes) -> None:
        self._around._write(self._start + start, data)


def elements(values: Any) -> list[Any]:
    """Elements as ctypes wants them: bytes one by one, not as numbers, and no views."""
    if isinstance(values, bytes):
        return [values[at : at + 1] for at in range(len(values))]
    return [_copy_of(each) for each in values]


def is_array(kind: Any) -> bool:
    """Whether it is a type of ctypes arrays."""
    return isinstance(kind, type) and issubclass(kind, ctypes.Array)


def is_record(kind: Any) -> bool:
    """Whether it is a type of Structures or Unions."""
    return isinstance(kind, type) and issubclass(kind, RECORD)


def _copy_of(value: Any) -> Any:
    return value._copied() if isinstance(value, SharedStructure | SharedArray) else value


def _view(around: SharedObject, kind: Any, start: int) -> SharedObject:
    """What stands in ``around`` from byte ``start`` on, if it is no simple value."""
    return (ArrayView if is_array(kind) else StructureView)(around, kind, start)


def _unpacked_view(around: SharedObject, packed: Any, start: int) -> SharedObject:
    return _view(around, _unpacked(packed), start)


def _packed(kind: Any) -> Any:
    """A type as it can be pickled: those of arrays have no name by which to find them."""
    return (_packed(kind._type_), kind._length_) if is_array(kind) else kind


def _unpacked(packed: Any) -> Any:
    return _unpacked(packed[0]) * packed[1] if isinstance(packed, tuple) else packed


def _is_simple(kind: Any) -> bool:
    return not (is_array(kind) or is_record(kind))


def _is_field(kind: type[Any], name: str) -> bool:
    return hasattr(getattr(kind, name, None), "offset")


def _unit_bytes(kind: Any, name: str) -> int:
    """Bytes of what a field of bits is a part of."""
    for base in kind.__mro__:
        for field, of, *_ in base.__dict__.get("_fields_", ()):
            if field == name:
                return ctypes.sizeof(of)
    return ctypes.sizeof(kind)
