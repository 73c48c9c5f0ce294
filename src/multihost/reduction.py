"""``multiprocessing.reduction``, whose ``register`` counts for what travels to workers, too.

Descriptors and sockets cross pipes of one machine with it; they can't cross machines.
"""

import copyreg
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.reduction import *  # noqa: F403 - all of it, whatever there is
from multiprocessing.reduction import __all__ as __all__  # noqa: PLC0414 - this module's, too
from typing import Any

from multihost.standard import rest_of


class ForkingPickler(reduction.ForkingPickler):  # type: ignore[no-redef]
    """The standard library's pickler; what is registered with it holds for every pickle."""

    @classmethod
    def register(
        cls,
        type: type[Any],  # noqa: A002 - the standard library's signature
        reduce: Callable[[Any], Any],
    ) -> None:
        """Have objects of a type pickled by ``reduce``, here and wherever calls are sent."""
        super().register(type, reduce)
        copyreg.pickle(type, reduce)


register = ForkingPickler.register

__getattr__ = rest_of(reduction, __name__)  # ``AbstractReducer``, ``HAVE_SEND_HANDLE``
