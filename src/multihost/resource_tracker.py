"""``multiprocessing.resource_tracker``: of shared memory and semaphores of this machine.

Nothing here makes any; scripts that use the standard library's own find it.
"""

from multiprocessing import resource_tracker
from multiprocessing.resource_tracker import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.resource_tracker import __all__ as __all__  # noqa: PLC0414 - this module's, too

from multihost.standard import rest_of

__getattr__ = rest_of(resource_tracker, __name__)  # ``main``, ``getfd``
