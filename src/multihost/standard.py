"""What modules of ours that stand for the standard library's have in common."""

from collections.abc import Callable
from types import ModuleType
from typing import Any


def rest_of(
    module: ModuleType, stands_as: str, *, has_insides: bool = True
) -> Callable[[str], Any]:
    """A module's ``__getattr__``: what ``module`` has, too, and not for ``import *``.

    ``stands_as``: the name of ours; without ``has_insides`` private names are missing.
    """

    def find(name: str) -> Any:
        if (name.startswith("_") and not has_insides) or not hasattr(module, name):
            message = f"module {stands_as!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(module, name)

    return find
