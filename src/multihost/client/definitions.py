"""What a program's ``__main__`` defines, for processes that meet objects of it by name.

Calls and items travel by value, but what a manager keeps travels by reference,
as in the standard library: its readers may be unchanged scripts. A child of ours
has another ``__main__`` and finds there what is sent here; see ``mainspace``.
"""

import io
import pickle
import sys
import threading
import zlib
from types import FunctionType
from typing import Any

LIMIT_BYTES = 256 << 10
"""Of all definitions; what would go beyond it, such as a function with a large global, stays."""

_state = threading.local()
_last: tuple[object, bytes] = None, b""


def of_main() -> bytes:
    """Classes and functions of this program's ``__main__``, for ``mainspace.learn``.

    Packed, so that nobody takes the name in it for a reference. Made again when there are others.
    """
    global _last  # noqa: PLW0603 - what was made last
    if getattr(_state, "is_making", False):  # a class refers to what is being pickled
        return b""
    found = _found()
    if not found:
        return b""
    key = tuple((name, id(thing)) for name, thing in found.items())
    if _last[0] != key:
        _state.is_making = True
        try:
            _last = key, zlib.compress(pickle.dumps(_packed(found)), 1)
        finally:
            _state.is_making = False
    return _last[1]


def _found() -> dict[str, Any]:
    main = vars(sys.modules["__main__"])
    return {
        name: thing
        for name, thing in list(main.items())
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__"
    }


def _packed(found: dict[str, Any]) -> dict[str, bytes]:
    from multihost.byvalue import Pickler

    packed, room = {}, LIMIT_BYTES
    for name, thing in found.items():
        file = _Bounded(room)
        try:
            Pickler(file, protocol=5).dump(thing)
        except Exception:  # noqa: S112 - who asks for it there is told that it is missing
            continue
        packed[name] = file.getvalue()
        room -= len(packed[name])
    return packed


class _Bounded(io.BytesIO):
    """A file that refuses what is too large, before it is all made."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def write(self, data: Any, /) -> int:
        self._room -= memoryview(data).nbytes
        if self._room < 0:
            raise OverflowError
        return super().write(data)
