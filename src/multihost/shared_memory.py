"""The names of ``multiprocessing.shared_memory``, which refuse: memory is of one machine."""

from typing import Any, NoReturn

__all__ = ["ShareableList", "SharedMemory"]


class SharedMemory:
    """Refused; the error names what does it across machines."""

    def __init__(
        self,
        name: str | None = None,
        create: bool = False,  # noqa: FBT001, FBT002 - the standard library's signature
        size: int = 0,
    ) -> None:
        """Name the alternatives."""
        _refuse("SharedMemory", "multihost.Array('B', size) for up to 8 MiB, a file all can reach")


class ShareableList:
    """Refused; the error names what does it across machines."""

    def __init__(self, sequence: Any = None, *, name: str | None = None) -> None:
        """Name the alternatives."""
        _refuse("ShareableList", "multihost.Manager().list(), or a multihost.Array of numbers")


def _refuse(what: str, instead: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} is memory of one machine, and processes here run on any; use {instead}, or "
        "multiprocessing.shared_memory itself between processes that are surely on one machine"
    )
