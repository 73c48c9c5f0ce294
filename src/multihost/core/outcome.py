"""How an attempt ended, in a form that no one has to unpickle to read."""

from enum import IntEnum

import msgspec


class Ending(IntEnum):
    """How one attempt of a task ended. Stored and sent: never renumber."""

    OK = 0
    RAISED = 1
    """The code raised."""
    TIMED_OUT = 2
    """The worker ended it at its run timeout."""
    CRASHED = 3
    """The process that ran it died."""
    LOST = 4
    """The worker vanished with it."""
    CANCELLED = 5
    EXPIRED = 6
    """It was never started within its time to live."""
    UNRUNNABLE = 7
    """The worker could not even begin: a module is missing, the payload can't be read."""
    BLOCKED = 8
    """A job it depends on failed or was cancelled."""


class Certificate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Death certificate: what is known about a process that died under a task."""

    worker: str = ""
    host: str = ""
    pid: int = 0
    exit_code: int | None = None
    """Exit status, or minus the number of the signal, as in ``Process.exitcode``."""
    is_out_of_memory: bool = False
    run_s: float = 0.0
    peak_memory_bytes: int = 0
    output_tail: str = ""
    """Last lines that the task printed."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an attempt did not succeed, readable by server, CLI and page."""

    ending: Ending
    type_name: str = ""
    """Qualified name of the exception's class."""
    message: str = ""
    traceback: str = ""
    exception: bytes | None = None
    """The pickled exception, for the submitter alone; the server never opens it."""
    worker: str = ""
    certificates: tuple[Certificate, ...] = ()
    """One for each process of the task that died, oldest first."""


_failure_decoder = msgspec.msgpack.Decoder(Failure)
_encoder = msgspec.msgpack.Encoder()


def encode_failure(failure: Failure) -> bytes:
    """Bytes of ``failure``, as stored and sent."""
    return _encoder.encode(failure)


def decode_failure(data: bytes) -> Failure:
    """Failure from what ``encode_failure`` made; raises msgspec.DecodeError."""
    return _failure_decoder.decode(data)
