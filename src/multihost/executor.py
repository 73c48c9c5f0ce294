"""``concurrent.futures.Executor``, on every machine.

Its futures are real ``concurrent.futures.Future``s. What a
``ProcessPoolExecutor`` promises holds: pending work is finished when the
interpreter exits, an initializer that fails breaks the executor. What breaks a
``ProcessPoolExecutor`` for everybody, a process that dies, costs only the task
that keeps killing its processes.
"""

import concurrent.futures
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from multihost.client.arguments import text, whole
from multihost.client.client import shared_client
from multihost.client.crew import Crew
from multihost.client.dispatcher import Dispatcher
from multihost.client.forking import forget_in_child
from multihost.client.future import RunningFuture
from multihost.client.outcomes import Decoded, decode, failure_of
from multihost.client.packing import as_payload, pack_call, pack_items
from multihost.core.job import DEFAULT_QUEUE, Style
from multihost.core.outcome import Ending
from multihost.errors import MissingModule, PayloadError, SealError, TaskCrashed, UnreadableResult

if TYPE_CHECKING:
    from multihost.client.shipping import Ship

_executors: "weakref.WeakSet[Executor]" = weakref.WeakSet()
_is_exiting = False


class Executor(concurrent.futures.Executor):
    """Runs calls on the server's workers, at most ``max_workers`` at once over all machines.

    Without ``max_workers`` every slot may be used. ``name`` makes the work lasting;
    ``queue``, ``url`` and ``authkey`` choose where it goes. ``mp_context`` is
    accepted and ignored: processes always start afresh. What tasks print appears
    here, unless ``output`` is False. ``ship`` sends local packages and modules that the
    tasks import; see ``Client``.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        url: str | None = None,
        authkey: bytes | str | None = None,
        output: bool = True,
        ship: "Ship | None" = None,
    ) -> None:
        """Connect, and check the arguments as the standard library does."""
        if max_workers is not None:
            max_workers = whole("max_workers", max_workers)
            if max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        client = shared_client(url, authkey)
        self._max_workers = max_workers if max_workers is not None else client.slots()
        self._mp_context = mp_context
        self._has_initializer = initializer is not None
        self._broken = ""
        """Why no task can run any more."""
        self._is_shut = False
        self._lock = threading.Lock()
        self._crew = Crew(
            client,
            width=max_workers,
            initializer=initializer,
            initargs=initargs,
            max_tasks=max_tasks_per_child,
            name=None if name is None else text("name", name),
            queue=text("queue", queue),
            shows_output=output,
            ship=ship,
            wants_starts=True,
            is_watched=True,
        )
        self._callbacks = Dispatcher("multihost-executor-callbacks")
        _executors.add(self)

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> "concurrent.futures.Future[Any]":
        """Have ``fn(*args, **kwargs)`` computed; what can't be pickled fails the future.

        Raises RuntimeError after ``shutdown``, BrokenProcessPool when an initializer failed.
        """
        return self._submit(fn, Style.CALL, lambda: pack_call(args, kwargs))

    def _submit(
        self, fn: Callable[..., Any], style: Style, pack: Callable[[], tuple[bytes, bool]]
    ) -> "ExecutorFuture":
        with self._lock:
            self._check_usable()
            future = ExecutorFuture(self, self._callbacks)
            try:
                data, is_bound = pack()
                stream = self._crew.stream(fn, style, is_bound=is_bound)
            except Exception as error:  # whatever pickling raises; it is the future's
                self._crew.post(lambda error=error: future.refuse(0, error))  # type: ignore[misc]
                return future
            future.submit_to(stream, as_payload(data))
            return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Results in the order of the inputs; ``timeout`` (seconds) is for all of them together.

        The inputs are submitted at once, ``chunksize`` of them as one task.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        end_at = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            futures = [self.submit(fn, *args) for args in zip(*iterables, strict=False)]
            return _results(futures, end_at)
        calls = zip(*iterables, strict=False)
        futures = []
        while chunk := list(itertools.islice(calls, chunksize)):
            first = len(futures) * chunksize
            futures.append(
                self._submit(
                    fn,
                    Style.STARMAP,
                    lambda chunk=chunk, first=first: pack_items(chunk, first),  # type: ignore[misc]
                )
            )
        return _flat(_results(futures, end_at))

    def shutdown(
        self,
        wait: bool = True,  # noqa: FBT001, FBT002 - as in the standard library
        *,
        cancel_futures: bool = False,
    ) -> None:
        """Take no more work; ``wait`` until all is finished, or cancel what has not started."""
        with self._lock:
            was_shut, self._is_shut = self._is_shut, True
        if cancel_futures:
            self._cancel_pending()
        if wait:
            self._finish()
        elif not was_shut:
            thread = threading.Thread(
                target=self._finish, name="multihost-executor-end", daemon=True
            )
            thread.start()

    def _finish(self) -> None:
        """Wait for all work, then end the jobs."""
        self._crew.wait_idle()
        self._callbacks.join()
        self._callbacks.stop()
        self._crew.close("its executor was shut down", is_sealing=True)

    def _cancel_pending(self) -> None:
        """Cancel what is not running. As many as may run at once are left alone, oldest first."""
        left_alone = self._max_workers
        for stream in self._crew.streams():
            futures = stream.receivers()
            cancelled = {future for future in futures[left_alone:] if future.cancel_here()}
            left_alone = max(0, left_alone - len(futures))
            if cancelled:
                self._crew.post(lambda stream=stream, some=cancelled: stream.cancel(some))  # type: ignore[misc]

    def _check_usable(self) -> None:
        if self._broken:
            raise BrokenProcessPool(self._broken)
        if _is_exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _notice_unrunnable(self, payload: bytes) -> None:
        """If an initializer failed, no task of this executor can ever run."""
        failure = failure_of(Ending.UNRUNNABLE, payload)
        if self._has_initializer and "initializer" in failure.message and not self._broken:
            reason = f"{failure.message} ({failure.type_name})"
            self._broken = f"a process of this executor could not start: {reason}"
            logger = logging.getLogger("concurrent.futures")
            logger.critical("%s\n%s", self._broken, failure.traceback)
            self._crew.close(self._broken)

    def __del__(self) -> None:
        # Futures under way hold their executor: nothing is unfinished here.
        if not getattr(self, "_is_shut", True):
            self._crew.abandon()
            self._callbacks.stop()


class ExecutorFuture(RunningFuture):
    """A future whose errors are those of ``concurrent.futures``."""

    def __init__(self, executor: Executor, callbacks: Dispatcher) -> None:
        """Wait for a call of ``executor``."""
        super().__init__(callbacks)
        self._executor: Executor | None = executor

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """Note the outcome; an initializer that failed breaks the executor."""
        if ending is Ending.UNRUNNABLE and self._executor is not None:
            self._executor._notice_unrunnable(payload)
            if self._executor._broken:
                self.refuse(position, BrokenProcessPool(self._executor._broken))
                return
        super().settle(position, ending, payload)

    def _end(self, *args: Any, **kwargs: Any) -> None:
        self._executor = None
        super()._end(*args, **kwargs)

    def refuse(self, position: int, error: BaseException) -> None:
        """Note that there will be no outcome."""
        if self._executor is not None and self._executor._broken:
            error = BrokenProcessPool(self._executor._broken)
        super().refuse(position, _as_standard(error))

    def _decode(self, ending: Ending, payload: bytes) -> Decoded:
        is_ok, value = decode(ending, payload, _remote_traceback)
        if not is_ok:
            value = _as_standard(value, is_broken=ending is Ending.UNRUNNABLE)
        return Decoded(is_ok, value)


def _as_standard(error: BaseException, *, is_broken: bool = False) -> BaseException:
    """The exception that ``concurrent.futures`` would have: a broken pool, or pickle's own."""
    standard: BaseException
    if isinstance(error, (TaskCrashed, UnreadableResult)):
        standard = BrokenProcessPool(str(error))
    elif is_broken and not isinstance(error, MissingModule | SealError):
        standard = BrokenProcessPool(f"the worker could not even begin the call: {error!r}")
    elif type(error).__name__ == "MaybeEncodingError":
        standard = PayloadError(str(error), "result")
    else:
        return error
    standard.__cause__ = error
    return standard


def _remote_traceback(text: str) -> Exception:
    from concurrent.futures import process

    return process._RemoteTraceback(text)  # type: ignore[arg-type]


def _results(futures: list[Any], end_at: float | None) -> Iterator[Any]:
    """Results in order; no reference to a result or future is kept, and the rest is cancelled."""

    def generate() -> Iterator[Any]:
        try:
            futures.reverse()
            while futures:
                yield _take(futures.pop(), end_at)
        finally:
            for future in futures:
                future.cancel()

    return generate()


def _take(future: Any, end_at: float | None) -> Any:
    try:
        try:
            return future.result(None if end_at is None else end_at - time.monotonic())
        finally:
            future.cancel()
    finally:
        # The exception's traceback refers to this frame: break the cycle.
        del future


def _flat(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _finish_all() -> None:
    """At exit, before threads are joined: finish what was submitted."""
    global _is_exiting  # noqa: PLW0603 - the interpreter ends once
    _is_exiting = True
    for executor in list(_executors):
        executor._finish()


forget_in_child(_executors.clear)
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
