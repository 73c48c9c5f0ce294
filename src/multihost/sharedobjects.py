"""Values, Structures and arrays of ctypes types whose bytes the server keeps.

Not shared memory: every reading and writing is a call to the server, so a slice
costs what one element does. Each call is atomic, and two calls are not: whoever needs
that takes a lock, which is ``sharedctypes``'s business.
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
            self._write(at, bytes((self._kind * 1)(*elements((value,)))))
            return
        numbers = range(*key.indices(self._length))
        values = tuple(value) if not isinstance(value, bytes) else value
        if len(values) != len(numbers):
            raise ValueError("Can only assign sequence of same size")
        if numbers.step == 1 and numbers:
            data = bytes((self._kind * len(values))(*elements(values)))
            self._write(numbers[0] * self._size, data)
            return
        for number, each in zip(numbers, elements(values), strict=True):
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
        content = [*elements(value), *end]
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


def _is_field(kind: type[Any], name: str) -> bool:
    return hasattr(getattr(kind, name, None), "offset")


def elements(values: Any) -> list[Any]:
    """Elements as ctypes wants them: bytes one by one, not as numbers, and no views."""
    if isinstance(values, bytes):
        return [values[at : at + 1] for at in range(len(values))]
    return [each._copied() if isinstance(each, StructureInArray) else each for each in values]
