"""What a worker writes about attempts that went wrong: failures in words and fields."""

import pickle
import signal
import socket
from collections.abc import Callable

import msgspec

from multihost.core.ids import task_name
from multihost.core.outcome import Certificate, Ending, Failure, decode_failure, encode_failure
from multihost.errors import SealError
from multihost.wire.seal import ID_BYTES, Seal
from multihost.worker.slot import Death, Slot
from multihost.worker.work import Work

TAIL_LINES = 20


def crash(work: Work, slot: Slot, death: Death, worker: str, *, is_out_of_memory: bool) -> Failure:
    """The process died under the task."""
    certificate = Certificate(
        worker,
        socket.gethostname(),
        slot.pid,
        death.exit_code,
        is_out_of_memory,
        death.run_s,
        death.peak_memory_bytes,
        "\n".join(slot.tail.decode(errors="replace").splitlines()[-TAIL_LINES:]),
    )
    text = f"task {task_name(work.grant.task)}: {describe(certificate)}"
    return Failure(Ending.CRASHED, "TaskCrashed", text, worker=worker, certificates=(certificate,))


def exit(  # noqa: A001 - a process's, as the system calls it
    work: Work, slot: Slot, death: Death, worker: str, *, has_oom: Callable[[], bool]
) -> tuple[Ending, bytes]:
    """A process has ended: its ending and payload. Exit code 0 is success."""
    if work.is_timed_out:
        failure = msgspec.structs.replace(timeout(work), worker=worker)
    elif death.exit_code == 0:
        return Ending.OK, pickle.dumps(0)
    else:
        is_oom = death.exit_code == -signal.SIGKILL and has_oom()
        failure = crash(work, slot, death, worker, is_out_of_memory=is_oom)
    return failure.ending, encode_failure(failure)


def timeout(work: Work) -> Failure:
    """The task ran too long."""
    text = (
        f"task {task_name(work.grant.task)} ran longer than its timeout of "
        f"{work.job.timeout_s:g} s and was ended"
    )
    return Failure(Ending.TIMED_OUT, "TaskTimeout", text)


def lost_blob(what: str) -> Failure:
    """A blob that the task needs is gone from the server, or can't be kept here."""
    return Failure(Ending.UNRUNNABLE, "PayloadError", what)


def seal_mismatch(work: Work, seal: Seal | None, worker: str) -> Failure | None:
    """Why the task is not begun when its submitter and this worker have not the same seal."""
    mark, task = work.job.mark, task_name(work.grant.task)
    give = (
        "a join string that has it in it ('multihost key join'), the variable MULTIHOST_SEAL, or "
        "the file 'seal' beside the config file"
    )
    if seal is None:
        text = (
            f"task {task} is signed with a seal, and worker {worker} has none: it could check "
            "nothing. Start the worker again if its machine has got the seal since ('multihost "
            f"key join' makes it), else give it the seal first ({give})"
        )
    elif mark is None:
        text = (
            f"task {task} is not signed, and worker {worker} runs only what is signed with its "
            f"seal: give the submitter the seal ({give}) and submit it again"
        )
    elif mark[:ID_BYTES] != seal.id:
        text = (
            f"task {task} is signed with the seal {mark[:ID_BYTES].hex()}, and worker {worker} has "
            f"{seal.id.hex()}: give both the same ({give}), start the worker again or submit again"
        )
    else:
        return None
    return Failure(Ending.UNRUNNABLE, SealError.__name__, text)


def unpacked_nothing(reason: str) -> Failure:
    """What the job ships is not to be had here."""
    return Failure(Ending.UNRUNNABLE, "ShipError", reason)


def unstored_result(reason: str) -> Failure:
    """The server did not take the result."""
    return Failure(Ending.UNRUNNABLE, "PayloadError", f"the result: {reason}")


def too_many_processes(limit: int) -> Failure:
    """The worker runs as many processes as it may."""
    text = (
        f"the worker runs {limit} processes beside its slots, which is its limit: "
        "join some first, start more workers, or start them with a larger --processes"
    )
    return Failure(Ending.UNRUNNABLE, "LimitExceeded", text)


def unstarted_process(error: OSError) -> Failure:
    """The system has refused a process."""
    text = f"the worker can't start a process: {error}"
    return Failure(Ending.UNRUNNABLE, type(error).__name__, text)


def signed(failure: bytes, worker: str) -> bytes:
    """A child's failure with the worker's name on it."""
    try:
        told = decode_failure(failure)
    except msgspec.MsgspecError as error:
        told = Failure(Ending.UNRUNNABLE, message=f"what its process says can't be read: {error}")
    return encode_failure(msgspec.structs.replace(told, worker=worker))


def describe(certificate: Certificate) -> str:
    """A death certificate as a sentence."""
    code = certificate.exit_code
    if certificate.is_out_of_memory:
        cause = "was killed because memory ran out"
    elif code is not None and code < 0:
        cause = f"was killed by {_signal_name(-code)}"
    else:
        cause = f"ended by itself with exit code {code}"
    megabytes = certificate.peak_memory_bytes / 1e6
    return (
        f"its process {certificate.pid} on {certificate.host} {cause} after "
        f"{certificate.run_s:.1f} s, with {megabytes:.0f} MB of memory at most"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"
