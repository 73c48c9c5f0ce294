"""One namespace for all that a program's ``__main__`` sends to a process by value.

cloudpickle gives functions that are pickled one by one a namespace each, so a
global that an initializer sets would be seen by no task. In a pool's own
processes they share one, as they would if the program had been forked: what
is there already stays, what a function needs besides comes with it.
"""

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
