"""What a program has set for its whole process, and its children take over as after a fork.

Owns which settings these are: how the program logs, its recursion limit, the time that
its sockets wait. Plain data, the same bytes for the same settings, since functions are
known by the digest of what is sent with them. Nothing is imported that the program has
not imported itself, and a program that has set nothing sends nothing.
"""

import contextlib
import json
import sys
from types import ModuleType
from typing import Any

RECURSION_LIMIT = 1000
"""Python's own."""
SETTINGS_BYTES = 16 << 10
"""Longer settings stay with their program."""
_NOT_OURS = "multiprocessing"
"""A logger that ``multiprocessing.log_to_stderr`` sets up; that is told apart."""

_added: list[tuple[Any, Any]] = []
"""Loggers of this process and handlers that they have from a program."""
_changed: list[Any] = []
"""Loggers of this process that are set as a program's are."""


def taken() -> bytes:
    """The settings of this process; empty when it has none of its own."""
    settings: dict[str, Any] = {}
    if sys.getrecursionlimit() != RECURSION_LIMIT:
        settings["recursion_limit"] = sys.getrecursionlimit()
    socket = sys.modules.get("socket")
    if socket is not None and socket.getdefaulttimeout() is not None:
        settings["socket_timeout_s"] = socket.getdefaulttimeout()
    logging = sys.modules.get("logging")
    if logging is not None:
        loggers = _loggers(logging)
        if loggers:
            settings["loggers"] = loggers
    try:
        data = json.dumps(settings).encode() if settings else b""
    except TypeError:  # a level or a format of a user's that is no plain data
        return b""
    return data if len(data) <= SETTINGS_BYTES else b""


def take_over(data: bytes) -> None:
    """Set this process as the program of ``data`` is; undo what another program's were."""
    settings = json.loads(data) if data else {}
    sys.setrecursionlimit(settings.get("recursion_limit", RECURSION_LIMIT))
    timeout_s = settings.get("socket_timeout_s")
    if timeout_s is not None or "socket" in sys.modules:
        import socket

        socket.setdefaulttimeout(timeout_s)
    _forget_loggers()
    if "loggers" in settings:
        if b"processName" in data:
            import multiprocessing  # noqa: F401 - loggers ask it for the name, where it is imported
        for logger in settings["loggers"]:
            _set_up(logger)


# within ---------------------------------------------------------------------------------


def _loggers(logging: ModuleType) -> list[tuple[Any, ...]]:
    """Loggers that are not as they are made, by name; the root's comes first."""
    named = [
        (name, it)
        for name, it in list(logging.root.manager.loggerDict.items())
        if isinstance(it, logging.Logger)
        and (it.level or it.handlers or it.disabled or not it.propagate)
        and name != _NOT_OURS
    ]
    found = []
    for name, logger in [("", logging.root), *sorted(named)]:
        handlers = [told for told in map(_describe, logger.handlers) if told is not None]
        is_as_made = logger.level == _first_level(name) and logger.propagate
        if handlers or logger.disabled or not is_as_made:
            found.append((name, logger.level, bool(logger.propagate), logger.disabled, handlers))
    return found


def _first_level(name: str) -> int:
    return 0 if name else 30  # NOTSET, and the root's WARNING


def _describe(handler: Any) -> tuple[Any, ...] | None:
    """Where a handler writes, from which level on, how; None if only its own process can."""
    import logging

    where: Any = None
    if type(handler) is logging.FileHandler:
        import socket

        where = (socket.gethostname(), handler.baseFilename, handler.encoding, handler.errors)
    elif type(handler) is logging.StreamHandler:
        if handler.stream in (sys.stderr, sys.__stderr__):
            where = "stderr"
        elif handler.stream in (sys.stdout, sys.__stdout__):
            where = "stdout"
    if where is None:
        return None
    form: Any = handler.formatter
    written_by = getattr(form, "_style", None)  # a user's own formatter may have none
    if written_by is None:
        return where, handler.level, None
    styles: Any = logging._STYLES
    style = next((key for key, (kind, _) in styles.items() if kind is type(written_by)), "%")
    return where, handler.level, (form._fmt, form.datefmt, style)


def _set_up(told: list[Any]) -> None:
    import logging

    name, level, propagates, is_disabled, handlers = told
    logger = logging.getLogger(name or None)
    _changed.append(logger)
    logger.setLevel(level)
    logger.propagate, logger.disabled = propagates, is_disabled
    if logger.handlers:
        return  # what runs here has handlers of its own
    for where, handler_level, form in handlers:
        handler = _handler(where)
        if handler is not None:
            handler.setLevel(handler_level)
            if form is not None:
                text, date, style = form
                handler.setFormatter(logging.Formatter(text, date, style, validate=False))
            logger.addHandler(handler)
            _added.append((logger, handler))


def _handler(where: Any) -> Any:
    """A handler that writes there; None where it can't be, such as to a file of another machine."""
    import logging

    if isinstance(where, str):
        return logging.StreamHandler(getattr(sys, where))
    import socket

    host, path, encoding, errors = where
    if host == socket.gethostname():
        with contextlib.suppress(OSError):
            return logging.FileHandler(path, "a", encoding, errors=errors)
    return None


def _forget_loggers() -> None:
    for logger, handler in _added:
        logger.removeHandler(handler)
        handler.close()
    for logger in _changed:
        logger.setLevel(_first_level("" if logger.name == "root" else logger.name))
        logger.propagate, logger.disabled = True, False
    _added.clear()
    _changed.clear()
