"""Which taker is whose: one for each thread, or for each coroutine, that makes calls.

A taker ends with its thread or coroutine. In good order means without an
exception: then what it held is done with, as the standard library has it of
everything that was taken. Else what it held goes to others.
"""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from typing import Protocol

from multihost.client.asyncio_taker import LoopTaker
from multihost.client.forking import forget_in_child
from multihost.client.taker import Line, Taker
from multihost.client.thread_taker import ThreadTaker, run


class Office(Line, Protocol):
    """The session's calls, as registers of takers need them."""

    def new_number(self) -> int:
        """Number for one more taker."""
        ...

    def end(self, taker: Taker, *, is_clean: bool) -> None:
        """A taker is no more; on the loop's thread."""
        ...

    def post_end(self, taker: Taker, *, is_clean: bool) -> None:
        """A taker is no more; from any thread."""
        ...


class _Anchor:
    """Dies with its thread, and takes the thread's taker along."""

    __slots__ = ("__weakref__", "is_dropped", "office", "taker")

    def __init__(self, office: Office, taker: ThreadTaker) -> None:
        self.office = office
        self.taker = taker
        self.is_dropped = False

    def __del__(self) -> None:
        if not self.is_dropped:
            self.office.post_end(self.taker, is_clean=not self.taker.has_failed)


class ThreadTakers:
    """Takers of threads, of one session."""

    def __init__(self, office: Office) -> None:
        """Register takers of ``office``."""
        self._office = office
        self._local = threading.local()
        self._anchors: weakref.WeakSet[_Anchor] = weakref.WeakSet()
        self._changing = threading.RLock()
        """Held while a taker is added, and while all are looked at."""
        _registers.add(self)

    def mine(self) -> ThreadTaker:
        """The calling thread's taker, from its first call on."""
        try:
            taker: ThreadTaker = self._local.anchor.taker
        except AttributeError:
            taker = self._new()
        return taker

    def existing(self) -> ThreadTaker | None:
        """The calling thread's taker, if it ever made a call."""
        anchor = getattr(self._local, "anchor", None)
        return None if anchor is None else anchor.taker

    def work_ended(self, *, is_clean: bool) -> None:
        """The calling thread's unit of work is over; it may begin another."""
        taker = self.existing()
        if taker is None:
            return
        if is_clean:
            run(taker.finish())
        else:
            taker.has_failed = True
            del self._local.anchor

    def __iter__(self) -> Iterator[Taker]:
        with self._changing:
            return iter([anchor.taker for anchor in list(self._anchors)])

    def _new(self) -> ThreadTaker:
        if threading.current_thread() is not threading.main_thread():
            _watch_threads()
        taker = ThreadTaker(self._office, self._office.new_number())
        anchor = _Anchor(self._office, taker)
        with self._changing:
            self._anchors.add(anchor)
        self._local.anchor = anchor
        return taker

    def forget(self) -> None:
        """In a forked child: the takers are the parent's."""
        self._changing = threading.RLock()
        for anchor in list(self._anchors):
            anchor.is_dropped = True
            anchor.taker.forget_branch()


class TaskTakers:
    """Takers of coroutines, of one session."""

    def __init__(self, office: Office) -> None:
        """Register takers of ``office``."""
        self._office = office
        self._takers: weakref.WeakKeyDictionary[asyncio.Task[object], LoopTaker] = (
            weakref.WeakKeyDictionary()
        )

    def mine(self) -> LoopTaker:
        """The running task's taker, from its first call on."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a queue or synchronizer of an AsyncClient is used within a task")
        taker = self._takers.get(task)
        if taker is None:
            taker = self._takers[task] = LoopTaker(self._office, self._office.new_number())
            task.add_done_callback(self._done)
        return taker

    def existing(self) -> LoopTaker | None:
        """The running task's taker, if it ever made a call."""
        task = asyncio.current_task()
        return None if task is None else self._takers.get(task)

    def __iter__(self) -> Iterator[Taker]:
        return iter(list(self._takers.values()))

    def _done(self, task: "asyncio.Task[object]") -> None:
        taker = self._takers.pop(task, None)
        if taker is not None:
            # Asking for exception() would silence asyncio's report of one that nobody retrieves.
            has_failed = task.cancelled() or getattr(task, "_exception", None) is not None
            self._office.end(taker, is_clean=not has_failed)


_registers: "weakref.WeakSet[ThreadTakers]" = weakref.WeakSet()
_hook: object = None


def _watch_threads() -> None:
    """Have threads that end with an exception noted as such."""
    global _hook  # noqa: PLW0603 - the interpreter's hook is one a process
    if threading.excepthook is _hook:
        return
    report = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs, /) -> None:
        if not issubclass(arguments.exc_type, SystemExit):
            for register in list(_registers):
                taker = register.existing()
                if taker is not None:
                    taker.has_failed = True
        report(arguments)

    _hook = threading.excepthook = hook


def _forget() -> None:
    for register in list(_registers):
        register.forget()


forget_in_child(_forget)
