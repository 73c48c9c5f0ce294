"""``multiprocessing.resource_tracker``: of shared memory and semaphores of this machine.

Nothing here makes any; scripts that use the standard library's own find it.
"""

from multiprocessing import resource_tracker
from multiprocessing.resource_tracker import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.resource_tracker import __all__ as __all__  # noqa: PLC0414 - this module's, too
from typing import Any


def __getattr__(name: str) -> Any:
    """What is there, too, and not for ``import *``: ``main``, ``getfd``."""
    if not hasattr(resource_tracker, name):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(resource_tracker, name)
