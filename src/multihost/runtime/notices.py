"""Warnings to the user that come up on the event loop's thread.

They are logged from another thread: a handler of the user's may put what is logged
into one of our queues, or be held by a thread that does, and that waits for this loop.
"""

import contextlib
import logging
import threading

_log = logging.getLogger("multihost")


def warn(message: str, *details: object) -> None:
    """Log a warning without waiting for the handlers that take it; it says that it is ours."""
    told = (f"multihost: {message}", *details)
    thread = threading.Thread(target=_log.warning, args=told, name="multihost-notice", daemon=True)
    with contextlib.suppress(RuntimeError):  # the interpreter ends, and starts no more threads
        thread.start()
