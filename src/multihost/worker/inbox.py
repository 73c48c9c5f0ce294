"""A child's tasks that have come and not begun."""

import os
import threading
from collections import deque
from collections.abc import Callable

from multihost.worker.frames import (
    CONTEXT,
    PATHS,
    SEALED,
    STYLES,
    TASK,
    TASK_IN_FILES,
    Filed,
    FrameBuffer,
    contents,
)

READ_BYTES = 1 << 16
Entry = tuple[int, int, str, bytes | Filed, bytes | None]
"""Task, token, style, the payload of its frame, and what is signed of its job."""


class Inbox:
    """Tasks that have come and not begun.

    Either the main thread reads the pipe (it has nothing to do), or the control
    thread may (the main thread is busy): ``_is_reading`` says which, so no frame
    is ever torn between them.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._frames = FrameBuffer()
        self._tasks: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._is_reading = False
        self._job: bytes | None = None
        self.context: bytes | None = None
        self.paths: bytes | None = None
        self.priorities: dict[int, int] = {}
        """Of tasks whose job has one that is not 0."""

    def next(self) -> Entry | None:
        """The next task, waiting for it; None when no more will come."""
        while True:
            with self._lock:
                if self._tasks:
                    return self._tasks.popleft()
                self._is_reading = True
            data = os.read(self._descriptor, READ_BYTES)
            with self._lock:
                self._is_reading = False
                if not data:
                    return None
                self._take(data)

    def give_back(self, tell: Callable[[list[tuple[int, int]]], None]) -> None:
        """Take out all that has not begun, and ``tell`` which tasks those are.

        What came behind them can't begin before that is told: the agent knows
        what runs by the order of what it hears.
        """
        import select

        # Not select(), which takes no descriptor above 1,023: those of many slots are.
        more = select.poll()
        more.register(self._descriptor, select.POLLIN)
        with self._lock:
            if not self._is_reading:
                while more.poll(0):
                    data = os.read(self._descriptor, READ_BYTES)
                    if not data:
                        break
                    self._take(data)
            returned = [(task, token) for task, token, *_ in self._tasks]
            self._tasks.clear()
            for task, _ in returned:
                self.priorities.pop(task, None)
            tell(returned)

    def _take(self, data: bytes) -> None:
        for kind, detail, first, second, priority, payload in self._frames.feed(data):
            if priority:
                self.priorities[first] = int(priority)
            if kind == TASK:
                self._tasks.append((first, second, STYLES[detail], payload, self._job))
            elif kind == TASK_IN_FILES:
                filed = Filed(detail, payload)
                self._tasks.append((first, second, filed.style, filed, self._job))
            elif kind == CONTEXT and detail:
                name, _, path = payload.partition(b"\0")
                self.context = name + b"\0" + contents(path)
            elif kind == CONTEXT:
                self.context = payload
            elif kind == PATHS:
                self.paths = payload
            elif kind == SEALED:
                self._job = payload
