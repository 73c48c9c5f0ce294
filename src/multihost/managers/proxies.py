"""Proxies of a manager's objects: the standard library's, and they survive.

A call over a connection that has broken is made again over a new one where
that can't do it twice; the standard library keeps the dead connection for ever.
What was held through the old connection is another's by then, and what is put
for it is void: that is how take, compute, put stays exact.
"""

import io
import os
import queue as standard_queue
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing import managers as standard
from multiprocessing import process, util
from typing import Any

from multihost.errors import ConnectionLost
from multihost.managers.wires import WRITER, Wire, connect
from multihost.runtime.endings import settle_with

QUEUE_PREFIX = "q:"
"""Idents of durable queues begin so."""
TAKE = "#TAKE"
"""``get``, answered with the item's number beside it."""
AGAIN = frozenset({"qsize", "empty", "full", "join"})
"""Calls on a queue that may be made again when nobody knows whether they were done."""
PUTS = frozenset({"put", "put_nowait"})
FRESH = "fresh"
"""Held by a connection: an item, and nothing was put since; else the time of the first put."""
VOID = "void"
"""Lost by a thread: the item that was held is another's, and so is what comes of it."""
UNKNOWN = "unknown"
"""Lost: something was put lately, and perhaps kept, perhaps not."""
UNSENT, NUMBERED, SENT = range(3)
"""How far a put had come when the connection broke; NUMBERED: the server does it once."""
STAGED_S = 0.5
"""What was put so long ago is kept for sure, with its item."""
PATIENCE_S = 5.0
"""How long a server that was there before is waited for."""
RETRY_S = 0.05

_BROKEN = (EOFError, ConnectionError, OSError)
_standard: Any = standard
_STATE_STARTED = _standard.State.STARTED
serving = threading.local()
"""``server``: the manager's server that the thread works for."""
RemoteError = standard.RemoteError
Token = standard.Token


class BaseProxy(standard.BaseProxy):
    """Base of all proxies here; to be subclassed like the standard library's."""

    _token: Any
    _id: Any
    _authkey: Any
    _owned_by_manager: bool
    _tls: Any
    _idset: Any
    _manager: Any
    _serializer: str
    _Client: Any

    def __init__(  # noqa: PLR0917 - the standard library's signature
        self,
        token: Any,
        serializer: str,
        manager: Any = None,
        authkey: Any = None,
        exposed: Any = None,
        incref: bool = True,  # noqa: FBT001, FBT002 - the standard library's signature
        manager_owned: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> None:
        """Stand for the object of ``token``."""
        super().__init__(
            token,
            serializer,
            manager,
            authkey,
            exposed,
            False,
            manager_owned,
        )
        if serializer == "pickle":
            self._Client = connect
        self._tls, self._idset = _locals_of(token.address, bytes(self._authkey))
        if incref:
            self._incref()

    # calls ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        name = process.current_process().name
        if threading.current_thread() is not threading.main_thread():
            name += "|" + threading.current_thread().name
        wire = self._Client(self._token.address, authkey=self._authkey)
        _standard.dispatch(wire, None, "accept_connection", (name,))
        self._tls.connection = wire
        _watch_end()

    def _callmethod(
        self, methodname: str, args: tuple[Any, ...] = (), kwds: Mapping[Any, Any] = {}
    ) -> Any:
        """Call a method of the object and return its result; raises what it raised."""
        tls = self._tls
        wire = getattr(tls, "connection", None)
        if isinstance(wire, Wire) and wire.is_stale():
            self._drop(wire)
            self._reconnect(PATIENCE_S, EOFError())
        elif wire is None:
            self._connect()
        if not self._id_is_queue():
            return self._call(methodname, args, kwds)
        if methodname in PUTS:
            return self._put(methodname, args, kwds)
        if methodname == "get":
            return self._take(*_bound(*args, **kwds))
        if methodname == "get_nowait":
            return self._take(0.0)
        if methodname in AGAIN:
            return self._ask_again(methodname, args, kwds)
        return self._call(methodname, args, kwds)

    def _call(
        self,
        method: str,
        args: tuple[Any, ...] = (),
        kwds: Mapping[Any, Any] = {},
        message: Any = None,
    ) -> Any:
        """Say it and return what is answered; a connection that breaks is forgotten."""
        wire = self._tls.connection
        try:
            if message is not None:
                wire.send_bytes(message)
            else:
                wire.send((self._id, method, args, kwds))
            kind, result = wire.recv()
        except _BROKEN:
            self._drop(wire)
            raise
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy(*result)
        raise _standard.convert_to_error(kind, result)

    def _ask_again(self, method: str, args: tuple[Any, ...], kwds: Mapping[Any, Any]) -> Any:
        """A call on a queue that may be made over and over until it is answered."""
        while True:
            try:
                return self._call(method, args, kwds)
            except _BROKEN as error:
                if getattr(self._tls, "connection", None) is not None:
                    raise  # the object's own error, not the connection's
                self._reconnect(PATIENCE_S, error)

    def _take(self, timeout_s: float | None) -> Any:
        """The next item; one that this thread had when the connection broke is done with."""
        tls = self._tls
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                number, item = self._ask_again(TAKE, (True, left_s), {})
            except standard_queue.Empty:
                tls.connection.held = tls.lost = None
                raise
            had, tls.had = getattr(tls, "had", None), number
            is_known = number == had and getattr(tls, "lost", None) == VOID
            tls.connection.held, tls.lost = FRESH, None
            if not is_known:
                return item

    def _put(self, method: str, args: tuple[Any, ...], kwds: Mapping[Any, Any]) -> Any:
        """Put, once: what is made of an item that was lost is void."""
        tls = self._tls
        lost = getattr(tls, "lost", None)
        if lost == VOID:
            tls.had = None  # it is to be done again, perhaps here
            return None
        tls.lost = None
        if lost == UNKNOWN:
            raise self._unknown()
        try:
            result = self._put_once(method, args, kwds)
        except _BROKEN as error:
            if getattr(tls, "connection", None) is not None:
                raise
            self._reconnect(PATIENCE_S, error)
            if tls.lost == VOID:
                tls.had = None
                return None  # it came with its item or not at all; if not, another makes it
            is_unknown, tls.lost = tls.lost == UNKNOWN, None
            if is_unknown or tls.put_state == SENT:
                raise self._unknown() from error
            # The server knows the number of this put, and whether it was done.
            tls.written -= tls.put_state == NUMBERED
            result = self._put_once(method, args, kwds)
        if tls.connection.held == FRESH:
            tls.connection.held = time.monotonic()
        return result

    def _put_once(self, method: str, args: tuple[Any, ...], kwds: Mapping[Any, Any]) -> Any:
        tls = self._tls
        wire = tls.connection
        message = _pickled((self._id, method, args, kwds))
        tls.put_state = UNSENT
        if wire.is_writer is None:
            self._say_writer(wire)
        tls.put_state = NUMBERED if wire.is_writer else SENT
        tls.written += 1
        return self._call(method, message=message)

    def _say_writer(self, wire: Any) -> None:
        """Tell the server who puts here, and how often it has."""
        tls = self._tls
        if not hasattr(tls, "writer"):
            tls.writer, tls.written = os.urandom(16).hex(), 0
        name = f"{process.current_process().name}@{socket.gethostname()}"
        try:
            wire.send((None, WRITER, (tls.writer, name, tls.written), {}))
            wire.is_writer = wire.recv() == ("#RETURN", True)
        except _BROKEN:
            self._drop(wire)
            raise

    def _unknown(self) -> ConnectionLost:
        return ConnectionLost(
            str(self._token.address),
            "the server went away about the time of a put(), and it is not known whether the "
            "item is in the queue; look there before you put it again",
        )

    def _id_is_queue(self) -> bool:
        ident = self._id
        return isinstance(ident, str) and ident.startswith(QUEUE_PREFIX)

    def _proxy(self, exposed: Any, token: Any) -> Any:
        registry = self._manager._registry if self._manager is not None else {}
        proxytype = registry[token.typeid][-1] if token.typeid in registry else AutoProxy
        token.address = self._token.address
        proxy = proxytype(
            token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed
        )
        self._tell("decref", token.id)
        return proxy

    # broken connections ----------------------------------------------------------------------

    def _drop(self, wire: Any) -> None:
        """Forget a connection that has broken, and with it what was held through it."""
        tls = self._tls
        if getattr(tls, "connection", None) is wire:
            del tls.connection
        held = getattr(wire, "held", None)
        wire.close()
        if held == FRESH:
            tls.lost = VOID
        elif held is not None and time.monotonic() - held < STAGED_S:
            tls.lost = UNKNOWN

    def _reconnect(self, patience_s: float, broken: Exception) -> None:
        """Connect again; after ``patience_s`` in vain raise, EOFError if that is how it broke."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._connect()
            except _BROKEN as error:
                if time.monotonic() >= deadline:
                    if isinstance(broken, EOFError):  # what programs expect of a manager that ends
                        raise EOFError(
                            f"the manager at {self._token.address!r} hung up, and could not be "
                            f"reached for {patience_s:g} s ({error})"
                        ) from None
                    raise
                threading.Event().wait(RETRY_S)
            else:
                return

    # references ------------------------------------------------------------------------------

    def _tell(self, what: str, ident: str) -> None:
        wire = self._Client(self._token.address, authkey=self._authkey)
        try:
            _standard.dispatch(wire, None, what, (ident,))
        finally:
            wire.close()

    def _incref(self) -> None:
        if self._owned_by_manager:
            return
        self._tell("incref", self._id)
        self._idset.add(self._id)
        state = self._manager and self._manager._state
        self._close = _standard.util.Finalize(
            self,
            _give_up,
            args=(self._token, self._authkey, state, self._tls, self._idset, self._Client),
            exitpriority=10,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A task that gets the proxy runs on any worker, whose authkey is another one.
        kwds: dict[str, Any] = {"authkey": bytes(self._authkey)}
        func: Any = type(self)
        if getattr(self, "_isauto", False):
            kwds["exposed"] = self._exposed_  # type: ignore[attr-defined]
            func = AutoProxy
        return _standard.RebuildProxy, (func, self._token, self._serializer, kwds)


def _pickled(thing: Any) -> bytes:
    buffer = io.BytesIO()
    _standard.reduction.ForkingPickler(buffer).dump(thing)
    return buffer.getvalue()


def _bound(block: object = True, timeout: float | None = None) -> tuple[float | None]:  # noqa: FBT002 - the standard library's signature
    """The seconds that a ``get`` waits; None: as long as it takes."""
    if not block:
        return (0.0,)
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return (timeout,)


_locals: dict[tuple[Any, bytes], tuple[Any, set[str]]] = {}
"""Each thread's connection, and this process's references, by manager and authkey."""
_locals_lock: Any = _standard.util.ForkAwareThreadLock()


def _locals_of(address: Any, authkey: bytes) -> tuple[Any, set[str]]:
    with _locals_lock:
        known = _locals.get((address, authkey))
        if known is None:
            known = _standard.util.ForkAwareLocal(), _standard.ProcessLocalSet()
            _locals[address, authkey] = known
        return known


def forget(address: Any) -> None:
    """A manager is no more, and another may come to its address."""
    with _locals_lock:
        for known in [known for known in _locals if known[0] == address]:
            del _locals[known]


def _give_up(  # noqa: PLR0917 - arguments of a finalizer
    token: Any, authkey: bytes, state: Any, tls: Any, idset: set[str], client: Any
) -> None:
    """A proxy is gone: give up its reference, and after the last one the connection.

    A garbage collection may come at any time in any thread; one that serves a manager must
    not wait for it then, since it may be the very one that is waited for.
    """
    if getattr(serving, "server", None) is not None or _is_own_thread():
        arguments = (token, authkey, state, tls, idset, client)
        threading.Thread(target=_give_up, args=arguments, daemon=True).start()
        return
    idset.discard(token.id)
    if state is None or state.value == _STATE_STARTED:
        try:
            wire = client(token.address, authkey=authkey)
            try:
                _standard.dispatch(wire, None, "decref", (token.id,))
            finally:
                wire.close()
        except Exception as error:  # the manager may be gone, and nobody waits for this
            util.debug("decref of %r failed: %s", token.id, error)
    wire = getattr(tls, "connection", None)
    if wire is not None and not idset and getattr(wire, "held", None) is None:
        del tls.connection
        wire.close()


def _is_own_thread() -> bool:
    """Whether the calling thread may be one that others wait for to get on with serving.

    One that is just being started, which its starter waits for, has no name but Dummy yet.
    """
    return threading.current_thread().name.startswith(("multihost-", "Dummy-"))


# --- the end of threads and processes --------------------------------------------------------

_watched: list[Any] = [None, None, None]
"""The process and the hook of threads that have been seen to, and the process's main call."""


def _watch_end() -> None:
    """See to it that this process's end, and failing threads, are told from others."""
    if _watched[0] != os.getpid():
        _watched[0] = os.getpid()
        _watched[2] = _main_call()
        util.Finalize(None, _leave, exitpriority=9)
    if threading.excepthook is not _watched[1]:
        report = threading.excepthook

        def hook(arguments: Any) -> None:
            for wire in _mine():
                wire.has_failed = True
            report(arguments)

        _watched[1] = threading.excepthook = hook


def _work_ended(is_clean: bool) -> None:  # noqa: FBT001 - as ``settle_with`` has it
    """A task of this thread is over: what it took last is done with, or is for others."""
    for tls, _ in list(_locals.values()):
        wire = getattr(tls, "connection", None)
        if isinstance(wire, Wire) and wire.held is not None:
            del tls.connection
            wire.has_failed = wire.has_failed or not is_clean
            wire.end()


settle_with(_work_ended)


def _leave() -> None:
    """The process ends, and this is its main thread."""
    is_failing = _is_failing()
    for wire in _mine():
        wire.has_failed = wire.has_failed or is_failing
        wire.end()


def _mine() -> list[Wire]:
    """The calling thread's connections."""
    wires = [getattr(tls, "connection", None) for tls, _ in list(_locals.values())]
    return [wire for wire in wires if isinstance(wire, Wire)]


def _main_call() -> Any:
    """The call of the standard library's that a child process consists of, if this is one."""
    frame = sys._getframe()
    while frame is not None and not (
        frame.f_code.co_name == "_bootstrap"
        and frame.f_globals.get("__name__") == "multiprocessing.process"
    ):
        frame = frame.f_back  # type: ignore[assignment]
    return frame


def _is_failing() -> bool:
    """Whether this program, or this child process, is ending because something was raised."""
    error = sys.exc_info()[1]
    if isinstance(error, SystemExit):
        return error.code not in (None, 0)
    # From Python 3.13 on a child is told of its end when its error is dealt with already.
    main_call = _watched[2]
    code = main_call.f_locals.get("exitcode", 0) if main_call is not None else 0
    return error is not None or code != 0 or getattr(sys, "last_value", None) is not None


# --- types of proxies ----------------------------------------------------------------------

_made: dict[tuple[str, tuple[str, ...]], type[BaseProxy]] = {}


def MakeProxyType(name: str, exposed: Iterable[str]) -> type[BaseProxy]:  # noqa: N802 - the standard library's name
    """A type of proxies with the methods ``exposed``."""
    known = (name, tuple(exposed))
    if known not in _made:
        methods = {method: _method(method) for method in known[1]}
        _made[known] = type(name, (BaseProxy,), {**methods, "_exposed_": known[1]})
    return _made[known]


def _method(name: str) -> Any:
    def call(self: BaseProxy, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    call.__name__ = name
    return call


def AutoProxy(  # noqa: N802, PLR0917 - the standard library's name
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: Any = None,
    exposed: Any = None,
    incref: bool = True,  # noqa: FBT001, FBT002 - the standard library's signature
    manager_owned: bool = False,  # noqa: FBT001, FBT002 - as above
) -> Any:
    """A proxy with the methods that the object has."""
    if authkey is None:
        authkey = manager._authkey if manager is not None else process.current_process().authkey
    if exposed is None:
        client = connect if serializer == "pickle" else _standard.listener_client[serializer][1]
        wire = client(token.address, authkey=authkey)
        try:
            exposed = _standard.dispatch(wire, None, "get_methods", (token,))
        finally:
            wire.close()
    kind = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    proxy: Any = kind(token, serializer, manager, authkey, exposed, incref, manager_owned)
    proxy._isauto = True
    return proxy


def ours(proxytype: Any) -> Any:
    """The standard library's type of proxies as one of ours."""
    if not isinstance(proxytype, type) or issubclass(proxytype, BaseProxy):
        return AutoProxy if proxytype is _standard.AutoProxy else proxytype
    return globals().get(proxytype.__name__, proxytype)


def _as_ours(name: str) -> Any:
    base = getattr(_standard, name)
    return type(name, (BaseProxy, base), {"__module__": __name__, "__doc__": base.__doc__})


IteratorProxy = _as_ours("IteratorProxy")
AcquirerProxy = _as_ours("AcquirerProxy")
ConditionProxy = _as_ours("ConditionProxy")
EventProxy = _as_ours("EventProxy")
BarrierProxy = _as_ours("BarrierProxy")
NamespaceProxy = _as_ours("NamespaceProxy")
ValueProxy = _as_ours("ValueProxy")
ListProxy = _as_ours("ListProxy")
DictProxy = _as_ours("DictProxy")
ArrayProxy = _as_ours("ArrayProxy")
PoolProxy = _as_ours("PoolProxy")
