"""``multiprocessing.dummy``: threads under the names of processes. They stay in this program."""

from multiprocessing.dummy import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.dummy import __all__ as __all__  # noqa: PLC0414 - this module's, too
