"""The failures that a store itself writes, and how it keeps those of workers.

Every store says these things in the same words, since clients and listings
show them as they are.
"""

from collections.abc import Iterable

import msgspec

from multihost.core.job import JobSpec
from multihost.core.outcome import (
    Certificate,
    Ending,
    Failure,
    decode_failure,
    encode_failure,
)
from multihost.core.retry import Faults, Verdict, after_crash, after_error, after_loss
from multihost.wire.message import Blob, Payload


def verdict(ending: Ending, faults: Faults, spec: JobSpec, chance: float) -> Verdict:
    """What to do with a task whose attempt ended so; anything but OK and CANCELLED."""
    if ending is Ending.CRASHED:
        return after_crash(faults, spec.limits)
    if ending is Ending.LOST:
        return after_loss(faults, spec.limits)
    return after_error(faults, spec.limits, spec.backoff, chance)


def read(ending: Ending, payload: Payload) -> Failure:
    """The failure in a worker's payload, or one that says why it can't be read."""
    if isinstance(payload, Blob):
        digest = payload.digest.hex()[:16]
        text = f"the failure has {payload.size_bytes} bytes and is kept as blob {digest}…"
        return Failure(ending, message=text)
    if not payload:
        return Failure(ending)
    try:
        return decode_failure(payload)
    except msgspec.MsgspecError:
        return Failure(ending, message="the worker sent a failure that can't be read")


def for_history(failure: Failure) -> bytes:
    """Bytes of a failure for listings: without the pickled exception, which nobody opens there."""
    if failure.exception is not None:
        failure = msgspec.structs.replace(failure, exception=None)
    return encode_failure(failure)


def with_certificates(last: Failure, earlier: Iterable[bytes]) -> bytes:
    """Bytes of the ``last`` failure with the death certificates of all attempts, oldest first."""
    certificates: list[Certificate] = []
    for data in earlier:
        certificates.extend(decode_failure(data).certificates)
    if not certificates:
        return encode_failure(last)
    certificates.extend(last.certificates)
    return encode_failure(msgspec.structs.replace(last, certificates=tuple(certificates)))


def lost(worker: str, session: int) -> Failure:
    """The worker vanished with the task."""
    name = f"worker {worker!r}" if worker else "the worker"
    return Failure(
        Ending.LOST,
        message=f"{name} (session {session}) vanished while it ran the task",
        worker=worker,
    )


def expired(spec: JobSpec) -> bytes:
    """The task waited too long."""
    text = f"it was not started within its time to live of {spec.ttl_s:g} s"
    return encode_failure(Failure(Ending.EXPIRED, message=text))


def blocked(spec: JobSpec) -> bytes:
    """A job that had to succeed first did not."""
    which = ", ".join(str(number) for number in spec.after)
    text = f"it was to run after {which}, and not all of that succeeded"
    return encode_failure(Failure(Ending.BLOCKED, message=text))


def result_missing() -> bytes:
    """The worker named a result that never arrived."""
    text = "its result or failure was sent as a blob that is not in the store"
    return encode_failure(Failure(Ending.UNRUNNABLE, message=text))
