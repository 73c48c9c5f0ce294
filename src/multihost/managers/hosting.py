"""Where the objects of a manager live: threads that serve them, never the server.

Objects are served by the standard library's own loop, a thread a connection.
A queue that a registered function returns is not served here: it is handed to
the *front*, a multihost server in a process of its own that listens at the
manager's address, keeps queues durably, and passes all else on to here.
"""

import contextlib
import functools
import inspect
import queue
import secrets
import shutil
import tempfile
import threading
import types
import weakref
from collections.abc import Callable
from multiprocessing import managers as standard
from multiprocessing import process
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from multihost.errors import ConfigError
from multihost.managers.calls import QUEUE_PREFIX
from multihost.managers.front import Front, FrontPlan
from multihost.managers.listening import bind, is_secured, realm_of, state_of
from multihost.managers.proxies import AutoProxy, serving
from multihost.managers_front import DROPPED
from multihost.runtime import config

if TYPE_CHECKING:
    import ssl

    from multihost.managers.remote import RemoteFront

_standard: Any = standard
QUEUE_METHODS = (
    *("empty", "full", "get", "get_nowait", "join"),
    *("put", "put_nowait", "qsize", "task_done"),
)
INSIDE = "127.0.0.1"
"""Where the front finds this process; it shows a token before anything else."""
TOKEN_BYTES = 32
KNOWN_MODULES = ("multiprocessing.managers", "threading")
"""Their functions make anything but queues."""


class Server(standard.Server):
    """Serves a registry's objects at an address; what ``get_server`` returns.

    ``serve_forever`` returns when a client asked for shutdown, or ``stop`` was called.
    """

    address: Any
    authkey: Any
    listener: Any
    registry: Any
    mutex: Any
    id_to_obj: dict[str, Any]
    id_to_refcount: dict[str, int]

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        """Listen at ``address``; serving begins with ``serve_forever``."""
        is_tls = is_secured(address)
        if is_tls and serializer != "pickle":
            raise ConfigError(
                f"a manager with serializer={serializer!r} speaks no TLS: give it an address= on a "
                "network that you trust, or leave out the serializer"
            )
        # Only the front speaks TLS; it passes on what is no queue.
        self.durable = is_tls or (
            serializer == "pickle" and any(map(may_be_queue, registry.values()))
        )
        self.stop_event = threading.Event()
        self._stopping = threading.Lock()
        self._is_stopped = False
        self.front: Front | RemoteFront | None = None
        self._adopted: weakref.WeakSet[Any] = weakref.WeakSet()
        if not self.durable:
            super().__init__(registry, address, authkey, serializer)
            return
        asked = address[:2] if is_tls else address
        self._public = bind(asked)
        try:
            super().__init__(registry, (INSIDE, 0), authkey, serializer)
        except BaseException:
            self._public.close()
            raise
        self._inside = self.address
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self.address = self._public.getsockname()
        if isinstance(self.address, tuple):
            self.address = self.address[:2]
        place = state_of(asked, self.address)
        self._realm = realm_of(asked, self.address)
        self._context: ssl.SSLContext | None = None
        if is_tls:
            from multihost.server.certificate import fresh_context

            self._context, fingerprint = fresh_context()
            self.address = (*self.address, fingerprint)
        self._is_temporary = place is None
        self._state = (
            place or Path(tempfile.gettempdir()) / f"multihost-queues-{secrets.token_hex(8)}"
        )

    # serving -----------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until shutdown."""
        self.start()
        try:
            self.stop_event.wait()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            self.stop()

    def start(self) -> None:
        """Begin to serve, in threads."""
        _Place.settle()
        if self.durable:
            plan = FrontPlan(
                state=self._state,
                authkey=bytes(self.authkey),
                host=self._inside,
                token=self._token,
                typeids=tuple(name for name, entry in self.registry.items() if entry[0]),
                realm=self._realm,
            )
            self.front = self._front(plan)
            self.front.start()
        threading.Thread(target=self.accepter, daemon=True, name="multihost-manager").start()

    def stop(self) -> None:
        """End serving; the queues stay for the next start, if they have a place."""
        self.stop_event.set()
        with self._stopping:
            if not self._is_stopped:
                self._is_stopped = True
                self._close()

    def _close(self) -> None:
        if self.front is not None:
            dropped = self.front.stop()
            self._public.close()
            if dropped == DROPPED or self._is_temporary:
                shutil.rmtree(self._state, ignore_errors=True)
        self.listener.close()

    def _front(self, plan: FrontPlan) -> "Front | RemoteFront":
        """A door before the configured server's queues, else a server for these alone."""
        target = config.find_target()
        if target is None:
            return Front(plan, self._public, on_dropped=self.stop_event.set)
        from multihost.managers.remote import RemoteFront

        return RemoteFront(
            target, plan, self._public, on_dropped=self.stop_event.set, context=self._context
        )

    # threads ------------------------------------------------------------------------------

    def accepter(self) -> None:
        """Accept connections until the end."""
        while not self.stop_event.is_set():
            try:
                wire = self.listener.accept()
            except OSError:
                if self.stop_event.wait(0.05):
                    return
                continue
            serve = self._serve_front if self.durable else self.handle_request
            threading.Thread(
                target=self._served, args=(serve, wire), name="multihost-managers", daemon=True
            ).start()

    def serve_client(self, conn: Any) -> None:
        """Serve a connection, and hold nothing of a request while waiting for the next.

        The standard library's loop keeps arguments and result until then, which only a
        process of its own can afford.
        """
        while not self.stop_event.is_set():
            wire = _Once(conn)
            try:
                super().serve_client(cast("Any", wire))
            except SystemExit:  # how that loop ends
                if not wire.is_served:
                    raise

    def _served(self, serve: Callable[[Any], None], wire: Any) -> None:
        serving.server = self
        try:
            serve(wire)
        except SystemExit:  # how the standard library's loop ends
            return

    def _serve_front(self, wire: Any) -> None:
        """Serve a channel of the front: what clients say to it, one thread a client."""
        try:
            if not secrets.compare_digest(wire.recv_bytes(TOKEN_BYTES), self._token):
                return
            self.serve_client(cast("Any", _Channel(self, wire)))
        except (EOFError, OSError):
            return
        finally:
            wire.close()

    def answer(self, wire: Any, request: tuple[Any, ...]) -> None:
        """Answer what a client asks of the server itself."""
        try:
            _, name, args, kwds = request
            if name not in self.public:
                raise ValueError(f"{name!r} unrecognized")  # noqa: TRY301 - told to the client
            message: Any = ("#RETURN", getattr(self, name)(wire, *args, **kwds))
        except _QueueFoundError as found:
            wire.send_bytes(found.answer)
            return
        except Exception:  # told to the client, whatever it is
            message = ("#TRACEBACK", _standard.format_exc())
        wire.send(message)

    # objects -----------------------------------------------------------------------------

    def create(
        self, c: Any, typeid: str, /, *args: Any, **kwds: Any
    ) -> tuple[str, tuple[str, ...]]:
        """Make an object; the ident and the methods of its proxy."""
        function, exposed, method_to_typeid, _ = self.registry[typeid]
        if function is None:
            if kwds or len(args) != 1:
                raise ValueError("without a callable there must be one argument, the object")
            made = args[0]
        else:
            made = function(*args, **kwds)
        if self.durable and may_be_queue(self.registry[typeid]) and is_plain_queue(made):
            raise _QueueFoundError(self._adopt(typeid, made))
        if exposed is None:
            exposed = public_methods(made)
        if method_to_typeid is not None:
            exposed = [*exposed, *method_to_typeid]
        with self.mutex:
            ident = f"{id(made):x}"
            self.id_to_obj[ident] = (made, set(exposed), method_to_typeid)
            self.id_to_refcount.setdefault(ident, 0)
        self.incref(c, ident)
        return ident, tuple(exposed)

    def shutdown(self, c: Any) -> None:
        """End serving."""
        try:
            c.send(("#RETURN", None))
        finally:
            self.stop_event.set()

    # queues that are the front's ------------------------------------------------------------

    def _adopt(self, typeid: str, made: Any) -> bytes:
        """What the front is told of a queue: its bound, and what is in it already."""
        from multihost.server.managers.host import HostedQueue, as_answer

        items = []
        if made not in self._adopted:
            self._adopted.add(made)
            items = _empty(made)
            self._redirect(typeid, made)
        limit = made.maxsize if isinstance(getattr(made, "maxsize", None), int) else 0
        return as_answer(HostedQueue(max(limit, 0), items))

    def _redirect(self, typeid: str, made: Any) -> None:
        """Make the program's own queue object one more user of the durable queue."""
        token = _standard.Token(typeid, self.address, QUEUE_PREFIX + typeid)
        proxy = AutoProxy(
            token,
            "pickle",
            None,
            self.authkey,
            QUEUE_METHODS,
            incref=False,
        )
        with contextlib.suppress(AttributeError):  # SimpleQueue's can't be replaced
            for name in QUEUE_METHODS:
                setattr(made, name, getattr(proxy, name))


class _QueueFoundError(Exception):
    """What a callable returned is a queue, the front's business."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("a queue")
        self.answer = answer


class _Once:
    """A connection that has ended once a request of it was answered."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire
        self._has_read = False
        self.is_served = False
        self.send = wire.send
        self.close = wire.close

    def recv(self) -> Any:
        if self._has_read:
            self.is_served = True
            raise EOFError
        self._has_read = True
        return self._wire.recv()


class _Channel:
    """A channel of the front, as the standard library's loop wants its connections."""

    def __init__(self, server: Server, wire: Any) -> None:
        self._server = server
        self._wire = wire
        self.send = wire.send
        self.close = wire.close

    def recv(self) -> Any:
        while True:
            request = self._wire.recv()
            if request[0] is not None:
                return request
            self._server.answer(self._wire, request)


class _Place:
    """Tells proxies that are unpickled in a thread of a manager that they are at home.

    The standard library asks the current process for its manager's server; where
    several serve in threads of one program, that depends on the thread.
    """

    @classmethod
    def settle(cls) -> None:
        current: Any = process.current_process()
        if not isinstance(getattr(current, "_manager_server", None), cls):
            current._manager_server = cls()

    @property
    def address(self) -> Any:
        server = getattr(serving, "server", None)
        return server.address if server is not None else None

    def __bool__(self) -> bool:
        return getattr(serving, "server", None) is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(serving.server, name)


def public_methods(made: Any) -> list[str]:
    """Names of an object's methods that have no underscore before them."""
    return [name for name in dir(made) if name[0] != "_" and callable(getattr(made, name, None))]


def may_be_queue(entry: Any) -> bool:
    """Whether a registered callable may return a queue that all are to share.

    A function may; a class makes a new object for each proxy, as it always did, and what
    has a type of proxies of its own is no plain queue.
    """
    function, _, _, proxytype = entry
    if proxytype is not AutoProxy or inspect.isgeneratorfunction(function):
        return False
    if isinstance(function, types.FunctionType):
        return function.__module__ not in KNOWN_MODULES
    return isinstance(function, types.MethodType | functools.partial)


def is_plain_queue(made: Any) -> bool:
    """Whether an object is a first-in-first-out queue and nothing else."""
    if type(made) in (queue.Queue, queue.SimpleQueue):
        return True
    names = {("multiprocessing.queues", "Queue"), ("multiprocessing.queues", "JoinableQueue")}
    names |= {("multihost.queues", "Queue"), ("multihost.queues", "JoinableQueue")}
    return (type(made).__module__, type(made).__name__) in names


def _empty(made: Any) -> list[bytes]:
    """Pickles of what is in a queue; takes it out."""
    items = []
    while True:
        try:
            items.append(bytes(_standard.reduction.ForkingPickler.dumps(made.get_nowait())))
        except queue.Empty:
            return items
