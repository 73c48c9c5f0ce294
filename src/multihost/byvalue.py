"""Pickling by value: what a program defines itself, for those who can't import it.

It is cloudpickle that does it. Only classes with ``__slots__`` lose them on its way:
what is made of them there has a ``__dict__``, and is refused by the class that it came
from. Here they keep them.
"""

import io
from abc import ABCMeta
from types import MemberDescriptorType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _make_skeleton_class

_PLAIN = (type, ABCMeta)
"""Metaclasses that make of slots what they say; others may do so twice."""
_ON_REQUEST = ("__dict__", "__weakref__")
"""What instances of a class with slots have only if these name it."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped
    """cloudpickle's, for classes with ``__slots__``, too."""

    def reducer_override(self, obj: Any) -> Any:
        """How ``obj`` is pickled, if not as any other object."""
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and "__slots__" in vars(obj) and type(obj) in _PLAIN:
            return _with_slots(obj, reduced)
        return reduced


def dumps(thing: object, protocol: int = 5) -> bytes:
    """The pickle."""
    with io.BytesIO() as file:
        Pickler(file, protocol=protocol).dump(thing)
        return file.getvalue()


def _with_slots(kind: type, reduced: Any) -> Any:
    """What makes a class, told its slots from the start: later they can't be had."""
    if not isinstance(reduced, tuple) or reduced[0] is not _make_skeleton_class:
        return reduced  # by its name
    make, (meta, name, bases, namespace, *tracking), *rest = reduced
    if not all(isinstance(base, type) or hasattr(base, "__origin__") for base in bases):
        return reduced  # NamedTuple makes slots of its own
    namespace = {**namespace, "__slots__": _slots(kind)}
    return make, (meta, name, bases, namespace, *tracking), *rest


def _slots(kind: type) -> tuple[str, ...]:
    """Of the class itself, private ones by the names that they have outside of it."""
    own = vars(kind)
    members = (name for name, thing in own.items() if isinstance(thing, MemberDescriptorType))
    return *members, *(name for name in _ON_REQUEST if name in own)
