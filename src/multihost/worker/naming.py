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


class PoolWorker:
    """Finds that module once, and has it say the number of this process when it is loaded."""

    def __init__(self, number: int, parent: int) -> None:
        """``number``: from 1, no other child of the worker has it.

        ``parent`` is a descriptor that becomes readable when the parent has ended.
        """
        self._number = number
        self._parent = parent

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
            self._tell(module)

        loader.exec_module = load_and_tell
        return spec

    def _tell(self, module: Any) -> None:
        process = module._current_process
        process.name = f"SpawnPoolWorker-{self._number}"
        process._identity = (self._number,)
        parent = module._ParentProcess("MainProcess", os.getppid(), self._parent)
        module._parent_process = parent
