"""Proxies of a manager's objects: how they are made, counted and given up, and their types.

They are the standard library's but for how they call, which is in ``calls``.
"""

import threading
from collections.abc import Iterable
from multiprocessing import managers as standard
from multiprocessing import process, util
from typing import Any

from multihost.managers.calls import CallingProxy
from multihost.managers.endings import locals_of
from multihost.managers.wires import connect

_standard: Any = standard
_STATE_STARTED = _standard.State.STARTED
serving = threading.local()
"""``server``: the manager's server that the thread works for."""


class BaseProxy(CallingProxy):
    """Base of all proxies here; to be subclassed like the standard library's."""

    _owned_by_manager: bool
    _idset: Any
    _manager: Any
    _serializer: str

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
        self._tls, self._idset = locals_of(token.address, bytes(self._authkey))
        if incref:
            self._incref()

    def _proxy(self, exposed: Any, token: Any) -> Any:
        registry = self._manager._registry if self._manager is not None else {}
        proxytype = registry[token.typeid][-1] if token.typeid in registry else AutoProxy
        token.address = self._token.address
        proxy = proxytype(
            token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed
        )
        self._tell("decref", token.id)
        return proxy

    # references ------------------------------------------------------------------------------

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
