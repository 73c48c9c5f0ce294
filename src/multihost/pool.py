"""``multiprocessing.Pool``, on every machine.

The same methods, arguments and exceptions; what differs is written in
docs/guide/coming-from-multiprocessing.md. Tasks are appended to one open job for each
function, so a call costs a pickle of its arguments and one queue operation.
Results stay packed until somebody asks for them. A killed worker, a raising
initializer or a raising callback hangs nothing.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multihost.client.arguments import text, whole
from multihost.client.client import shared_client
from multihost.client.crew import Crew
from multihost.client.dispatcher import Dispatcher
from multihost.client.feeder import Feeder, chunks
from multihost.client.packing import as_payload, label_of, pack_call, pack_items
from multihost.client.pool_insides import Batches, Generation, TaskQueue
from multihost.client.results import AsyncResult, IMapIterator, IMapUnorderedIterator, MapResult
from multihost.core.job import DEFAULT_QUEUE, Style
from multihost.errors import TimeoutError as TimeoutError  # noqa: A004, PLC0414 - also here in multiprocessing

if TYPE_CHECKING:
    from multihost.client.pool_processes import PoolProcess
    from multihost.client.shipping import Ship

INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

ApplyResult = AsyncResult

CHUNKS_PER_PROCESS = 4
NAMED_CHUNKS = 64
"""Chunks of a named pool's ``map``: the same whatever slots there are when it is run again."""

_STANDARD = {"MaybeEncodingError", "RemoteTraceback", "ThreadPool", "mapstar", "starmapstar"}


def __getattr__(name: str) -> Any:
    """The standard library's own exceptions, for ``except`` clauses, and its pool of threads."""
    if name in _STANDARD:
        from multiprocessing import pool

        return getattr(pool, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


class Pool:
    """A pool of worker processes, wherever the workers are.

    ``processes`` bounds how many tasks run at once, over all machines; by default
    every slot of the server may be used. ``name`` makes the work lasting: the same
    program run again attaches to what is there. ``queue``, ``url`` and ``authkey``
    choose where the work goes. What tasks print appears here, unless ``output`` is False.
    ``ship`` sends local packages and modules that the tasks import; see ``Client``.
    """

    _state = INIT
    """Also of one whose arguments did not even fit."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        url: str | None = None,
        authkey: bytes | str | None = None,
        output: bool = True,
        ship: "Ship | None" = None,
    ) -> None:
        """Connect, and check the arguments as the standard library does."""
        if processes is not None:
            processes = whole("processes", processes)
            if processes < 1:
                raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and not (
            isinstance(maxtasksperchild, int) and maxtasksperchild > 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        client = shared_client(url, authkey)
        self._crew = Crew(
            client,
            width=processes,
            initializer=initializer,
            initargs=initargs,
            max_tasks=maxtasksperchild,
            name=None if name is None else text("name", name),
            queue=text("queue", queue),
            shows_output=output,
            ship=ship,
        )
        self._processes = processes if processes is not None else client.slots()
        self._chunks = NAMED_CHUNKS if name is not None else self._processes * CHUNKS_PER_PROCESS
        self._callbacks = Dispatcher("multihost-pool-callbacks")
        self._feeders: list[Feeder] = []
        self._state = RUN
        if initializer is not None and maxtasksperchild is None and name is None:
            self._begin()

    def _begin(self) -> None:
        """Have every child started and initialized now, with nothing to do yet.

        As the standard library's are: programs rely on it, and models take time to load.
        """
        for _ in range(self._processes):
            self.apply_async(int)

    # one call ----------------------------------------------------------------------

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """``func(*args, **kwds)``, computed elsewhere."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> "AsyncResult":
        """Have ``func(*args, **kwds)`` computed; what can't be pickled fails the result."""
        self._check_running()
        result = AsyncResult(self, callback, error_callback)
        if type(args) is not tuple:
            args = tuple(args)
        try:
            data, is_bound = pack_call(args, kwds)
            stream = self._crew.stream(func, Style.CALL, is_bound=is_bound)
        except Exception as error:  # whatever pickling raises; it is the result's
            _name_function(error, func)
            self._crew.post(lambda error=error: result.refuse(0, error))  # type: ignore[misc]
            return result
        stream.append(as_payload(data), result)
        return result

    # many calls, all at once -----------------------------------------------------------

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """``[func(x) for x in iterable]``; waits for all of it."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """``[func(*x) for x in iterable]``; waits for all of it."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> "MapResult":
        """Begin a ``map``; the first error wins, and all chunks are waited for."""
        return self._map_async(func, iterable, Style.MAP, chunksize, callback, error_callback)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> "MapResult":
        """Begin a ``starmap``."""
        return self._map_async(func, iterable, Style.STARMAP, chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        style: Style,
        chunksize: int | None,
        *callbacks: Callable[[Any], object] | None,
    ) -> "MapResult":
        self._check_running()
        items: Sequence[Any] = iterable if hasattr(iterable, "__len__") else list(iterable)  # type: ignore[assignment]
        if chunksize is None:
            chunksize = -(-len(items) // self._chunks)
        chunksize = max(1, chunksize)
        # Iterated before anything is submitted: what the iterable raises is the caller's.
        pieces = list(chunks(items, chunksize))
        result = MapResult(self, len(pieces), chunksize, *callbacks)
        label = label_of(func)
        for position, chunk in enumerate(pieces):
            try:
                data, is_bound = pack_items(chunk, position * chunksize, label)
                stream = self._crew.stream(func, style, is_bound=is_bound)
            except Exception as error:  # whatever pickling raises; it is the chunk's
                self._crew.post(
                    lambda position=position, error=error: result.refuse(position, error)  # type: ignore[misc]
                )
                continue
            stream.append(as_payload(data), result, position)
        return result

    # many calls, one after the other ---------------------------------------------------

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """Results in the order of the inputs, as soon as each is there."""
        return self._imap(func, iterable, chunksize, is_ordered=True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> Iterator[Any]:
        """Results as they come."""
        return self._imap(func, iterable, chunksize, is_ordered=False)

    def _imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, *, is_ordered: bool
    ) -> Iterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        results = (IMapIterator if is_ordered else IMapUnorderedIterator)(self)
        self._fill(func, iterable, results, chunksize)
        if chunksize == 1:
            return results
        return (item for chunk in results for item in chunk)

    def _fill(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        into: IMapIterator,
        chunksize: int = 1,
    ) -> None:
        feeder = Feeder(self._crew, func, iterable, chunksize, into._arrivals)
        self._feeders = [old for old in self._feeders if old.is_alive()]
        if feeder.is_short:
            feeder.run()
        else:
            self._feeders.append(feeder)
            feeder.start()

    # the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more work; what was submitted is finished."""
        if self._state == RUN:
            self._state = CLOSE

    def terminate(self) -> None:
        """Stop at once: unfinished tasks are cancelled, and whoever waits for them is told.

        A named pool's tasks go on; ``multihost cancel`` stops them.
        """
        self._state = TERMINATE
        for feeder in self._feeders:
            feeder.stop()
        self._crew.close("its pool was terminated")
        self._callbacks.stop()

    def join(self) -> None:
        """Wait until all work is finished; to be called after ``close`` or ``terminate``."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        if self._state == CLOSE:
            for feeder in self._feeders:
                feeder.join()
        self._feeders.clear()
        self._crew.wait_idle()
        self._callbacks.join()
        self._callbacks.stop()
        self._crew.close("its pool was closed", is_sealing=self._state == CLOSE)

    # for who looks inside --------------------------------------------------------------

    @property
    def _pool(self) -> "list[PoolProcess]":
        """The child processes that serve it now, or would: ``pid``, ``host``, ``is_alive()``."""
        return self._crew.processes(self._processes)

    @property
    def _cache(self) -> dict[int, None]:
        """As many keys as tasks are unfinished: programs submit no more while there are many."""
        return dict.fromkeys(range(self._crew.unfinished()))

    @property
    def _taskqueue(self) -> TaskQueue:
        return TaskQueue(self)

    def _unfinished(self) -> int:
        return self._crew.unfinished()

    _get_tasks = Batches

    @staticmethod
    def _guarded_task_generation(
        result_job: object,  # noqa: ARG004 - the standard library's signature
        func: Callable[..., Any],
        iterable: Iterable[Any],
    ) -> Generation:
        return Generation(func, iterable)

    def _repopulate_pool(self) -> None:
        """Do nothing: workers replace their children by themselves, and at once."""

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    def __del__(self, _warn: Callable[..., None] = warnings.warn, _run: str = RUN) -> None:
        if self._state == _run:
            text = f"unclosed running multiprocessing pool {self!r}"
            _warn(text, ResourceWarning, source=self, stacklevel=2)
            self._crew.abandon()
            self._callbacks.stop()

    def __repr__(self) -> str:
        kind = type(self)
        size = getattr(self, "_processes", 0)
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} pool_size={size}>"

    def __reduce__(self) -> Any:
        raise NotImplementedError("a pool can't be pickled or passed to another process")

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")


def _name_function(error: Exception, func: Callable[..., Any]) -> None:
    error.add_note(f"multihost: while submitting {label_of(func)}")
