"""Pickles by value whose functions of ``__main__`` share one namespace where they arrive."""

import io
import sys
from types import FunctionType
from typing import Any

from multihost.byvalue import Pickler
from multihost.mainspace import SharedGlobals, set_function_state


class SharingPickler(Pickler):
    """cloudpickle's, for the processes of one pool."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        """Let functions of ``__main__`` refer to the shared namespace."""
        super().__init__(file, protocol=protocol)
        self._main = sys.modules["__main__"].__dict__
        self.globals_ref[id(self._main)] = SharedGlobals()

    def _dynamic_function_reduce(self, func: FunctionType) -> tuple[Any, ...]:
        reduced: tuple[Any, ...] = super()._dynamic_function_reduce(func)
        if func.__globals__ is self._main:
            return (*reduced[:5], set_function_state)
        return reduced


def dumps(thing: object, protocol: int) -> bytes:
    """The pickle."""
    with io.BytesIO() as file:
        SharingPickler(file, protocol).dump(thing)
        return file.getvalue()
