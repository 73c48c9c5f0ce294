"""What programs reach for inside the standard library's pool, as far as it has a meaning here.

They look into a pool's backlog, and they build an ``imap`` of several arguments
(``istarmap``) out of ``Pool._get_tasks``, ``_guarded_task_generation`` and
``_taskqueue``. Nothing of ours uses these.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

from multihost.client.feeder import chunks
from multihost.client.results import IMapIterator


class PoolInside(Protocol):
    """What of a pool is needed here."""

    _processes: int

    def _fill(self, func: Callable[..., Any], iterable: Iterable[Any], into: IMapIterator) -> None:
        """Submit ``func`` of each; results go to an iterator that has none yet."""
        ...

    def _unfinished(self) -> int:
        """Tasks that have not ended."""
        ...


class Batches:
    """``Pool._get_tasks``: pairs of a function and a tuple of arguments."""

    def __init__(self, func: Callable[..., Any], iterable: Iterable[Any], size: int) -> None:
        """Cut what is iterated over into tuples of ``size``."""
        self.func = func
        self.parts = map(tuple, chunks(iterable, size))

    def __iter__(self) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
        return ((self.func, part) for part in self.parts)


class Generation(NamedTuple):
    """``Pool._guarded_task_generation``: what is to be called with each of an iterable."""

    func: Callable[..., Any]
    iterable: Iterable[Any]

    def whole(self) -> tuple[Callable[..., Any], Iterable[Any]]:
        """The same, with a function that is in every batch sent once."""
        if isinstance(self.iterable, Batches) and _name(self.func) in _EACH:
            each = _EACH[_name(self.func)]
            return partial(_apply_to_all, each, self.iterable.func), self.iterable.parts
        return self.func, self.iterable


class TaskQueue:
    """``Pool._taskqueue``: to be asked how long it is, and given generations of tasks."""

    def __init__(self, pool: PoolInside) -> None:
        """Stand for the queue that ``pool`` would have."""
        self._pool = pool

    def put(self, item: Any) -> None:
        """Submit ``(generation, iterator._set_length)``, as ``imap`` of the standard library."""
        generation, tell_length = item if isinstance(item, tuple) else (item, None)
        results = getattr(tell_length, "__self__", None)
        if not isinstance(generation, Generation) or not isinstance(results, IMapIterator):
            refuse()
        self._pool._fill(*generation.whole(), results)

    def qsize(self) -> int:
        """Tasks that are unfinished beyond those that the pool's slots may be running."""
        return max(0, self._pool._unfinished() - self._pool._processes)

    def empty(self) -> bool:
        """Whether none is."""
        return not self.qsize()


def refuse() -> NoReturn:
    """Name what does it."""
    raise NotImplementedError(
        "Pool._taskqueue takes what _guarded_task_generation made, and an iterator's "
        "_set_length; use imap, imap_unordered or starmap_async for anything else"
    )


_EACH: dict[str, Any] = {
    "multiprocessing.pool.mapstar": map,
    "multiprocessing.pool.starmapstar": itertools.starmap,
}


def _name(func: object) -> str:
    return f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', '')}"


def _apply_to_all(each: Any, func: Callable[..., Any], part: tuple[Any, ...]) -> list[Any]:
    return list(each(func, part))
