"""The thread that runs users' callbacks: never the event loop's, never the caller's.

A callback that raises is reported like any thread's uncaught exception, and
the next one runs.
"""

import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue


class Dispatcher:
    """A thread that is started with the first callback and ends when it is stopped."""

    def __init__(self, name: str) -> None:
        """Name the thread."""
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, call: Callable[[], None]) -> None:
        """Have ``call`` run on the thread; calls keep their order."""
        self._queue.put(call)
        if self._thread is None:
            try:
                self._start()
            except RuntimeError:  # the interpreter is ending and starts no threads any more
                self._queue.put(None)
                _run(self._queue)

    def stop(self) -> None:
        """End the thread after what was put before."""
        with self._lock:
            if self._thread is not None:
                # In this order: what is put between these lines has a thread, this or the next.
                self._thread = None
                self._queue.put(None)

    def join(self) -> None:
        """Wait until everything put so far has run."""
        done = threading.Event()
        with self._lock:  # else it is stopped, by another thread, before it comes to this
            thread = self._thread
            if thread is None or thread is threading.current_thread():
                return
            self._queue.put(done.set)
        done.wait()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=_run, args=(self._queue,), name=self._name, daemon=True
                )
                thread.start()
                self._thread = thread


def _run(queue: "SimpleQueue[Callable[[], None] | None]") -> None:
    while True:
        call = queue.get()
        if call is None:
            return
        try:
            call()
        except BaseException:  # a user's callback; reported, and the next one runs
            report()
        call = None


def report() -> None:
    """Report the exception being handled as one that nobody caught in this thread."""
    kind, error, trace = sys.exc_info()
    assert kind is not None
    threading.excepthook(threading.ExceptHookArgs((kind, error, trace, threading.current_thread())))
