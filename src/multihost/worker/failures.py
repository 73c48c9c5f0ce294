"""Failures of tasks as they travel, made in the child; imported when there is one."""

import pickle
import traceback
from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]
from typing import Any

from multihost.core.outcome import Ending, Failure, encode_failure
from multihost.worker.pickling import dumps

MESSAGE_CHARS = 10_000
TRACEBACK_CHARS = 50_000
"""Of a longer one, beginning and end are kept."""
EXCEPTION_BYTES = 4 << 20
"""A larger exception does not travel; its type, message and traceback do."""


def encoded(error: BaseException, ending: int, depth: int = 0, what: str = "") -> bytes:
    """Failure in a form that others can read without unpickling."""
    trace = error.__traceback__
    for _ in range(depth):
        trace = trace.tb_next if trace is not None else None
    try:
        lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
    except Exception:  # users' attributes of exceptions
        lines = ["<a traceback that can't be shown>\n"]
    exception: bytes | None
    try:
        exception = dumps(error)
        pickle.loads(exception)
    except (Exception, SystemExit):  # the text has to do
        exception = None
    if exception is not None and len(exception) > EXCEPTION_BYTES:
        exception = None
    kind = type(error)
    try:
        message = str(error)
    except Exception:  # users' __str__
        message = f"<{kind.__qualname__}, which can't be shown>"
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    message, text = _cut(what + message, MESSAGE_CHARS), _cut("".join(lines), TRACEBACK_CHARS)
    name, message, text = map(_speakable, (name, message, text))
    return encode_failure(Failure(Ending(ending), name, message, text, exception))


def unsendable(error: BaseException, result: Any) -> Any:
    """What multiprocessing raises for a result that can't be pickled, of bounded size."""
    try:
        told = MaybeEncodingError(error, result)
    except (Exception, SystemExit):  # users' __repr__
        told = MaybeEncodingError(error, f"<{type(result).__qualname__}, which can't be shown>")
    told.exc, told.value = _cut(told.exc, MESSAGE_CHARS), _cut(told.value, MESSAGE_CHARS)
    told.args = (told.exc, told.value)
    return told


def _cut(text: str, limit: int) -> str:
    """Beginning and end of a text that is too long."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"


def _speakable(text: str) -> str:
    """The text as it can be sent: a name of a file may have bytes in it that are no characters."""
    return text.encode("utf-8", "backslashreplace").decode()
