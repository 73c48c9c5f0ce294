"""The asyncio client: the same verbs, awaited.

It stands on the same core as the blocking client, without the thread: sessions,
streams and outcomes live on the caller's own loop, and so results are decoded
there, when they are awaited.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multihost.client import asyncio_synchronizers, embedded
from multihost.client.arrivals import Arrivals
from multihost.client.asyncio_queues import AsyncQueue
from multihost.client.commands import command_stream
from multihost.client.future import remote_traceback
from multihost.client.listings import Listings, Row
from multihost.client.mapping import WINDOW, MapRun, returned, style_for, tuples
from multihost.client.options import EMBEDDED_PATIENCE_S, PATIENCE_S, first_spec, with_options
from multihost.client.outcomes import Raw, decode, for_iteration
from multihost.client.packing import Bulk, archives_of, as_payload, pack_call
from multihost.client.session import Session
from multihost.client.stream import Stream
from multihost.client.submitter import Submitter
from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending
from multihost.runtime.config import Target, find_target
from multihost.wire.act import Kind

if TYPE_CHECKING:
    from multihost.client.shipping import Ship


class AsyncFuture(asyncio.Future[Any]):
    """A task's result to come, awaitable. Cancelling it cancels the task, even one that runs."""

    def __init__(self, stream: Stream) -> None:
        """Wait for a task of ``stream``."""
        super().__init__(loop=stream.session.loop)
        self._stream: Stream | None = stream
        self._stored: asyncio.Future[None] = stream.session.loop.create_future()

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task; False when it has ended."""
        if not super().cancel(msg):
            return False
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.session.post(lambda: stream.cancel({self}))
        return True

    async def wait_stored(self) -> None:
        """Wait until the server keeps the task; raises why not, if it was refused."""
        await asyncio.shield(self._stored)
        error = self.exception() if self.done() and not self.cancelled() else None
        if error is not None and not self._was_settled:
            raise error

    _was_settled = False

    # Watcher ---------------------------------------------------------------------------

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """Take the outcome."""
        self._was_settled = True
        if not self.done():
            is_ok, value = decode(ending, payload, remote_traceback)
            if is_ok:
                self.set_result(value)
            else:
                self.set_exception(for_iteration(value))
        self._know()

    def refuse(self, position: int, error: BaseException) -> None:
        """There will be no outcome."""
        if not self.done():
            self.set_exception(for_iteration(error))
        self._know()

    def stored(self, position: int) -> None:
        """The server keeps the task."""
        if not self._stored.done():
            self._stored.set_result(None)

    def started(self, position: int) -> None:
        """The task was given to a worker."""

    def _know(self) -> None:
        self._stream = None
        if not self._stored.done():
            self._stored.set_result(None)


class AsyncClient:
    """A connection to a server, for one event loop. See ``Client`` for the semantics."""

    def __init__(
        self,
        session: Session,
        target: Target,
        spec: JobSpec | None = None,
        shipped: Sequence[Bulk] = (),
    ) -> None:
        """Use an open session with ``target``; ``AsyncClient.connect`` makes one."""
        self.session = session
        self._target = target
        self._listings = Listings(target)
        self._shipped = shipped
        self._spec = spec if spec is not None else first_spec(shipped, output=True)
        self._submitter = Submitter(session, self._spec, shipped, is_watched=True)

    @classmethod
    async def connect(
        cls,
        url: str | None = None,
        authkey: bytes | str | None = None,
        *,
        patience_s: float | None = PATIENCE_S,
        ship: "Ship | None" = None,
        output: bool = True,
    ) -> Self:
        """Connect to ``url``, else to the server the environment names, else to an embedded one.

        ``ship``: local code that workers get from here; see ``Client``. ``output``: whether
        what tasks print appears here.
        """
        shipped = await asyncio.to_thread(archives_of, ship) if ship is not None else ()
        target = find_target(url, authkey)
        if target is None:
            patience_s = EMBEDDED_PATIENCE_S
            target = await asyncio.to_thread(lambda: embedded.start().target())
        session = await Session(target, patience_s).connect()
        return cls(session, target, first_spec(shipped, output=output), shipped)

    def options(self, **options: Any) -> "AsyncClient":
        """This client with other options for what it submits; see ``Client.options``."""
        spec = with_options(self._spec, options)
        return type(self)(self.session, self._target, spec, self._shipped)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncFuture:
        """Run ``fn(*args, **kwargs)`` on some worker; await the future for its result."""
        data, is_bound = pack_call(args, kwargs, getattr(fn, "__qualname__", ""))
        stream = self._submitter.call_stream(fn, is_bound=is_bound)
        future = AsyncFuture(stream)
        stream.append(as_payload(data), future)
        self._submitter.called(stream)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        ordered: bool = True,
        window: int = WINDOW,
        chunksize: int = 1,
        name: str | None = None,
        return_exceptions: bool = False,
    ) -> "AsyncMapIterator":
        """Iterate asynchronously over ``fn`` of every input; see ``Client.map``."""
        style = style_for(chunksize, len(iterables))
        stream = self._submitter.own_stream(fn, style, name=name)
        arrivals = _AsyncArrivals(is_ordered=ordered)
        run = MapRun(
            *(stream, arrivals, tuples(iterables), window, chunksize),
            returns_errors=return_exceptions,
        )
        return AsyncMapIterator(run, arrivals)

    def command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
    ) -> AsyncFuture:
        """Run a command on some worker; the result is its exit code."""
        stream, payload = command_stream(
            self.session, self._spec, argv, env=env, cwd=cwd, stdin=stdin
        )
        future = AsyncFuture(stream)
        stream.append(as_payload(payload), future)
        self.session.post(stream.seal)
        return future

    async def queue(self, name: str, maxsize: int = 0, *, confirm: str | None = None) -> AsyncQueue:
        """The lasting queue of this name, made if there is none; see ``Queue``."""
        return await AsyncQueue.open(self.session.calls, name, maxsize, confirm)

    async def lock(self, name: str) -> asyncio_synchronizers.AsyncLock:
        """The lock of this name, made if there is none; see ``Lock``."""
        return await asyncio_synchronizers.AsyncLock.open(self.session.calls, Kind.LOCK, name)

    async def semaphore(
        self, name: str, value: int = 1, *, is_bounded: bool = False
    ) -> asyncio_synchronizers.AsyncSemaphore:
        """The semaphore of this name, made with ``value`` if there is none; see ``Semaphore``."""
        kind = Kind.BOUNDED_SEMAPHORE if is_bounded else Kind.SEMAPHORE
        return await asyncio_synchronizers.AsyncSemaphore.open(
            self.session.calls, kind, name, value
        )

    async def condition(self, name: str) -> asyncio_synchronizers.AsyncCondition:
        """The condition of this name, made if there is none; see ``Condition``."""
        return await asyncio_synchronizers.open_condition(self.session.calls, name)

    async def event(self, name: str) -> asyncio_synchronizers.AsyncEvent:
        """The event of this name, made if there is none; see ``Event``."""
        return await asyncio_synchronizers.AsyncEvent.open(self.session.calls, Kind.EVENT, name)

    async def barrier(self, name: str, parties: int) -> asyncio_synchronizers.AsyncBarrier:
        """The barrier of this name, made for ``parties`` if there is none; see ``Barrier``."""
        return await asyncio_synchronizers.AsyncBarrier.open(
            self.session.calls, Kind.BARRIER, name, parties
        )

    async def jobs(self, state: str | None = None, limit: int = 100) -> list[Row]:
        """The server's jobs, newest first; see ``Client.jobs``."""
        return await asyncio.to_thread(self._listings.jobs, state, limit)

    async def cancel(self, job: int | str) -> None:
        """Cancel what is unfinished of a job, by its number or name."""
        await asyncio.to_thread(self._listings.cancel, job)

    async def close(self) -> None:
        """End the session: unfinished unnamed work is cancelled.

        What the calling task has taken from queues is done with, what others hold is for others.
        """
        await self._close(is_clean=True)

    async def _close(self, *, is_clean: bool) -> None:
        keeper = self.session.calls.tasks.existing() if is_clean else None
        await self.session.close(keeper)
        await asyncio.to_thread(self.session.printer.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close(is_clean=kind is None)


class AsyncMapIterator:
    """Results of ``AsyncClient.map``. An error takes its input's place."""

    def __init__(self, run: MapRun, arrivals: "_AsyncArrivals") -> None:
        """Iterate over the outcomes of ``run``."""
        self._run = run
        self._arrivals = arrivals
        self._is_chunked = run.stream.spec.style is not Style.CALL
        self._chunk: deque[Any] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._chunk:
            self._run.fill()
            item = await self._arrivals.take()
            if item is None:
                await self.aclose()
                raise StopAsyncIteration
            is_ok, value = decode(*item, remote_traceback) if isinstance(item, Raw) else item
            if not is_ok:
                return returned(value, item, self._run)
            if not self._is_chunked:
                return value
            self._chunk.extend(value)
        return self._chunk.popleft()

    async def aclose(self) -> None:
        """Stop: what is unfinished of an unnamed map is cancelled, a named one goes on."""
        self._run.stream.close()


class _AsyncArrivals(Arrivals):
    """Arrivals that one coroutine waits for."""

    def __init__(self, *, is_ordered: bool) -> None:
        super().__init__(is_ordered=is_ordered)
        self._came = asyncio.Event()

    def wake(self) -> None:
        self._came.set()

    async def take(self) -> Any:
        """The next outcome, or None when all have been taken."""
        while True:
            self._came.clear()
            item = self.pop()
            if item is not None or self.is_exhausted:
                return item
            await self._came.wait()
