"""``multiprocessing.dummy``: threads under the names of processes. They stay in this program."""

from multiprocessing import dummy
from multiprocessing.dummy import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.dummy import __all__ as __all__  # noqa: PLC0414 - this module's, too
from typing import Any


def __getattr__(name: str) -> Any:
    """What is there, too, and not for ``import *``: ``Value``, ``Array``, ``Namespace``."""
    if name.startswith("_") or not hasattr(dummy, name):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(dummy, name)
