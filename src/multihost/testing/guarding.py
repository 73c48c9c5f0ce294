"""Holds servers to their promise within a process that is more than a server.

A server that a test composes in its own process can't be guarded as a whole: the test may
unpickle and import what it likes. So what is refused is what the server's code does, or
has done: whenever a frame of it is on the stack.
"""

import os
import pickle
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from multihost.server.guard import Guard

_SERVER_S: Final = ("multihost.server", "multihost.store")
_SHARED: Final = "multihost.runtime.link"
"""Of clients, workers and servers alike: whose a link is, its owner tells."""


class StackGuard(Guard):
    """Refuses to servers in this process what ``Guard`` refuses to a server's process."""

    def install(self) -> None:
        """Begin; there is no end but the process's."""
        for name in ("load", "loads", "_load", "_loads"):
            setattr(pickle, name, self._watched(name, getattr(pickle, name)))
        self._watch_unpicklers()
        self._note(f"beside {os.getpid()}")
        sys.addaudithook(self._look)

    # within ------------------------------------------------------------------------

    def _applies(self, frame: FrameType | None) -> bool:
        """Whether a server does this, or has it done."""
        while frame is not None:
            name = str(frame.f_globals.get("__name__"))
            # What its dependencies look for while they are loaded is no deed of a server's.
            if name.startswith(_SERVER_S) and frame.f_code.co_name != "<module>":
                return True
            if name == _SHARED:
                owner = getattr(frame.f_locals.get("self"), "owner", None)
                if type(owner).__module__.startswith(_SERVER_S):
                    return True
            frame = frame.f_back
        return False

    def _watched(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def load(*arguments: Any, **options: Any) -> Any:
            if self._applies(sys._getframe(1)):
                self._refuse(f"pickle.{name} was called")
            return plain(*arguments, **options)

        _name(load, name)
        return load

    def _watch_unpicklers(self) -> None:
        guard = self

        class Unpickler(pickle.Unpickler):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                if guard._applies(sys._getframe(1)):
                    guard._refuse("pickle.Unpickler was called")
                super().__init__(*arguments, **options)

        _name(Unpickler, "Unpickler")
        pickle.Unpickler = Unpickler  # type: ignore[misc]


def _name(it: Any, name: str) -> None:
    """Give something the name of what it stands for, so that it can be pickled by that."""
    it.__module__, it.__name__, it.__qualname__ = "pickle", name, name
