"""The one bridge from blocking code to the async core: an event loop in a thread.

The thread is a daemon and ends with its client. A process that was forked has
no such thread: there every client that the parent had is dropped, and the next
use makes a new one.
"""

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from multihost.client.forking import forget_in_child
from multihost.runtime.loop import new_event_loop

T = TypeVar("T")

STOP_S = 3.0
"""How long to wait for the thread to end when the client is closed."""

_bridges: "weakref.WeakSet[Bridge]" = weakref.WeakSet()


class Bridge:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name="multihost-client", daemon=True)
        self.is_stopped = False
        _bridges.add(self)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for what it returns or raises."""
        if self.is_stopped:
            work.close()
            message = (
                "the client's event loop has ended (it was closed, or this process was forked)"
            )
            raise RuntimeError(message)
        if threading.current_thread() is self._thread:
            work.close()
            message = "a blocking call on the client's own thread would wait for itself"
            raise RuntimeError(message)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread. Idempotent."""
        if self.is_stopped:
            return
        self.is_stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


def _after_fork() -> None:
    """The thread did not come along, and its sockets are the parent's."""
    for bridge in list(_bridges):
        bridge.is_stopped = True
    _bridges.clear()


forget_in_child(_after_fork)
