"""Every exception that a user may catch, in one tree, split by whose fault it is.

Each has fields beside its message and survives pickling, since it may travel
from a worker to a client. The message says what, which, in what state, and
what to do next.
"""

import builtins
from concurrent.futures import BrokenExecutor
from multiprocessing import AuthenticationError as _AuthenticationError
from multiprocessing import TimeoutError as TimeoutError  # noqa: A004, PLC0414 - multiprocessing's own
from pickle import PicklingError
from threading import BrokenBarrierError
from typing import Any


class MultihostError(Exception):
    """Root of the tree.

    A subclass names its fields in ``fields``; they follow the message in the
    constructor and are attributes.
    """

    fields: tuple[str, ...] = ()

    def __init__(self, message: str = "", *values: Any) -> None:
        """Say ``message``, and keep ``values`` under the names in ``fields``."""
        super().__init__(message)
        self.message = message
        padded = values + (None,) * (len(self.fields) - len(values))
        for name, value in zip(self.fields, padded, strict=True):
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, *(getattr(self, name) for name in self.fields))


# --- what you asked for can't be done that way ----------------------------------------


class ConfigError(MultihostError):
    """An option, a file or a variable is wrong."""


class Refused(MultihostError):
    """The server did not store it, surely; nothing happened."""


class BadRequest(Refused):
    """What was asked contradicts itself or a limit."""


class QueueFull(Refused):
    """The queue has as many tasks waiting as it may."""


class StoreFull(Refused):
    """The server's disk, or the store's own limit, is full."""


class NotAllowed(Refused):
    """The key does not have the role that this takes; nothing was done."""


class KeyConflict(Refused):
    """The unique key is in use for something else."""


class InputChanged(Refused):
    """A named job was run again with another function or other inputs."""

    fields = ("indices",)
    indices: tuple[int, ...] | None


class PayloadError(MultihostError, TypeError, PicklingError):
    """An argument or a result can't be pickled; both kinds of error that pickle itself raises."""

    fields = ("what",)
    what: str | None


class ShipError(MultihostError, ValueError):
    """What ``ship=`` names can't be sent."""


class LimitExceeded(MultihostError):
    """Something is larger than a limit; the message names the limit and its option."""

    fields = ("limit", "value")


# --- queues of items and synchronizers ----------------------------------------------------


class Gone(MultihostError, LookupError):
    """There is no such queue or synchronizer: it was dropped, or ended with its maker."""


class QueueClosed(MultihostError, ValueError):
    """The queue was closed or dropped: it takes no more items, and has none to give."""


class NotHeld(MultihostError, AssertionError, RuntimeError):
    """A lock was released, or its condition used, by who does not hold it."""


class TooMany(MultihostError, ValueError):
    """Released, or ``task_done`` called, more often than is due."""


class BarrierBroken(MultihostError, BrokenBarrierError):
    """The barrier is broken: reset or aborted, or one of its parties gave up or died."""


# --- the server, the network, the disk ---------------------------------------------------


class AuthenticationError(MultihostError, _AuthenticationError):
    """The key is not the server's."""


class KeyExpired(AuthenticationError):
    """The key is past its expiry."""


class KeyRevoked(AuthenticationError):
    """The key was revoked on the server."""


class UntrustedServer(AuthenticationError):
    """The server could not show the certificate that is expected; nothing was sent to it.

    ``expected`` and ``found`` are SHA-256 fingerprints, where there are such.
    """

    fields = ("url", "expected", "found")
    url: str | None
    expected: str | None
    found: str | None


class ServerNotFound(MultihostError, ConnectionRefusedError):
    """Nothing answers at the address."""

    def __init__(self, url: str = "", reason: str = "") -> None:
        """Name the address ``url`` and why it could not be reached."""
        self.url = url
        self.reason = reason
        if "://" not in url:  # the one of this program itself
            super().__init__(f"{url} does not answer ({reason})")
            return
        super().__init__(
            f"no multihost server answers at {url} ({reason}); "
            "start one there with 'multihost server', or correct the address ('multihost doctor' "
            "says where it is from)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.reason)


class ConnectionLost(MultihostError, builtins.ConnectionError):
    """The connection to the server broke and did not come back in time."""

    def __init__(self, url: str = "", reason: str = "") -> None:
        """Name the server's address ``url`` and the last failure."""
        self.url = url
        self.reason = reason
        super().__init__(f"connection to {url} lost: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.reason)


class SubmitUnknown(MultihostError):
    """The connection broke before the server's answer: stored or not, nobody here knows.

    Submitting again with the same ``uid`` (or the same name or unique key)
    never makes a second.
    """

    fields = ("uid",)
    uid: bytes | None


class ProtocolError(MultihostError):
    """The other end speaks another protocol, or nonsense."""


class StoreError(MultihostError):
    """The store failed; the server stops rather than acknowledge what may be lost."""


class StoreLocked(StoreError):
    """Another server has the same store open."""

    fields = ("path", "pid")


class StoreTooNew(StoreError):
    """The store was written by a newer version."""

    fields = ("path", "version")


class StoreCorrupt(StoreError):
    """The store's file is damaged, or is not a store."""

    fields = ("path",)


# --- the task ---------------------------------------------------------------------------


class TaskError(MultihostError):
    """A task did not succeed."""


class TaskFailed(TaskError):
    """The code raised, and its exception could not be brought here as it was."""

    fields = ("type_name", "traceback")
    type_name: str | None
    traceback: str | None


class TaskCrashed(TaskError, BrokenExecutor):
    """The processes that ran the task died, as often as is allowed.

    ``certificates`` has what is known of each: exit code or signal, run time,
    peak memory, last output.
    """

    fields = ("certificates",)


class TaskTimeout(TaskError):
    """The task ran longer than its timeout and was ended."""


class TaskExpired(TaskError):
    """The task waited longer than its time to live and was never started."""


class TaskLost(TaskError):
    """The workers that ran the task vanished, as often as is allowed."""


class TaskCancelled(TaskError):
    """The task was cancelled."""


class MissingModule(TaskError, ImportError):
    """The worker lacks a module that the task needs."""

    fields = ("worker", "module")


class UnreadableResult(TaskError):
    """The task succeeded, but its result can't be unpickled here; the cause says why."""


class SealError(TaskError):
    """It is not signed with this side's seal, or was altered; nothing of it was unpickled."""


class LeaseLost(TaskError):
    """The lease under which this code runs is gone; another worker may run the task."""
