"""Waiting for the disk in a thread, and knowing how long that takes."""

import queue
import threading
from collections.abc import Callable

QUICK_S = 0.0008
"""A durable commit that lately took less is waited for on the loop, if few wait for it."""


class Disk:
    """The one thread that waits for the disk; a daemon, started when first needed."""

    def __init__(self) -> None:
        """Expect a quick one."""
        self._took_s = 0.0
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_quick(self) -> bool:
        """Whether durable commits took so little lately that the loop may wait for them."""
        return self._took_s <= QUICK_S

    def took(self, took_s: float) -> None:
        """A durable commit took so long; a slow one counts at once, quick ones slowly."""
        # Soon quick again after one that was slow: most disks have such now and then.
        self._took_s = max(took_s, self._took_s + 0.3 * (took_s - self._took_s))

    def run(self, call: Callable[[], None]) -> None:
        """Call something in the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="multihost-disk", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def stop(self) -> None:
        """Have the thread end when it has done what it was given."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
