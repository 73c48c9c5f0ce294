"""Values of every message and act, made from their types.

A message that is added to the protocol is sampled without anybody having to
remember it. Used where everything that can be said has to be said: to a server
that must not look into it, and to one that must survive it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import inspect

MAX_DEPTH = 6


@dataclass(frozen=True, slots=True)
class Stuff:
    """What the fields of sampled values are filled with."""

    data: Sequence[bytes]
    texts: Sequence[str] = ("name",)
    numbers: Sequence[int] = (1,)


def samples(kind: Any, stuff: Stuff) -> Iterator[Any]:
    """Values of a type: each of its fields takes each value that ``stuff`` has for it, in turn."""
    yield from _values(inspect.type_info(kind), stuff, 0)


def _values(info: inspect.Type, stuff: Stuff, depth: int) -> Iterator[Any]:
    if isinstance(info, inspect.StructType | inspect.NamedTupleType):
        yield from _structs(info, stuff, depth)
    elif isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _values(each, stuff, depth)
    elif isinstance(info, inspect.ListType | inspect.VarTupleType):
        make = list if isinstance(info, inspect.ListType) else tuple
        for value in _values(info.item_type, stuff, depth):
            yield make([value])
    elif isinstance(info, inspect.DictType):
        yield {
            key: value
            for key in _values(info.key_type, stuff, depth)
            for value in _values(info.value_type, stuff, depth)
        }
    else:
        yield from _plain(info, stuff)


def _plain(info: inspect.Type, stuff: Stuff) -> Iterator[Any]:
    if isinstance(info, inspect.BytesType):
        yield from stuff.data
    elif isinstance(info, inspect.StrType):
        yield from stuff.texts
    elif isinstance(info, inspect.IntType):
        yield from stuff.numbers
    elif isinstance(info, inspect.FloatType):
        yield from map(float, stuff.numbers)
    elif isinstance(info, inspect.BoolType):
        yield from (False, True)
    elif isinstance(info, inspect.EnumType):
        yield from info.cls
    elif isinstance(info, inspect.NoneType):
        yield None
    else:
        raise TypeError(f"there are no samples of {info} yet: add them here")


def _structs(
    info: inspect.StructType | inspect.NamedTupleType, stuff: Stuff, depth: int
) -> Iterator[Any]:
    """One value with the first of everything, then one for each other value of each field."""
    choices = {
        field.name: list(_values(field.type, stuff, depth + 1)) if depth < MAX_DEPTH else [None]
        for field in info.fields
    }
    first = {name: values[0] for name, values in choices.items()}
    yield info.cls(**first)
    for name, values in choices.items():
        for value in values[1:]:
            yield info.cls(**(first | {name: value}))
