"""One namespace for all that a program's ``__main__`` sends to a process by value.

cloudpickle gives functions that are pickled one by one a namespace each, so a
global that an initializer sets would be seen by no task. In a pool's own
processes they share one, as they would if the program had been forked: what
is there already stays, what a function needs besides comes with it.
"""

import sys
from typing import Any

_namespace: dict[str, Any] = {"__name__": "__main__"}


class SharedGlobals(dict[str, Any]):
    """Stands for the namespace where functions are pickled; not empty, so that nobody fills it."""

    def __init__(self) -> None:
        """Look like a namespace."""
        super().__init__(__name__="__main__")

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace, ()


def namespace() -> dict[str, Any]:
    """This process's."""
    return _namespace


def set_function_state(function: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """What cloudpickle does with a function it has made, but without overwriting globals."""
    from cloudpickle import cloudpickle

    attributes, slots = state
    for name, value in slots["__globals__"].items():
        function.__globals__.setdefault(name, value)
    cloudpickle._function_setstate(function, (attributes, {**slots, "__globals__": {}}))


# --- what is met by name ----------------------------------------------------------------

_definitions: dict[str, bytes] = {}
"""Pickles by value of what the program defines whose work this process does."""
_found: dict[str, Any] = {}


def learn(packed: bytes) -> None:
    """From now on, in a child, what ``client.definitions`` packed is found in ``__main__``."""
    _definitions.clear()
    _found.clear()
    if not packed or not is_child():
        return
    import pickle
    import zlib

    _definitions.update(pickle.loads(zlib.decompress(packed)))


def is_child() -> bool:
    """Whether this process's ``__main__`` is a worker's, and no program's."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] == "multihost"


def stand_in() -> None:
    """Once in a child: have pickles find the program's classes and functions in ``__main__``."""
    sys.modules["__main__"].__getattr__ = _find  # type: ignore[method-assign]


def _find(name: str) -> Any:
    if name in _definitions and name not in _found:
        import pickle

        _found[name] = pickle.loads(_definitions[name])
    known = _found.get(name) or _class_by_value(name)
    if known is None:
        message = (
            f"module '__main__' of the program has no attribute {name!r}, or it did not travel"
        )
        raise AttributeError(message)
    return known


def _class_by_value(name: str) -> Any:
    """The class of this name that came with a function or an object, if there is one alone."""
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    tracked = getattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", ())
    named = [k for k in list(tracked) if (k.__module__, k.__qualname__) == ("__main__", name)]
    return named[0] if len(named) == 1 else None
