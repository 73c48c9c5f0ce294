"""What a manager's class can make, on its way to another process.

A class of the program's own travels by value, with all that it has registered. What
makes a queue there is often tied to the program, such as a lambda that returns a global
``queue.Queue``; who only connects needs none of it.
"""

import threading
from typing import Any, NoReturn

_state = threading.local()


class Registry(dict[str, Any]):
    """A manager's registry; what can't leave the program stays behind when it is pickled."""

    def __reduce__(self) -> Any:
        """Copy it with what can be copied."""
        entries = {name: (_portable(name, entry[0]), *entry[1:]) for name, entry in self.items()}
        return Registry, (entries,)


class StaysBehind:
    """In the place of what makes an object, where that could not come along."""

    def __init__(self, typeid: str) -> None:
        """Stand for what makes ``typeid``."""
        self._typeid = typeid

    def __call__(self, *args: object, **kwds: object) -> NoReturn:
        """Say where it is to be had."""
        raise NotImplementedError(
            f"what makes {self._typeid!r} could not be pickled, and is in the program that "
            "registered it alone: start the manager there, and connect() to it here"
        )


def _portable(typeid: str, makes: Any) -> Any:
    """What makes an object, if it can be pickled."""
    if makes is None:
        return None
    if getattr(_state, "is_trying", False):  # it refers to the manager's class itself
        return StaysBehind(typeid)
    from multihost import byvalue

    _state.is_trying = True
    try:
        byvalue.dumps(makes)
    except Exception:  # whatever an object's own pickling raises
        return StaysBehind(typeid)
    finally:
        _state.is_trying = False
    return makes
