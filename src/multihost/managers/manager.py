"""``BaseManager`` and ``SyncManager``: the standard library's, with queues that last.

``start`` runs the manager's objects in a process of its own where it may: a
fork of this one, so that lambdas and whatever the program holds are there. With
a server configured for this program they are served by threads of the program
itself, so that nothing but the program's own code is needed anywhere else.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import connection, process, util
from multiprocessing import managers as standard
from types import TracebackType
from typing import Any, Self

from multihost.managers import endings, proxies
from multihost.managers.hosting import Server, may_be_queue
from multihost.managers.listening import TLS, is_secured
from multihost.managers.proxies import AutoProxy, ours
from multihost.managers.registry import Registry
from multihost.managers.wires import connect as connect_wire
from multihost.runtime import config
from multihost.runtime.address import is_loopback, parse_url

_standard: Any = standard
_State: Any = _standard.State
ProcessError = multiprocessing.ProcessError


class BaseManager(standard.BaseManager):
    """A manager; subclass it and ``register`` what it makes.

    A registered function that returns a ``queue.Queue`` makes a durable queue of the
    registered name, shared by all clients. Everything else is as in the standard library.
    """

    _Server = Server
    _registry: Any
    _state: Any
    _serializer: str
    _authkey: Any
    _process: Any = None
    _shutdown_timeout: float

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        """Describe a manager at ``address``; ``start``, ``connect`` or ``get_server`` follow."""
        super().__init__(address, authkey, serializer, ctx)
        self._shutdown_timeout = shutdown_timeout
        self._address: Any = address
        if serializer == "pickle":
            self._Client: Any = connect_wire

    @classmethod
    def register(  # noqa: PLR0917 - the standard library's signature
        cls,
        typeid: str,
        callable: Callable[..., object] | None = None,  # noqa: A002 - the standard library's signature
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,  # noqa: FBT001, FBT002 - as above
    ) -> None:
        """Let managers of this class make objects, by the name ``typeid``."""
        proxytype = AutoProxy if proxytype is None else ours(proxytype)
        if "_registry" not in cls.__dict__:
            cls._registry = Registry(cls._registry)
        super().register(typeid, callable, proxytype, exposed, method_to_typeid, create_method)

    def connect(self) -> None:
        """Connect to the manager at the address; raises AuthenticationError, OSError."""
        try:
            wire = self._Client(self._address, authkey=self._authkey)
        except ConnectionRefusedError as error:
            text = (
                f"no manager listens at {self._address!r}: {error.strerror}; start it there first, "
                "or correct the address"
            )
            raise ConnectionRefusedError(error.errno, text) from None
        try:
            _standard.dispatch(wire, None, "dummy")
        finally:
            wire.close()
        self._state.value = _State.STARTED

    def get_server(self) -> Any:
        """A server to run in this process, with ``serve_forever``."""
        self._check_initial()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        """Start serving this manager's objects."""
        self._check_initial()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        registry = self._registry
        place = _choose_place()
        address = _reachable_address() if self._address is None and place is Thread else None
        self._process = place(
            type(self).__name__,
            type(self)._Server,
            (registry, self._address or address, self._authkey, self._serializer),
            initializer,
            tuple(initargs),
        )
        self._address = self._process.start()
        self._state.value = _State.STARTED
        is_durable = is_secured(self._address) or (
            self._serializer == "pickle" and any(map(may_be_queue, registry.values()))
        )
        self._end = util.Finalize(
            self,
            _finish,
            args=(
                *(self._process, self._address, self._authkey, self._state),
                *(self._Client, self._shutdown_timeout, is_durable),
            ),
            kwargs={"keeps": True},
            exitpriority=0,
        )
        self.shutdown = self._shut_down  # type: ignore[assignment]

    def _shut_down(self) -> None:
        """End the manager; its queues go with it."""
        self._finish(keeps=False)

    def _finish(self, *, keeps: bool) -> None:
        settings = self._end._kwargs  # type: ignore[attr-defined]
        if settings is not None:  # else it has ended before, and again is fine
            settings["keeps"] = keeps
        self._end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the manager; after an error its queues stay for the next start."""
        if kind is None or not hasattr(self, "_end"):
            self.shutdown()
        else:
            self._finish(keeps=True)

    def __enter__(self) -> Self:
        """Start, unless started."""
        super().__enter__()
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Its starter's alone in the standard library's; there a forked child has it all the same.
        if self._state.value != _State.STARTED:
            raise TypeError(
                f"a {type(self).__name__} that is not started can't be passed to another process; "
                "start() or connect() it first"
            )
        known = {*vars(BaseManager(self._address)), "_end", "_process", "shutdown"}
        added = {name: value for name, value in vars(self).items() if name not in known}
        basics = (self._address, bytes(self._authkey), self._serializer)
        return _connected, (type(self), basics, added)

    def _check_initial(self) -> None:
        if self._state.value == _State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == _State.SHUTDOWN:
            raise ProcessError("Manager has shut down")


def _connected(kind: Any, basics: tuple[Any, bytes, str], added: dict[str, Any]) -> Any:
    """In another process: what a manager there is to its clients; ending it is its starter's."""
    manager = kind.__new__(kind)
    BaseManager.__init__(manager, *basics)
    vars(manager).update(added)
    manager._state.value = _State.STARTED
    manager.shutdown = _nothing
    return manager


def _nothing() -> None:
    """Do nothing: as a fork's copy of a manager, which is another process's to end."""


def _finish(  # noqa: PLR0917 - arguments of a finalizer
    place: Any,
    address: Any,
    authkey: bytes,
    state: Any,
    client: Any,
    timeout_s: float,
    is_durable: bool,  # noqa: FBT001 - as above
    *,
    keeps: bool,
) -> None:
    """End a manager's server and wait for it; force it after a while."""
    if place.is_alive():
        with contextlib.suppress(Exception):  # it may be ending by itself
            wire = client(address, authkey=authkey)
            try:
                kwds = {"keeps": keeps} if is_durable else {}
                _standard.dispatch(wire, None, "shutdown", (), kwds)
            finally:
                wire.close()
        place.join(timeout_s + (STOPPING_S if is_durable else 0.0))
        if place.is_alive():
            place.terminate()
            place.join(timeout_s)
            if place.is_alive():
                place.kill()
                place.join()
    state.value = _State.SHUTDOWN
    _standard.BaseProxy._address_to_local.pop(address, None)
    endings.forget(address)


STOPPING_S = 5.0
"""How long a front may take to store what has come."""


# --- where it is served --------------------------------------------------------------------


class Fork:
    """A fork of this process; ends when this one does."""

    def __init__(
        self,
        name: str,
        server: Callable[..., Server],
        arguments: tuple[Any, ...],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        """Serve what ``server(*arguments)`` makes, after ``initializer``."""
        self._reader, self._writer = connection.Pipe(duplex=False)
        self._process = multiprocessing.get_context("fork").Process(
            target=_run, args=(self._writer, server, arguments, initializer, initargs)
        )
        self._process.name = f"{name}-{self._process.name.rpartition('-')[2]}"

    def start(self) -> Any:
        """Start, and the address it listens at; raises what went wrong there."""
        self._process.start()
        self._writer.close()
        try:
            is_well, told = self._reader.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            raise ProcessError(f"the manager's process ended with exit code {code}") from None
        finally:
            self._reader.close()
        if not is_well:
            self._process.join()
            raise told
        return told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def _run(
    writer: Any,
    make: Callable[..., Server],
    arguments: tuple[Any, ...],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> None:
    """The child's work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*initargs)
    try:
        server = make(*arguments)
    except BaseException as error:
        writer.send((False, error))
        raise SystemExit(1) from None
    starter = process.parent_process()
    assert starter is not None
    threading.Thread(target=_follow, args=(starter, server), daemon=True).start()
    try:
        server.start()
    except Exception as error:
        writer.send((False, error))
        server.stop()
        raise SystemExit(1) from None
    writer.send((True, server.address))
    writer.close()
    signal.signal(signal.SIGTERM, lambda *_: server.stop_event.set())
    server.stop_event.wait()
    server.stop()


def _follow(starter: Any, server: Server) -> None:
    """End when the program that started the manager is gone, however it ended."""
    if hasattr(os, "pidfd_open"):
        # The standard library's sentinel is a pipe that other children of the program hold, too.
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(starter.pid)
            if os.getppid() == starter.pid:
                connection.wait([descriptor])
            server.stop_event.set()
            return
    starter.join()
    server.stop_event.set()


class Thread:
    """Threads of this program."""

    name = ""
    exitcode: int | None = None

    def __init__(
        self,
        name: str,
        server: Callable[..., Server],
        arguments: tuple[Any, ...],
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        """Serve what ``server(*arguments)`` makes, after ``initializer``."""
        self.name = name
        self.pid = os.getpid()
        self._make = partial(server, *arguments)
        self._initialize = partial(initializer, *initargs) if initializer is not None else None
        self._server: Server | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True, name=name)

    def start(self) -> Any:
        """Start, and the address it listens at."""
        if self._initialize is not None:
            with _own_signals():
                self._initialize()
        self._server = self._make()
        self._server.start()
        self._thread.start()
        return self._server.address

    def _wait(self) -> None:
        assert self._server is not None
        self._server.stop_event.wait()
        self._server.stop()
        self.exitcode = 0

    def is_alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    def terminate(self) -> None:
        """Have it end."""
        assert self._server is not None
        self._server.stop_event.set()

    kill = terminate


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Undo what an initializer does to this program's signals: it means a process of its own."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _choose_place() -> type[Fork] | type[Thread]:
    if sys.platform == "win32" or config.find_target() is not None:
        return Thread
    return Fork


def _reachable_address() -> Any:
    """Where workers of the configured server reach this process."""
    target = config.find_target()
    if target is None:
        return None
    is_tls, host, port = parse_url(target.urls[0])
    with socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
    ) as probe:
        probe.connect((host, port))
        here = probe.getsockname()[0]
    # Where the server is spoken to in clear, somebody has said that it may be.
    return (here, 0, TLS) if is_tls and not is_loopback(host) else (here, 0)


# --- the manager of the usual types ----------------------------------------------------------


class SyncManager(BaseManager):
    """Makes dicts, lists, namespaces, queues, locks and the like, shared by all their proxies."""


def _make_pool(*args: Any, **kwds: Any) -> Any:
    """A pool over the workers' machines, hosted by a manager."""
    from multihost.pool import Pool

    return Pool(*args, **kwds)


for _typeid, (_make, _exposed, _types, _proxytype) in _standard.SyncManager._registry.items():
    SyncManager.register(
        _typeid,
        _make_pool if _typeid == "Pool" else _make,
        _proxytype,
        _exposed,
        _types,
        create_method=hasattr(_standard.SyncManager, _typeid),
    )
del _typeid, _make, _exposed, _types, _proxytype


class SharedMemoryManager:
    """Refused: memory is shared within one machine."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Name the alternatives."""
        raise NotImplementedError(
            "SharedMemoryManager: memory can't be shared across machines; use Manager().list(), "
            "multihost.Array, or multiprocessing's own for processes on this machine"
        )


Namespace = _standard.Namespace
Value = _standard.Value
Array = _standard.Array
BaseProxy = proxies.BaseProxy


def Manager() -> SyncManager:  # noqa: N802 - the standard library's name
    """A started ``SyncManager``."""
    manager = SyncManager()
    manager.start()
    return manager
