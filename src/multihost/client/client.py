"""The blocking client: the native API's everyday face.

A thin shell: it puts what the async core does behind plain calls. Users'
iterables are pulled and results are decoded in the calling thread.
"""

import atexit
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from multihost.client import embedded
from multihost.client.arrivals import BlockingArrivals
from multihost.client.commands import command_stream
from multihost.client.dispatcher import Dispatcher
from multihost.client.forking import forget_in_child
from multihost.client.future import Future, remote_traceback
from multihost.client.handles import before_exit
from multihost.client.listings import Listings, Row
from multihost.client.mapping import WINDOW, MapRun, returned, style_for, tuples
from multihost.client.options import EMBEDDED_PATIENCE_S, PATIENCE_S, first_spec, with_options
from multihost.client.outcomes import Raw, decode
from multihost.client.packing import archives_of, as_payload, pack_call
from multihost.client.submitter import Submitter
from multihost.core.job import Style
from multihost.errors import MultihostError
from multihost.runtime.config import Target, find_target
from multihost.runtime.endings import settle_with
from multihost.runtime.quota import usable_cores

if TYPE_CHECKING:
    from multihost.client.queues import Queue
    from multihost.client.shipping import Ship


class Client:
    """A connection to a server, for any number of threads.

    Unnamed work lives with the client: it is cancelled when the client closes, or
    has been gone for half a minute. Named work outlives it.
    """

    def __init__(
        self,
        url: str | Target | None = None,
        authkey: bytes | str | None = None,
        *,
        patience_s: float | None = PATIENCE_S,
        ship: "Ship | None" = None,
        output: bool = True,
    ) -> None:
        """Connect to ``url``, else to the server the environment names, else to an embedded one.

        ``url`` may be a join string, which has the key in it. ``patience_s``: how long to
        try to come back to a server that is gone. ``ship``: packages and modules that what is
        submitted imports, by name, as module or as path; workers get them from here.
        ``output``: whether what tasks print appears here. Raises ServerNotFound,
        AuthenticationError (UntrustedServer if it is the server that can't prove itself),
        ConfigError, or ShipError.
        """
        self._shipped = archives_of(ship)
        found = find_target(url, authkey)
        self.is_embedded = found is None
        if found is None:
            find, patience_s = embedded.start().target, EMBEDDED_PATIENCE_S
        else:
            find = partial(Target, *found)
        # Late, so that it overlaps with the start of an embedded server.
        from multihost.client.opening import open_session

        self._bridge, self.session, self.target = open_session(find, patience_s)
        self.listings = Listings(self.target)
        """What the server knows of all jobs, queues and workers."""
        self.dispatcher = Dispatcher("multihost-callbacks")
        self._spec = first_spec(self._shipped, output=output)
        self._submitter = Submitter(self.session, self._spec, self._shipped, is_watched=True)
        self._owner: Client | None = None
        _open_clients.add(self)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.session.peer.url

    def slots(self) -> int:
        """Tasks that can run at once: slots of all workers, else cores this program may use."""
        try:
            slots = 0 if self.is_embedded else self.listings.slots()
        except MultihostError:
            slots = 0
        return slots or usable_cores()

    @property
    def is_usable(self) -> bool:
        """Whether work can be submitted: not closed, not forked, the server not given up."""
        return not self._bridge.is_stopped and self.session.failure is None

    def options(self, **options: Any) -> "Client":
        """This client with other options for what it submits.

        ``queue, priority, timeout_s, delay_s, ttl_s, max_attempts, tags, host,
        label, unique_key, retention_s, output``.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._spec = with_options(self._spec, options)
        view._submitter = Submitter(self.session, view._spec, self._shipped, is_watched=True)
        view._owner = self
        return view

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run ``fn(*args, **kwargs)`` on some worker.

        Returns at once; ``Future.wait_stored`` waits for the server's acknowledgement.
        Raises PayloadError when function or arguments can't be pickled.
        """
        data, is_bound = pack_call(args, kwargs, getattr(fn, "__qualname__", ""))
        stream = self._submitter.call_stream(fn, is_bound=is_bound)
        future = Future(self.dispatcher)
        future.submit_to(stream, as_payload(data))
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
    ) -> "MapIterator":
        """Iterate over ``fn`` of every input, in constant memory however many there are.

        Inputs are pulled lazily, at most ``window`` ahead of the results taken.
        ``ordered=False`` yields results as they come. ``chunksize`` inputs travel as
        one task. An input that fails raises in its place, and ``next`` goes on after it; a
        ``for`` loop ends there, unless ``return_exceptions`` (for a chunksize of 1): then
        its error is its result. With ``name`` the work is lasting: the same map run again, after
        this program died, yields what is finished and does only the rest; it raises
        InputChanged when function or inputs are not the same.
        """
        style = style_for(chunksize, len(iterables))
        stream = self._submitter.own_stream(fn, style, name=name)
        arrivals = BlockingArrivals(is_ordered=ordered)
        run = MapRun(
            *(stream, arrivals, tuples(iterables), window, chunksize),
            returns_errors=return_exceptions,
        )
        return MapIterator(run, arrivals)

    def command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
    ) -> Future:
        """Run a command on some worker; the result is its exit code."""
        stream, payload = command_stream(
            self.session, self._spec, argv, env=env, cwd=cwd, stdin=stdin
        )
        future = Future(self.dispatcher)
        future.submit_to(stream, as_payload(payload))
        self.session.post(stream.seal)
        return future

    def jobs(self, state: str | None = None, limit: int = 100) -> list[Row]:
        """The server's jobs, newest first: numbers, names, states, counts."""
        return self.listings.jobs(state, limit)

    def cancel(self, job: int | str) -> None:
        """Cancel what is unfinished of a job, by its number or name."""
        self.listings.cancel(job)

    def queue(self, name: str, maxsize: int = 0, *, confirm: str | None = None) -> "Queue":
        """The lasting queue of this name, made if there is none; see ``Queue``."""
        from multihost.client.queues import Queue

        return Queue(maxsize, name=name, confirm=confirm, client=self._owner or self)

    def close(self, *, is_clean: bool = True) -> None:
        """End the session: unfinished unnamed work is cancelled. Idempotent.

        What the calling thread has taken from queues is done with if this ``is_clean``;
        what other threads still hold is for others.
        """
        if self._owner is not None:
            self._submitter.close("the client's view was closed")
            return
        _open_clients.discard(self)
        if not self._bridge.is_stopped:
            keeper = self.session.calls.threads.existing() if is_clean else None
            self._bridge.call(self.session.close(keeper))
            self._bridge.stop()
            self.session.printer.stop()
        self.dispatcher.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(is_clean=kind is None)

    def __repr__(self) -> str:
        state = "" if self.is_usable else " closed"
        return f"<multihost.Client {self.url}{state}>"


class MapIterator:
    """Results of ``Client.map``. An error takes its input's place; iteration may go on after it."""

    def __init__(self, run: MapRun, arrivals: BlockingArrivals) -> None:
        """Iterate over the outcomes of ``run``."""
        self._run = run
        self._arrivals = arrivals
        self._is_chunked = run.stream.spec.style is not Style.CALL
        self._chunk: deque[Any] = deque()
        self._is_closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result; raises TimeoutError (multiprocessing's) after ``timeout`` seconds."""
        while not self._chunk:
            self._run.fill()
            try:
                item = self._arrivals.take(timeout)
            except StopIteration:
                self.close()
                raise
            try:
                is_ok, value = decode(*item, remote_traceback) if isinstance(item, Raw) else item
                chunk = deque(value) if is_ok and self._is_chunked else None
            except BaseException:  # interrupted
                self._arrivals.put_back(item)
                raise
            if not is_ok:
                return returned(value, item, self._run)
            if chunk is None:
                return value
            self._chunk = chunk
        value = self._chunk[0]
        del self._chunk[0]
        return value

    def close(self) -> None:
        """Stop: what is unfinished of an unnamed map is cancelled, a named one goes on."""
        if not self._is_closed:
            self._is_closed = True
            stream = self._run.stream
            if stream.session.failure is None and stream.session.is_ours:
                stream.session.post(stream.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            self.close()


def connect(
    url: str | None = None, authkey: bytes | str | None = None, *, ship: "Ship | None" = None
) -> Client:
    """A client of the server at ``url``, else of the configured one, else of an embedded one.

    ``url`` may be a join string ('multihost key join'), which needs no ``authkey``. ``ship``:
    local code that workers get from here; see ``Client``.
    """
    return Client(url, authkey, ship=ship)


_open_clients: set[Client] = set()
_shared: dict[tuple[object, ...], Client] = {}
_shared_lock = threading.Lock()


def shared_client(url: str | Target | None = None, authkey: bytes | str | None = None) -> Client:
    """The client that this process's pools and executors share, one for each server."""
    key = (url, authkey, find_target(url, authkey))
    with _shared_lock:
        client = _shared.get(key)
        if client is None or not client.is_usable:
            if client is not None:
                client.close()
            client = _shared[key] = Client(url, authkey)
        return client


def open_clients() -> list[Client]:
    """Those of this process that can be used."""
    return [client for client in list(_open_clients) if client.is_usable]


def client_of(store: bytes, target: Target | None) -> Client:
    """A client of the server with this store, else of ``target``, else the shared one."""
    for client in open_clients():
        if client.session.store == store:
            return client
    if target is None:
        return shared_client()
    return shared_client(target)


def _work_ended(is_clean: bool) -> None:  # noqa: FBT001 - what settlers are called with
    for client in list(_open_clients):
        if client.is_usable:
            client.session.calls.threads.work_ended(is_clean=is_clean)


def _forget() -> None:
    """In a forked child: the connections are the parent's."""
    global _shared_lock  # noqa: PLW0603 - the parent may have held it
    _shared_lock = threading.Lock()
    _shared.clear()
    _open_clients.clear()


def _close_all() -> None:
    """At exit: say goodbye, so that the server need not wait for us."""
    for settle in before_exit:
        settle()
    # The interpreter notes here what ended the program, if that was an exception.
    has_failed = getattr(sys, "last_value", None) is not None
    # Who presses Ctrl-C once more waits for no goodbye.
    with contextlib.suppress(KeyboardInterrupt):
        for client in list(_open_clients):
            client.session.calls.is_exiting = True
            client.close(is_clean=not has_failed)


forget_in_child(_forget)
settle_with(_work_ended)
atexit.register(_close_all)
