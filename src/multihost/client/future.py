"""Futures of the native API and of the Executor.

They are ``concurrent.futures.Future``s, so ``wait`` and ``as_completed`` work.
The event-loop thread only notes that an outcome is there; it is decoded by the
thread that asks, or by the one that runs callbacks.
"""

import concurrent.futures
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import Any

from multihost.client.dispatcher import Dispatcher
from multihost.client.latch import Latch
from multihost.client.outcomes import Decoded, Raw, decode
from multihost.client.packing import Bulk
from multihost.client.stream import Stream
from multihost.core.outcome import Ending
from multihost.errors import MultihostError
from multihost.runtime.waiting import for_others, waiters

_ENDED = (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)


def remote_traceback(text: str) -> Exception:
    """The cause that shows a remote traceback, of the class that ``Pool`` users know."""
    from multiprocessing import pool

    return pool.RemoteTraceback(text)  # type: ignore[attr-defined,no-any-return]


class Future(concurrent.futures.Future[Any]):
    """A task's result to come.

    ``cancel`` also ends a task that runs already (unlike the Executor's futures).
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Wait for a task; callbacks run on ``dispatcher``."""
        super().__init__()
        self._waiters = waiters()
        self._stream: Stream | None = None
        self._dispatcher = dispatcher
        self._raw: Raw | None = None
        self._stored = Latch()

    # for users ---------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> Any:
        """The value, as soon as it is there; raises what the task raised."""
        try:
            error = self.exception(timeout)
            if error is not None:
                raise error
            return self._result
        finally:
            # The exception's traceback refers to this frame: break the cycle.
            error = None
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, as soon as it has ended; None if it succeeded."""
        if not self.done():
            for_others(lambda: super(Future, self).exception(timeout))
        else:
            super().exception(timeout)
        with self._condition:
            if self._raw is not None:
                is_ok, value = self._decode(*self._raw)
                if is_ok:
                    self._result = value
                else:
                    self._exception = value
                self._raw = None  # only now: whoever is interrupted before asks again
        return self._exception

    def cancel(self) -> bool:
        """Cancel the task; False when it has ended."""
        stream = self._stream
        if not super().cancel():
            return False
        if stream is not None:
            stream.session.post(lambda: stream.cancel({self}))
        return True

    def cancel_here(self) -> bool:
        """As ``cancel``, without telling the server: for many at once."""
        return super().cancel()

    def wait_stored(self, timeout: float | None = None) -> bool:
        """Wait until the server keeps the task; False when ``timeout`` (seconds) is over.

        Raises why not, when it was refused or nobody knows.
        """
        is_known = self._stored.wait_open(timeout)
        if is_known and self._state == FINISHED and isinstance(self._exception, MultihostError):
            raise self._exception
        return is_known

    def _decode(self, ending: Ending, payload: bytes) -> Decoded:
        return decode(ending, payload, remote_traceback)

    def submit_to(self, stream: Stream, payload: bytes | Bulk) -> None:
        """Append the task to its job."""
        self._stream = stream
        stream.append(payload, self)

    # Watcher: the event-loop thread ----------------------------------------------------

    def settle(self, position: int, ending: Ending, payload: bytes) -> None:
        """Note the outcome; nothing of it is unpickled here."""
        self._end(Raw(ending, payload), None, is_ok=ending is Ending.OK)

    def refuse(self, position: int, error: BaseException) -> None:
        """Note that there will be no outcome."""
        self._end(None, error, is_ok=False)

    def stored(self, position: int) -> None:
        """The server keeps the task."""
        self._stored.open()

    def started(self, position: int) -> None:
        """The task was given to a worker; a native future stays cancellable."""

    def _end(self, raw: Raw | None, error: BaseException | None, *, is_ok: bool) -> None:
        self._stream = None
        with self._condition:
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()
            if self._state in _ENDED:
                return
            self._raw, self._exception = raw, error
            self._state = FINISHED
            for waiter in self._waiters:
                if is_ok:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._stored.open()
        if self._done_callbacks:  # type: ignore[attr-defined]
            self._dispatcher.put(self._invoke_callbacks)  # type: ignore[attr-defined]


class RunningFuture(Future):
    """An Executor's future: it can be cancelled only until a worker has taken it."""

    def started(self, position: int) -> None:
        """From now on ``running`` is true and ``cancel`` is not possible."""
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING
