"""A door that opens once, as cheap as an attribute until somebody waits at it.

``threading.Event`` costs several microseconds to make, which is more than all
the rest of submitting a task; of a hundred thousand results few are ever
waited for.
"""

import threading
from _thread import LockType, allocate_lock

from multihost.runtime.waiting import for_others

_guard = threading.RLock()  # a signal handler may run within, and wait for another latch


class Latch:
    """Closed, then open for good.

    Invariant: a thread that waits either sees the latch open after it has put
    down its lock, or the opener sees that lock and releases it.
    """

    __slots__ = ("_is_open", "_locks")

    def __init__(self) -> None:
        """Begin closed."""
        self._is_open = False
        self._locks: list[LockType] | None = None

    def is_open(self) -> bool:
        """Whether it has been opened."""
        return self._is_open

    def open(self) -> None:
        """Let all who wait go on, now and later. Idempotent."""
        self._is_open = True
        if self._locks is not None:
            with _guard:
                locks, self._locks = self._locks, None
            for lock in locks or ():
                lock.release()

    def wait_open(self, timeout_s: float | None = None) -> bool:
        """Wait until it is open, at most ``timeout_s``; whether it is."""
        if self._is_open:
            return True
        lock = allocate_lock()
        lock.acquire()
        with _guard:
            if self._locks is None:
                self._locks = []
            self._locks.append(lock)
        if self._is_open:
            return True
        if timeout_s is None:
            for_others(lock.acquire)
        else:
            limit_s = min(max(timeout_s, 0.0), threading.TIMEOUT_MAX)
            for_others(lambda: lock.acquire(timeout=limit_s))
        return self._is_open
