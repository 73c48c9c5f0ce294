"""``multiprocessing.spawn``: for scripts that ask it what their interpreter is.

Workers start children here, and nothing of this has a part in it.
"""

from multiprocessing import spawn
from multiprocessing.spawn import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.spawn import __all__ as __all__  # noqa: PLC0414 - this module's, too

from multihost.standard import rest_of

__getattr__ = rest_of(spawn, __name__)  # ``is_forking``
