"""``multiprocessing.spawn``: for scripts that ask it what their interpreter is.

Workers start children here, and nothing of this has a part in it.
"""

from multiprocessing import spawn
from multiprocessing.spawn import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.spawn import __all__ as __all__  # noqa: PLC0414 - this module's, too
from typing import Any


def __getattr__(name: str) -> Any:
    """What is there, too, and not for ``import *``: ``is_forking``."""
    if not hasattr(spawn, name):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(spawn, name)
