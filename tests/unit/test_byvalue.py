"""Classes that a program defines are in another process what they are at home."""

import abc
import pickle
import subprocess
import sys
import weakref
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import pytest

from multihost import byvalue

ECHO = """
import pickle, sys
from multihost import byvalue
thing = pickle.load(sys.stdin.buffer)
told = hasattr(thing, "__dict__"), hasattr(type(thing), "__weakref__")
sys.stdout.buffer.write(byvalue.dumps((thing, told)))
"""


def there_and_back(thing):
    """``thing`` after a way through another process, and what that says of it."""
    answer = subprocess.run(
        [sys.executable, "-c", ECHO], input=byvalue.dumps(thing), stdout=subprocess.PIPE, check=True
    )
    return pickle.loads(answer.stdout)


def one_name():
    class One:
        __slots__ = "x"  # noqa: PLC0205 - people do

        def __init__(self):
            self.x = 3

    return One()


def private():
    class Private:
        __slots__ = ("__x",)

        def __init__(self):
            self.__x = 3

        @property
        def x(self):
            return self.__x

    return Private()


def of_a_dataclass():
    @dataclass(slots=True, frozen=True, order=True)
    class Point:
        x: int
        y: int = 0

    return Point(3)


def inherited():
    class Base(abc.ABC):
        __slots__ = ("x",)

        @abc.abstractmethod
        def area(self): ...

    class Square(Base):
        __slots__ = ("y",)

        def __init__(self):
            self.x = 3

        def area(self):
            return self.x**2

    assert Square().area() == 9
    return Square()


def generic():
    T = TypeVar("T")

    class Box(Generic[T]):
        __slots__ = ("x",)

        def __init__(self):
            self.x = 3

    return Box()


def with_room_for_more():
    class Roomy:
        __slots__ = ("__dict__", "__weakref__", "x")

        def __init__(self):
            self.x = 3
            self.more = 4

    weakref.ref(Roomy())
    return Roomy()


def a_named_tuple():
    class Pair(NamedTuple):
        x: int
        y: int

    return Pair(3, 4)


def no_slots():
    class Plain:
        def __init__(self):
            self.x = 3

    return Plain()


@pytest.mark.parametrize(
    "make",
    [
        *(one_name, private, of_a_dataclass, inherited, generic, with_room_for_more),
        *(a_named_tuple, no_slots),
    ],
)
def test_an_object_comes_back_as_it_went_whatever_slots_its_class_has(make):
    thing = make()
    back, (has_room, can_be_referred_to) = there_and_back(thing)
    assert type(back) is type(thing)
    assert back.x == 3
    assert has_room == hasattr(thing, "__dict__")
    assert can_be_referred_to == hasattr(type(thing), "__weakref__")


def test_a_class_that_is_there_travels_by_its_name():
    assert b"dataclasses" not in byvalue.dumps(there_and_back)
    assert byvalue.dumps(abc.ABC, 5) == pickle.dumps(abc.ABC, 5)
