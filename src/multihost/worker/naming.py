"""What ``multiprocessing`` says of the process of a slot: a pool's worker with a number.

Users' code asks ``current_process().name`` whether it is the main program, and
takes a graphics card or a line of the terminal by ``current_process()._identity``.
A slot must not import multiprocessing for that: it costs more than most tasks.
So it waits until somebody else does.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "multiprocessing.process"
AUTHKEY_BYTES = 32


def name_process(number: int, parent: int, sentinel: int) -> None:
    """Have multiprocessing say the number of this process, now or as soon as it is loaded.

    ``number``: from 1, no other child of the worker has it. ``sentinel`` is a descriptor
    that becomes readable when ``parent``, a process id, has ended.
    """
    worker = PoolWorker(number, parent, sentinel)
    module = sys.modules.get(MODULE)
    if module is None:
        sys.meta_path.insert(0, worker)
    else:
        worker.tell(module)


class PoolWorker:
    """Finds that module once, and has it say the number of this process when it is loaded."""

    def __init__(self, number: int, parent: int, sentinel: int) -> None:
        """As above."""
        self._number = number
        self._parent = parent
        self._sentinel = sentinel

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the module is; None for all others."""
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_tell(module: Any) -> None:
            load(module)
            self.tell(module)

        loader.exec_module = load_and_tell
        return spec

    def tell(self, module: Any) -> None:
        """Say it in the module, which is loaded."""
        process = module._current_process
        process.name = f"SpawnPoolWorker-{self._number}"
        process._identity = (self._number,)
        process.authkey = os.urandom(AUTHKEY_BYTES)  # not one that others were forked with
        module._parent_process = module._ParentProcess("MainProcess", self._parent, self._sentinel)
