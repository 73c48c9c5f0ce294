"""Locks, semaphores, conditions, events and barriers, by the server.

Signatures and behaviour are those of ``multiprocessing``, and beyond it: with
``name=`` strangers share one; whoever waits is served in the order of arrival
and woken at once; what a process held that died is released within seconds;
every acquire of a lock or semaphore has a *token* larger than all before, which
a resource can check to refuse a holder that was taken for dead. A timeout is
measured by the server: while there is no connection to it the time stands still.
"""

import contextlib
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from multihost.client.arguments import whole
from multihost.client.handles import Handle, wait_of
from multihost.client.synchronizers import Synchronizer
from multihost.client.taker import Taker
from multihost.client.thread_taker import run
from multihost.errors import MultihostError
from multihost.wire.act import Kind, OpenSynchronizer

if TYPE_CHECKING:
    from multihost.client import Client

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
]


class Shared(Handle):
    """Base: a synchronizer of the server, known by its number."""

    _remote: Synchronizer

    def _open(
        self,
        kind: Kind,
        name: str | None,
        client: "Client | None",
        number: int = 0,
        data: bytes = b"",
    ) -> None:
        taker = self._attach(client, name)
        act = OpenSynchronizer(kind, self._name, number, data, name is None)
        self._remote = run(Synchronizer.open(taker, act))

    def drop(self) -> None:
        """Delete it for everybody; whoever waits for it gets an error."""
        run(self._remote.drop(self._taker()))
        self._is_own = False

    def _measure(self) -> list[int]:
        return run(self._remote.measure(self._taker()))

    def _dropper(self) -> Callable[[Taker], Coroutine[Any, Any, None]] | None:
        return self._remote.drop if "_remote" in self.__dict__ else None


class Holdable(Shared):
    """What can be acquired and released, by statement or by ``with``."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002 - the standard library's signature
        """Acquire it; False when that was not possible at once, or in ``timeout`` seconds."""
        return run(self._remote.acquire(self._taker(), wait_of(block, timeout)))

    def release(self) -> None:
        """Release it."""
        run(self._remote.release(self._taker()))

    @property
    def token(self) -> int | None:
        """Fencing token of this thread's latest acquire; None when it holds nothing."""
        return self._remote.token(self._taker())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _owner(self) -> str:
        """Who holds a lock, as the standard library writes it."""
        if self.token is not None:
            return _here()
        return "SomeOtherProcess" if self._measure()[0] else "None"


class Lock(Holdable):
    """A lock; anybody may release it. ``release`` of a free one is a ValueError."""

    def __init__(
        self, *, name: str | None = None, client: "Client | None" = None, ctx: object = None
    ) -> None:
        """A lock, or the one of this ``name``; ``client`` if not the one that pools use."""
        self._open(Kind.LOCK, name, client)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={_or_unknown(self._owner)})>"


class RLock(Holdable):
    """A lock that its holder may acquire again; others can't release it (AssertionError)."""

    def __init__(
        self, *, name: str | None = None, client: "Client | None" = None, ctx: object = None
    ) -> None:
        """A lock, or the one of this ``name``; ``client`` if not the one that pools use."""
        self._open(Kind.RLOCK, name, client)

    def __repr__(self) -> str:
        owner = _or_unknown(self._owner)
        depth = _or_unknown(lambda: str(self._measure()[0]))
        return f"<{type(self).__name__}({owner}, {depth})>"


class Semaphore(Holdable):
    """A semaphore; what a process acquired that died is given back."""

    _kind = Kind.SEMAPHORE

    def __init__(
        self,
        value: int = 1,
        *,
        name: str | None = None,
        client: "Client | None" = None,
        ctx: object = None,
    ) -> None:
        """A semaphore that begins with ``value``, or the one of this ``name``."""
        value = whole("value", value)
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._first = value
        self._open(self._kind, name, client, value)

    def get_value(self) -> int:
        """How often it can be acquired right now."""
        return self._measure()[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={_or_unknown(lambda: str(self.get_value()))})>"


class BoundedSemaphore(Semaphore):
    """A semaphore whose value does not pass its first one: a ValueError if released too often."""

    _kind = Kind.BOUNDED_SEMAPHORE

    def __repr__(self) -> str:
        value = _or_unknown(lambda: str(self.get_value()))
        return f"<{type(self).__name__}(value={value}, maxvalue={self._first})>"


class Condition(Shared):
    """A condition; waiting and notifying are for who holds its lock (else AssertionError)."""

    def __init__(
        self,
        lock: Lock | RLock | None = None,
        *,
        name: str | None = None,
        client: "Client | None" = None,
        ctx: object = None,
    ) -> None:
        """A condition with ``lock``, or with an RLock of its own, or the one of this ``name``."""
        if lock is None:
            lock = RLock(name=None if name is None else f"{name}~lock", client=client)
        lock._taker()  # so that both are by the same client
        self._lock = lock
        self._open(Kind.CONDITION, name, client or lock._client, lock._remote.number)
        self.acquire = lock.acquire
        self.release = lock.release

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notify, take it again; False after ``timeout`` seconds."""
        lock = self._lock._remote.number
        return run(self._remote.wait_notified(self._taker(), lock, wait_of(True, timeout)))

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true, or ``timeout`` seconds; its last value."""
        from multihost.runtime import clock

        end = None if timeout is None else clock.mono() + timeout
        result = predicate()
        while not result:
            left_s = None if end is None else end - clock.mono()
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake ``n`` of those who wait."""
        run(self._remote.notify(self._taker(), n))

    def notify_all(self) -> None:
        """Wake all who wait."""
        run(self._remote.notify(self._taker(), -1))

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["acquire"], state["release"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __repr__(self) -> str:
        waiters = _or_unknown(lambda: str(self._measure()[0]))
        return f"<{type(self).__name__}({self._lock!r}, {waiters})>"


class Event(Shared):
    """An event."""

    def __init__(
        self, *, name: str | None = None, client: "Client | None" = None, ctx: object = None
    ) -> None:
        """An event that is not set, or the one of this ``name``."""
        self._open(Kind.EVENT, name, client)

    def is_set(self) -> bool:
        """Whether it is set."""
        return bool(self._measure()[0])

    def set(self) -> None:
        """Set it; whoever waits goes on."""
        run(self._remote.set(self._taker(), is_set=True))

    def clear(self) -> None:
        """Clear it."""
        run(self._remote.set(self._taker(), is_set=False))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False after ``timeout`` seconds."""
        return run(self._remote.wait_set(self._taker(), wait_of(True, timeout)))

    def __repr__(self) -> str:
        is_set = _or_unknown(lambda: "set" if self.is_set() else "unset")
        return f"<{type(self).__qualname__} at {id(self):#x} {is_set}>"


class Barrier(Shared):
    """A barrier; one with a party that died is broken."""

    def __init__(
        self,
        parties: int,
        action: Callable[[], Any] | None = None,
        timeout: float | None = None,
        *,
        name: str | None = None,
        client: "Client | None" = None,
        ctx: object = None,
    ) -> None:
        """A barrier for ``parties``, or the one of this ``name``.

        ``action`` is called by the last party to come before any is let go, however long
        it takes: all parties have to know it. ``timeout``: seconds, if ``wait`` says nothing else.
        """
        parties = whole("parties", parties)
        if parties < 1:
            raise ValueError("parties must be > 0")
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._open(Kind.BARRIER, name, client, parties)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for all parties; which of them this is, from 0. Raises BrokenBarrierError."""
        if timeout is None:
            timeout = self._timeout
        remote, taker, wait_s = self._remote, self._taker(), wait_of(True, timeout)
        has_action = self._action is not None
        position, token = run(remote.pass_barrier(taker, wait_s, has_action=has_action))
        if token:
            self._act(token)
        return position

    def reset(self) -> None:
        """Make it empty again; whoever waits gets BrokenBarrierError."""
        run(self._remote.reset(self._taker(), is_abort=False))

    def abort(self) -> None:
        """Break it, until it is reset."""
        run(self._remote.reset(self._taker(), is_abort=True))

    @property
    def parties(self) -> int:
        """How many it takes."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait at it."""
        return self._measure()[0]

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._measure()[2])

    def _act(self, token: int) -> None:
        """Do the action while the others wait for it, and let them go on."""
        assert self._action is not None
        try:
            self._action()
        except BaseException:
            with contextlib.suppress(MultihostError):  # the action's own error is the one to tell
                run(self._remote.finish_action(self._taker(), token, has_failed=True))
            raise
        run(self._remote.finish_action(self._taker(), token, has_failed=False))

    def __repr__(self) -> str:
        if _or_unknown(lambda: str(self.broken)) == "True":
            return f"<{type(self).__qualname__} at {id(self):#x}: broken>"
        waiting = _or_unknown(lambda: str(self.n_waiting))
        return f"<{type(self).__qualname__} at {id(self):#x}: waiters={waiting}/{self._parties}>"


def _here() -> str:
    """Process and thread, as the standard library names an owner."""
    import multiprocessing

    name = multiprocessing.current_process().name
    thread = threading.current_thread()
    return name if thread is threading.main_thread() else f"{name}|{thread.name}"


def _or_unknown(look: Callable[[], str]) -> str:
    """For a ``repr``, which must not raise when the server can't be asked."""
    try:
        return look()
    except MultihostError:
        return "unknown"
