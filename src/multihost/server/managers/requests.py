"""What a client asks of the server itself, before or instead of calls on an object."""

import asyncio
import string
from typing import TYPE_CHECKING, Any

from multihost.runtime import clock
from multihost.server.managers.host import HostedQueue, hosted_queue
from multihost.server.managers.reading import Request, UnreadableError, read_request
from multihost.server.managers.realm import METHODS, KnownQueue, ident_of, name_of
from multihost.server.managers.taker import QueueTaker
from multihost.server.managers.writing import RETURN_NONE, failed, returned
from multihost.wire import act as a

if TYPE_CHECKING:
    from multihost.server.managers.connection import Connection

END = "#END"
"""A client of ours ends in good order; the standard library's say nothing."""
WRITER = "#WRITER"
"""A client of ours says who it is, by its uid in hex, its name and how often it has put."""
UID_DIGITS = 32
MAX_NAME_BYTES = 200
ANSWER_S = 0.02
NO_QUEUES = frozenset(
    {
        *("list", "dict", "Namespace", "Value", "Array", "Event", "Lock", "RLock", "Semaphore"),
        *("BoundedSemaphore", "Condition", "Barrier", "Pool"),
    }
)
"""What the standard library's ``SyncManager`` makes, queues left out."""


async def answer_to(connection: "Connection", request: Request) -> bytes:
    """The answer to one request; raises OSError when the host process is gone."""
    if request.method == "dummy":
        return RETURN_NONE
    if request.method == "create":
        return await _create(connection, request)
    if request.method in ("incref", "decref", "get_methods"):
        return await _refer(connection, request)
    if request.method == "number_of_objects":
        return await _count(connection, request)
    if request.method == "debug_info":
        return await _describe(connection, request)
    if request.method == "shutdown":
        return _shut_down(connection, request)
    return failed(f"AssertionError: {request.method!r} unrecognized")


async def _create(connection: "Connection", request: Request) -> bytes:
    typeid = request.args[0] if request.args else None
    if not isinstance(typeid, str) or not typeid:
        return failed("TypeError: create() takes the name of what to make")
    realm = connection.realm
    if realm.is_hosted(typeid):
        assert realm.host is not None
        answer = await realm.host.ask(request.raw)
        found = hosted_queue(answer)
        if found is None:
            return answer
        return await _open(connection, typeid, found)
    if realm.host is not None and typeid not in realm.host.typeids:
        known = ", ".join(sorted(realm.host.typeids))
        return failed(f"KeyError: {typeid!r} is not registered with this manager; it has {known}")
    if realm.host is None and typeid in NO_QUEUES:
        return failed(
            f"NotImplementedError: {typeid}() can't be served here: 'multihost server --managers' "
            "has queues only. Start a manager for it, SyncManager of multihost.managers, or "
            "register a queue under another name"
        )
    limit = request.kwds.get("maxsize", request.args[1] if len(request.args) > 1 else 0)
    return await _open(connection, typeid, HostedQueue(max(limit, 0) if _is_int(limit) else 0))


async def _open(connection: "Connection", name: str, wanted: HostedQueue) -> bytes:
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return failed(f"ValueError: a queue's name has at most {MAX_NAME_BYTES} bytes")
    realm = connection.realm
    known: KnownQueue | a.Rejected | None = realm.queues.get(name)
    if known is None:
        taker = QueueTaker(connection.door.backing, realm)
        try:
            known = await _opened(taker, name, wanted)
        finally:
            taker.end(is_clean=True)
    if isinstance(known, a.Rejected):
        return failed(f"multihost: {known.code}: {known.message}")
    ident = ident_of(name)
    realm.refer(ident)
    connection.door.departures.created(connection.host, ident)
    return returned((ident, METHODS))


async def _opened(taker: QueueTaker, name: str, wanted: HostedQueue) -> KnownQueue | a.Rejected:
    """Open a queue; one that is new gets what the host had in its own."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[KnownQueue | a.Rejected] = loop.create_future()
    taker.open(name, wanted.limit, found.set_result)
    queue = await found
    if isinstance(queue, KnownQueue) and queue.is_new:
        # Whoever restarts finds the queue as it was; only a new one is filled.
        for item in wanted.items:
            done: asyncio.Future[a.AnyResult] = loop.create_future()
            taker.put(queue, item, 0.0, done.set_result)
            await done
    return queue


async def _refer(connection: "Connection", request: Request) -> bytes:
    realm = connection.realm
    ident = request.args[0] if request.args else None
    if request.method == "get_methods":
        state = getattr(ident, "state", None)
        ident = state[2] if isinstance(state, tuple) and len(state) == 3 else None  # noqa: PLR2004 - a Token's
    if name_of(ident) is None:
        if realm.host is None:
            return failed(f"KeyError: no object {ident!r} here")
        return await realm.host.ask(request.raw)
    assert isinstance(ident, str)
    if request.method == "get_methods":
        return returned(METHODS)
    if request.method == "incref":
        realm.refer(ident)
    else:
        realm.unrefer(ident)
        departures = connection.door.departures
        connection.visit = departures.gave_up(connection.host, ident, clock.mono())
    return RETURN_NONE


async def _count(connection: "Connection", request: Request) -> bytes:
    count = len(connection.realm.references)
    told = await _told(connection, request)
    return returned(count + (told if _is_int(told) else 0))


async def _describe(connection: "Connection", request: Request) -> bytes:
    lines = [
        f"  {ident}:       refcount={count}\n    a durable queue"
        for ident, count in sorted(connection.realm.references.items())
    ]
    told = await _told(connection, request)
    return returned("\n".join([*lines, *([told] if isinstance(told, str) and told else [])]))


async def _told(connection: "Connection", request: Request) -> Any:
    """What the host returns to the same request."""
    if connection.realm.host is None:
        return None
    answer = await connection.realm.host.ask(request.raw)
    try:
        return read_answer(answer)
    except UnreadableError:
        return None


def read_answer(answer: bytes) -> Any:
    """The value of a ``('#RETURN', value)``, as far as it is plain."""
    # A request has four parts and an answer two: make it look like one.
    inner = answer[2:] if answer[:1] == b"\x80" else answer
    request = read_request(b"\x80\x04(NN" + b"(" + inner[:-1] + b"t}t.")
    pair = request.args[0] if request.args else None
    if isinstance(pair, tuple) and len(pair) == 2 and pair[0] == "#RETURN":  # noqa: PLR2004 - a pair
        return pair[1]
    raise UnreadableError("it is no value")


def _shut_down(connection: "Connection", request: Request) -> bytes:
    on_shutdown = connection.realm.on_shutdown
    if on_shutdown is None:
        return failed(
            "PermissionError: this server serves others too, and is not shut down by a client; "
            "stop 'multihost server' itself"
        )
    keeps = bool(request.kwds.get("keeps", False))
    # The answer leaves first: its writing is a turn of the loop away.
    asyncio.get_running_loop().call_later(ANSWER_S, lambda: on_shutdown(keeps=keeps))
    return RETURN_NONE


def is_uid(value: Any) -> bool:
    """Whether a value is 16 bytes in hex."""
    return (
        isinstance(value, str)
        and len(value) == UID_DIGITS
        and all(digit in string.hexdigits for digit in value)
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
