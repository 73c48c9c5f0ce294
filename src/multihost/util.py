"""``multiprocessing.util``: finalizers and the logger are this process's own, and the same here."""

from multiprocessing import util
from multiprocessing.util import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.util import __all__ as __all__  # noqa: PLC0414 - this module's, too

from multihost.standard import rest_of

__getattr__ = rest_of(util, __name__)
