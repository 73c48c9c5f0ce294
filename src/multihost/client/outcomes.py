"""From a task's outcome, as the server sent it, to a value or an exception.

Unpickling runs code that the user's classes choose. So nothing here is ever
called on a client's event-loop thread: the thread that asks for the result
decodes it, or the one that runs callbacks.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from multihost.core.outcome import Certificate, Ending, Failure, decode_failure
from multihost.errors import (
    MissingModule,
    MultihostError,
    SealError,
    TaskCancelled,
    TaskCrashed,
    TaskError,
    TaskExpired,
    TaskFailed,
    TaskLost,
    TaskTimeout,
    UnreadableResult,
)
from multihost.wire.message import RefusalCode

_BY_ENDING: dict[Ending, type[TaskError]] = {
    Ending.TIMED_OUT: TaskTimeout,
    Ending.LOST: TaskLost,
    Ending.CANCELLED: TaskCancelled,
    Ending.EXPIRED: TaskExpired,
    Ending.BLOCKED: TaskCancelled,
}
_SAID_NOTHING = {
    Ending.TIMED_OUT: "the task ran longer than its timeout and was ended",
    Ending.LOST: "the workers that ran the task vanished, as often as is allowed",
    Ending.CANCELLED: "the task was cancelled; 'multihost retry' with its job runs it again",
    Ending.EXPIRED: "the task waited longer than its time to live and was never started",
    Ending.BLOCKED: "a job that the task depends on did not succeed",
    Ending.RAISED: "the task failed",
    Ending.UNRUNNABLE: "the worker could not begin the task",
    Ending.CRASHED: "the process that ran the task died",
}


class Raw(NamedTuple):
    """An outcome not decoded yet."""

    ending: Ending
    payload: bytes


class Decoded(NamedTuple):
    """Whether a task succeeded, and its value or its exception."""

    is_ok: bool
    value: Any


def decode(ending: Ending, payload: bytes, cause: Callable[[str], Exception]) -> Decoded:
    """Value or exception of an outcome.

    ``cause`` makes the exception that carries a remote traceback's text. A
    result that can't be unpickled here makes the outcome an error.
    """
    if ending is not Ending.OK:
        return Decoded(False, exception_of(ending, payload, cause))
    try:
        return Decoded(True, pickle.loads(payload))
    except (Exception, SystemExit) as error:  # whatever a user's class raises
        text = f"the task succeeded, but its result can't be unpickled here: {error!r}"
        unreadable = UnreadableResult(text)
        unreadable.__cause__ = error
        return Decoded(False, unreadable)


def for_iteration(error: BaseException) -> BaseException:
    """A task's error for whoever iterates or awaits: a StopIteration would end that in silence."""
    if not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    told = RuntimeError(f"the task raised {error!r}")
    told.__cause__ = error
    return told


def exception_of(
    ending: Ending, payload: bytes, cause: Callable[[str], Exception]
) -> BaseException:
    """The exception that tells of a task that did not succeed."""
    failure = failure_of(ending, payload)
    text = failure.message or _SAID_NOTHING[ending]
    error: BaseException
    if _is_missing_module(ending, failure):
        error = _missing_module(failure)
    elif ending is Ending.UNRUNNABLE and failure.type_name == SealError.__name__:
        error = SealError(text)
    elif failure.exception is not None:
        error = _own_exception(failure)
    elif ending is Ending.CRASHED:
        error = TaskCrashed(_with_certificates(text, failure.certificates), failure.certificates)
    elif ending in _BY_ENDING:
        error = _BY_ENDING[ending](text)
    else:
        error = _task_failed(failure, text)
    if ending is Ending.RAISED and isinstance(error, ModuleNotFoundError | FileNotFoundError):
        _note_where(error, failure.worker or "the worker")
    if failure.traceback:
        error.__cause__ = cause(f'\n"""\n{failure.traceback.rstrip()}\n"""')
    return error


def refusal(code: RefusalCode, message: str, indices: tuple[int, ...] = ()) -> MultihostError:
    """The exception for tasks that the server surely did not store."""
    from multihost import errors

    kinds: dict[RefusalCode, type[errors.Refused]] = {
        RefusalCode.BAD_REQUEST: errors.BadRequest,
        RefusalCode.KEY_CONFLICT: errors.KeyConflict,
        RefusalCode.QUEUE_FULL: errors.QueueFull,
        RefusalCode.STORE_FULL: errors.StoreFull,
        RefusalCode.STOPPING: errors.Refused,
        RefusalCode.ROLE: errors.NotAllowed,
        RefusalCode.TOO_LARGE: errors.BadRequest,
        RefusalCode.DAMAGED: errors.BadRequest,
    }
    if code is RefusalCode.INPUT_CHANGED:
        return errors.InputChanged(message, indices)
    return kinds[code](message)


def failure_of(ending: Ending, payload: bytes) -> Failure:
    """What is known of why a task did not succeed; unpickles nothing."""
    if not payload:
        return Failure(ending)
    try:
        return decode_failure(payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return Failure(ending, message=f"the task failed; its error can't be read: {error}")


def _own_exception(failure: Failure) -> BaseException:
    assert failure.exception is not None
    try:
        error = pickle.loads(failure.exception)
    except (Exception, SystemExit) as reason:  # whatever a user's exception class raises
        text = f"{failure.message} (its exception can't be unpickled here: {reason!r})"
        return _task_failed(failure, text)
    if not isinstance(error, BaseException):
        return _task_failed(failure, failure.message)
    return error


def _task_failed(failure: Failure, text: str) -> TaskFailed:
    name = failure.type_name
    if name and not text.startswith(name):
        text = f"{name}: {text}"
    return TaskFailed(text, failure.type_name, failure.traceback)


def _is_missing_module(ending: Ending, failure: Failure) -> bool:
    return ending is Ending.UNRUNNABLE and failure.type_name == "ModuleNotFoundError"


def _missing_module(failure: Failure) -> MissingModule:
    module = re.search("No module named '([^']+)'", failure.message)
    name = module[1] if module is not None else None
    return MissingModule(
        f"{failure.worker or 'a worker'} has no module {name!r}, which the task needs "
        f"({failure.message}): {_remedy(name)}; what the program itself defines in __main__ "
        "travels by itself",
        failure.worker,
        name,
    )


def _note_where(error: ModuleNotFoundError | FileNotFoundError, worker: str) -> None:
    """Say what to do if something is lacking because the task was not where the program is."""
    if isinstance(error, ModuleNotFoundError):
        error.add_note(f"multihost: if it is {worker} that lacks it, {_remedy(error.name)}")
        return
    path = error.filename
    if not isinstance(path, str) or not Path(path).exists():
        return
    if Path(path).is_absolute():
        here, do = (
            "on this machine, and {} looked on its own",
            "put it where every machine finds it",
        )
    else:
        here = "in this program's directory, and {} looked in its own"
        do = f"give an absolute path, or start 'multihost worker' in {Path.cwd()}"
    error.add_note(f"multihost: {path!r} is {here.format(worker)}: {do}")


def _remedy(module: str | None) -> str:
    top = (module or "NAME").partition(".")[0]
    return (
        f"send yours along with ship=[{top!r}] (of Client, connect, Pool and Executor), or have it "
        "installed there: 'pip install' for that worker's Python, or 'multihost worker --path DIR'"
    )


def _with_certificates(text: str, certificates: tuple[Certificate, ...]) -> str:
    lines = [text]
    for number, certificate in enumerate(certificates, 1):
        lines.append(f"  death {number}: {_describe(certificate)}")
        lines += [f"    | {line}" for line in certificate.output_tail.splitlines()[-5:]]
    return "\n".join(lines)


def _describe(certificate: Certificate) -> str:
    where = certificate.worker or certificate.host or "a worker"
    code = certificate.exit_code
    if certificate.is_out_of_memory:
        how = "out of memory"
    elif code is None:
        how = "exit code unknown"
    else:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}, pid {certificate.pid} on {where}, after {certificate.run_s:.3g} s"
