"""``multiprocessing.dummy``: threads under the names of processes. They stay in this program."""

from multiprocessing import dummy
from multiprocessing.dummy import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.dummy import __all__ as __all__  # noqa: PLC0414 - this module's, too

from multihost.standard import rest_of

__getattr__ = rest_of(dummy, __name__, has_insides=False)  # ``Value``, ``Array``, ``Namespace``
