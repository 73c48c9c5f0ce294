"""A digest of what a function does, equal from run to run while its code is.

It guards named jobs: results of an older version of a function must not be
mixed with those of a newer one. Taken from the code itself (bytecode,
constants, names, defaults, closure values, and the functions and classes of
its own module that it refers to), never from a pickle, a file name or a line
number, all of which change without a change in meaning. Global *values* are
left out: they hold clocks and temporary names more often than meaning.
"""

import functools
import hashlib
import pickle
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any


def fingerprint(function: object) -> bytes:
    """SHA-256 over the code of a callable and what it refers to in its module."""
    walk = _Walk()
    walk.thing(function)
    return walk.digest()


class _Walk:
    """One pass over a function and what it reaches; each object is taken once."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._seen: dict[int, object] = {}

    def digest(self) -> bytes:
        return self._hash.digest()

    def thing(self, thing: Any) -> None:
        """Anything: code by its code, data by its value."""
        if isinstance(thing, (FunctionType, type, CodeType)) and self._was_seen(thing):
            return
        if isinstance(thing, FunctionType):
            self._function(thing)
        elif isinstance(thing, MethodType):
            self._note("method")
            self.thing(thing.__func__)
            self._value(thing.__self__)
        elif isinstance(thing, functools.partial):
            self._note("partial")
            for part in (thing.func, thing.args, thing.keywords):
                self.thing(part)
        elif isinstance(thing, BuiltinFunctionType):
            self._note("builtin", thing.__module__, thing.__qualname__)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, CodeType):
            self._code(thing)
        else:
            self._value(thing)

    def _was_seen(self, thing: object) -> bool:
        if id(thing) in self._seen:
            self._note("seen", getattr(thing, "__qualname__", ""))
            return True
        self._seen[id(thing)] = thing
        return False

    def _function(self, function: FunctionType) -> None:
        self._note("function", function.__qualname__)
        doc = function.__doc__
        self._code(function.__code__, doc)
        self.thing(function.__defaults__)
        self.thing(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.thing(cell.cell_contents)
            except ValueError:  # not filled yet: a function that refers to itself
                self._note("empty")
        for name in sorted(_names_in(function.__code__)):
            referred = function.__globals__.get(name)
            if (
                isinstance(referred, (FunctionType, type))
                and referred.__module__ == function.__module__
            ):
                self._note("refers", name)
                self.thing(referred)

    def _code(self, code: CodeType, doc: str | None = None) -> None:
        self._note(
            "code",
            code.co_name,
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
        )
        self._hash.update(code.co_code)
        self._hash.update(code.co_exceptiontable)
        consts = code.co_consts
        if doc is not None and consts and consts[0] == doc:
            consts = consts[1:]
        for const in consts:
            self.thing(const)

    def _class(self, cls: type) -> None:
        self._note("class", cls.__module__, cls.__qualname__)
        for base in cls.__bases__:
            if base.__module__ == cls.__module__:
                self.thing(base)
            else:
                self._note("base", base.__module__, base.__qualname__)
        if cls.__module__ == "builtins":
            return
        for name, member in sorted(vars(cls).items()):
            inner = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(inner, FunctionType):
                self._note("member", name)
                self.thing(inner)

    def _value(self, value: Any) -> None:
        """Data. Sets in a sorted order, since theirs changes from run to run."""
        if isinstance(value, (set, frozenset)):
            self._note(type(value).__name__, *sorted(map(repr, value)))
        elif isinstance(value, (tuple, list)):
            self._note(type(value).__name__, len(value))
            for item in value:
                self.thing(item)
        elif isinstance(value, dict):
            self._note("dict", len(value))
            for key, item in value.items():
                self.thing(key)
                self.thing(item)
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            self._note(type(value).__name__, value)
        elif value is Ellipsis:
            self._note("...")
        else:
            self._object(value)

    def _object(self, value: object) -> None:
        kind = type(value)
        self._note("object", kind.__module__, kind.__qualname__)
        if callable(value):
            self.thing(kind)
        try:
            data = pickle.dumps(value, 5)
        except Exception:  # what can't be pickled is told by its type alone
            return
        self._hash.update(data)

    def _note(self, *parts: object) -> None:
        self._hash.update(repr(parts).encode())


def _names_in(code: CodeType) -> set[str]:
    """Global names that a code object or one nested in it may look up."""
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names |= _names_in(const)
    return names
