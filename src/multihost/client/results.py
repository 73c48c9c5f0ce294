"""What ``Pool`` hands out for work under way: results to come, as light as they can be.

The event-loop thread only puts packed outcomes in; they are unpickled by the
thread that asks for them, or by the pool's callback thread.
"""

from collections.abc import Callable
from types import GenericAlias
from typing import Any, ClassVar, Protocol, Self

from multihost.client.arrivals import BlockingArrivals
from multihost.client.dispatcher import Dispatcher, report
from multihost.client.future import remote_traceback
from multihost.client.latch import Latch
from multihost.client.outcomes import Raw, decode, for_iteration
from multihost.core.outcome import Ending
from multihost.errors import TimeoutError as ResultTimeoutError


class CallbackOwner(Protocol):
    """The pool, as its results know it; they keep it alive until they are settled."""

    _callbacks: Dispatcher


class AsyncResult(Latch):
    """The result of one call to come. Light: it costs a few attributes until somebody waits."""

    __slots__ = (
        "__weakref__",
        "_callback",
        "_ending",
        "_error_callback",
        "_is_decoded",
        "_payload",
        "_pool",
        "_success",
        "_value",
    )

    _success: bool
    _value: Any
    _ending: Ending
    _payload: bytes

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(
        self,
        pool: CallbackOwner,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        """Wait for a call of ``pool``."""
        self._is_open = False
        self._locks = None
        self._pool: CallbackOwner | None = pool
        self._callback = callback
        self._error_callback = error_callback
        self._is_decoded = False

    def ready(self) -> bool:
        """Whether the call has ended and its callback has run."""
        return self._is_open

    def successful(self) -> bool:
        """Whether the call succeeded; raises ValueError while it has not ended."""
        if not self._is_open:
            raise ValueError(f"{self!r} not ready")
        if not self._is_decoded:
            self._decode()
        return self._success

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, at most ``timeout`` seconds."""
        self.wait_open(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The call's value; raises what it raised, or TimeoutError."""
        if not self._is_open and not self.wait_open(timeout):
            raise ResultTimeoutError
        if not self._is_decoded:
            self._decode()
        if self._success:
            return self._value
        raise self._value

    # Receiver: the event-loop thread -----------------------------------------------

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """Keep the outcome; it is unpickled by the thread that asks for it."""
        self._ending = ending
        self._payload = payload
        self._finish()

    def refuse(self, position: int, error: BaseException) -> None:
        """There will be no outcome."""
        self._success, self._value, self._is_decoded = False, error, True
        self._finish()

    def _finish(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and (self._callback is not None or self._error_callback is not None):
            pool._callbacks.put(self._call_back)
        else:
            self.open()

    # any other thread ------------------------------------------------------------------

    def _decode(self) -> None:
        """Unpickle the outcome. Should two threads do so at once, the first one's value stays."""
        unpacked = self._unpack()
        if not self._is_decoded:
            self._success, self._value = unpacked
            self._is_decoded = True
            self._payload = b""

    def _unpack(self) -> tuple[bool, Any]:
        return decode(self._ending, self._payload, remote_traceback)

    def _call_back(self) -> None:
        """Run the callback, then let everybody know; a callback that raises is reported."""
        try:
            if not self._is_decoded:
                self._decode()
            callback = self._callback if self._success else self._error_callback
            if callback is not None:
                callback(self._value)
        except BaseException:  # a user's callback; it must not keep anybody waiting
            report()
        finally:
            self._callback = self._error_callback = None
            self.open()


class MapResult(AsyncResult):
    """The result of a ``map`` to come: ready when every chunk has ended."""

    __slots__ = ("_chunks", "_chunksize", "_first_error", "_number_left")

    def __init__(
        self,
        pool: CallbackOwner,
        chunks: int,
        chunksize: int,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        """Wait for ``chunks`` chunks; for none the result is there, and no callback runs.

        ``_number_left`` chunks of ``_chunksize`` are to come: programs show their progress by them.
        """
        super().__init__(pool, callback, error_callback)
        self._payload = b""
        self._ending = Ending.OK
        self._chunks: list[bytes] = [b""] * chunks
        self._chunksize = chunksize
        self._number_left = chunks
        self._first_error: Raw | BaseException | None = None
        if not chunks:
            self._success, self._value, self._is_decoded = True, [], True
            self._pool = None
            self.open()

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """Keep a chunk's outcome."""
        if ending is Ending.OK:
            self._chunks[position] = payload
        elif self._first_error is None:
            self._first_error = Raw(ending, payload)
        self._count()

    def refuse(self, position: int, error: BaseException) -> None:
        """A chunk has no outcome."""
        if self._first_error is None:
            self._first_error = error
        self._count()

    def _count(self) -> None:
        self._number_left -= 1
        if self._number_left == 0:
            self._finish()

    def _unpack(self) -> tuple[bool, Any]:
        error = self._first_error
        if isinstance(error, Raw):
            return decode(error.ending, error.payload, remote_traceback)
        if error is not None:
            return False, error
        values: list[Any] = []
        for chunk in self._chunks:
            is_ok, value = decode(Ending.OK, chunk, remote_traceback)
            if not is_ok:
                return False, value
            values += value
        return True, values

    def _decode(self) -> None:
        super()._decode()
        self._chunks = []


class IMapIterator:
    """Results of ``imap`` and ``imap_unordered``; goes on after an error."""

    is_ordered = True

    def __init__(self, pool: Any, arrivals: BlockingArrivals | None = None) -> None:
        """Iterate over what arrives; ``pool`` lives at least as long as something may."""
        self._pool = pool
        self._arrivals = arrivals or BlockingArrivals(is_ordered=self.is_ordered)

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result; raises what its call raised, or TimeoutError."""
        try:
            item = self._arrivals.take(timeout)
        except StopIteration:
            self._pool = None
            raise
        try:
            is_ok, value = decode(*item, remote_traceback) if isinstance(item, Raw) else item
        except BaseException:  # interrupted
            self._arrivals.put_back(item)
            raise
        if is_ok:
            return value
        raise for_iteration(value)

    __next__ = next  # noqa: A003 - the method above, as in the standard library

    # for who makes one by hand, see pool_insides -----------------------------------------

    @property
    def _job(self) -> Self:
        return self

    def _set_length(self, length: int) -> None:
        """Stand for this iterator where it is to be filled."""


class IMapUnorderedIterator(IMapIterator):
    """Results as they come."""

    is_ordered = False
