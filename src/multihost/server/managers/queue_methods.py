"""What a client may call on a queue, and how each is answered: ``queue.Queue`` as it behaves."""

from collections.abc import Callable
from typing import Any, NamedTuple

from multihost.server.managers.reading import Request
from multihost.server.managers.realm import KnownQueue
from multihost.server.managers.taker import QueueTaker
from multihost.server.managers.writing import (
    EMPTY,
    FULL,
    RETURN_NONE,
    failed,
    raised,
    returned,
    returned_item,
    returned_pair,
)
from multihost.wire import act as a
from multihost.wire.blob import Payload


class Delivery(NamedTuple):
    """An item that is to be the answer."""

    payload: Payload
    number: int | None
    """What a client of ours is told beside it, to know it again."""

    def message(self, item: bytes) -> bytes:
        """The answer, with the item's bytes."""
        if self.number is None:
            return returned_item(item)
        return returned_pair(self.number, item)


Answer = Callable[[bytes | Delivery], None]
"""Takes the message for the client, or the item that is to be its answer."""
PICKLED_NONE = tuple(bytes((0x80, protocol)) + b"N." for protocol in range(2, 6))
TAKE = "#TAKE"
"""``get`` of a client of ours, answered with the item's number and the item."""


class CallError(Exception):
    """A call that ``queue.Queue`` would not take; ``answer`` is the message that says so."""

    def __init__(self, answer: bytes) -> None:
        """Keep the answer."""
        super().__init__("call refused")
        self.answer = answer


class QueueCall:
    """One request to one queue."""

    def __init__(self, taker: QueueTaker, name: str, queue: KnownQueue, answer: Answer) -> None:
        """Answer through ``answer``, once."""
        self.taker = taker
        self.name = name
        self.queue = queue
        self.answer = answer
        self._tells_number = False

    def run(self, request: Request) -> None:
        """Do what is asked; raises CallError."""
        method = METHODS.get(request.method)
        if method is None:
            raise CallError(
                failed(f"AttributeError: a queue has no method {request.method!r} for its proxies")
            )
        method(self, request)

    def put_item(self, item: bytes, wait_s: float | None) -> None:
        """``put``."""
        self.taker.put(self.queue, item, wait_s, self._put_done)

    # the methods -------------------------------------------------------------------------

    def _put(self, request: Request) -> None:
        item = request.item("item", "obj")
        if item is None:
            raise _type_error("put() takes an item")
        bound = _bound(request, ("item", "block", "timeout"))
        # ``queue.Queue`` looks at them only where there may be no room.
        self.put_item(item, _wait_s(bound) if self.queue.limit else None)

    def _put_nowait(self, request: Request) -> None:
        item = request.item("item", "obj")
        if item is None:
            raise _type_error("put_nowait() takes an item")
        self.put_item(item, 0.0)

    def _get(self, request: Request) -> None:
        self._take(_wait_s(_bound(request, ("block", "timeout"))))

    def _take_numbered(self, request: Request) -> None:
        self._tells_number = self.taker.says_goodbye = True
        self._get(request)

    def _get_nowait(self, request: Request) -> None:
        self._take(0.0)

    def _task_done(self, request: Request) -> None:
        self.taker.finish(self.queue, self._finished)

    def _join(self, request: Request) -> None:
        self.taker.ask(a.JoinQueue(self.queue.number), self._joined)

    def _qsize(self, request: Request) -> None:
        self._measure(lambda waiting, _: waiting)

    def _empty(self, request: Request) -> None:
        self._measure(lambda waiting, _: waiting == 0)

    def _full(self, request: Request) -> None:
        self._measure(lambda waiting, limit: 0 < limit <= waiting)

    def _describe(self, request: Request) -> None:
        self.answer(returned(f"<multihost queue {self.name!r}>"))

    # within ------------------------------------------------------------------------------

    def _take(self, wait_s: float | None) -> None:
        self.taker.take(self.name, self.queue, wait_s, self._taken)

    def _measure(self, what: Callable[[int, int], Any]) -> None:
        def measured(result: a.AnyResult) -> None:
            if isinstance(result, a.Measured):
                self.answer(returned(what(result.numbers[0], result.numbers[3])))
            else:
                self.answer(_unexpected(result))

        self.taker.ask(a.MeasureQueue(self.queue.number), measured)

    def _taken(self, result: a.AnyResult) -> None:
        if not isinstance(result, a.Exchanged) or result.end is a.ExchangeEnd.CLOSED:
            self.answer(_unexpected(result))
        elif result.end is a.ExchangeEnd.OK and result.items:
            item = result.items[0]
            self.taker.has_none = item.payload in PICKLED_NONE
            delivery = Delivery(item.payload, item.number if self._tells_number else None)
            is_here = isinstance(item.payload, bytes)
            self.answer(delivery.message(item.payload) if is_here else delivery)  # type: ignore[arg-type]
        else:
            self.answer(EMPTY)

    def _put_done(self, result: a.AnyResult) -> None:
        if isinstance(result, a.Exchanged) and result.end is a.ExchangeEnd.FULL:
            self.answer(FULL)
        else:
            self._done(result)

    def _finished(self, result: a.AnyResult) -> None:
        if isinstance(result, a.Rejected) and result.code is a.RejectCode.TOO_MANY:
            self.answer(raised("builtins", "ValueError", "task_done() called too many times"))
        else:
            self._done(result)

    def _joined(self, result: a.AnyResult) -> None:
        self.answer(RETURN_NONE if isinstance(result, a.Done) else _unexpected(result))

    def _done(self, result: a.AnyResult) -> None:
        is_done = isinstance(result, a.Exchanged) and result.end is a.ExchangeEnd.OK
        self.answer(RETURN_NONE if is_done else _unexpected(result))


METHODS: dict[Any, Callable[[QueueCall, Request], None]] = {
    "put": QueueCall._put,
    "put_nowait": QueueCall._put_nowait,
    "get": QueueCall._get,
    TAKE: QueueCall._take_numbered,
    "get_nowait": QueueCall._get_nowait,
    "task_done": QueueCall._task_done,
    "join": QueueCall._join,
    "qsize": QueueCall._qsize,
    "empty": QueueCall._empty,
    "full": QueueCall._full,
    "__str__": QueueCall._describe,
    "__repr__": QueueCall._describe,
}


def _bound(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """Arguments by their names; raises CallError as Python would TypeError."""
    if len(request.args) > len(names):
        raise _type_error(f"{request.method}() takes at most {len(names)} arguments")
    bound = dict(zip(names, request.args, strict=False))
    for name, value in request.kwds.items():
        known = "item" if name == "obj" else name
        if known not in names or known in bound:
            raise _type_error(f"{request.method}() got an unexpected argument {name!r}")
        bound[known] = value
    return bound


def _wait_s(arguments: dict[str, Any]) -> float | None:
    """Seconds to wait at most, None: as long as it takes."""
    if not arguments.get("block", True):
        return 0.0
    timeout = arguments.get("timeout")
    if timeout is None:
        return None
    if not isinstance(timeout, int | float):
        raise _type_error("'timeout' must be a number")
    if timeout < 0:
        raise CallError(raised("builtins", "ValueError", "'timeout' must be a non-negative number"))
    return float(timeout)


def _type_error(text: str) -> CallError:
    return CallError(raised("builtins", "TypeError", text))


def _unexpected(result: a.AnyResult) -> bytes:
    if isinstance(result, a.Rejected):
        return failed(f"multihost: {result.code}: {result.message}")
    return failed("multihost: the queue is closed; nothing can be put into it any more")
