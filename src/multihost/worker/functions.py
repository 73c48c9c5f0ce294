"""What the process of a slot has from the programs whose functions it runs."""

import sys
from collections import OrderedDict
from typing import Any

from multihost import mainspace
from multihost.worker.frames import FUNCTIONS
from multihost.worker.pickling import Loaded, load


class Functions:
    """Functions under their digests, and what their programs have set.

    Invariant: it has those that the agent believes it has. Both forget the least recently
    used one, and the agent sends each only once.
    """

    def __init__(self) -> None:
        """None yet."""
        self._known: OrderedDict[bytes, Any] = OrderedDict()
        self._settings = b""
        self._main = b""
        """Definitions of the program whose code ran here last."""

    def keep(self, digest: bytes, data: bytes) -> None:
        """A task comes with a function, or names one that is here; it is not looked into."""
        known = self._known
        if digest in known:
            known.move_to_end(digest)
        else:
            known[digest] = data
            if len(known) > FUNCTIONS:
                known.popitem(last=False)

    def take(self, digest: bytes) -> Any:
        """The function, unpickled once; this process takes over what its program has set."""
        known = self._known[digest]
        if type(known) is bytes:
            known = self._known[digest] = load(known)
        self.be_as(known)
        return known.thing

    def be_as(self, loaded: Loaded) -> None:
        """Take over what a program has set, and what was sent of its arguments and definitions."""
        if loaded.argv is not None:
            sys.argv[:] = loaded.argv
        if loaded.settings != self._settings:
            from multihost.runtime.settings import take_over

            self._settings = loaded.settings
            take_over(loaded.settings)
        if loaded.main != self._main:
            self._main = loaded.main
            mainspace.learn(loaded.main)
