"""``multiprocessing.util``: finalizers and the logger are this process's own, and the same here."""

from multiprocessing import util
from multiprocessing.util import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.util import __all__ as __all__  # noqa: PLC0414 - this module's, too
from typing import Any


def __getattr__(name: str) -> Any:
    """What is there, too, and not for ``import *``."""
    if not hasattr(util, name):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(util, name)
