"""``multiprocessing.Process``, on whichever machine has a worker.

A process starts at once, in an interpreter of its own beside the slots of some
worker; it waits for no slot, since several may wait for each other. It is
started at most once. What it prints appears here.

Across machines two things need saying. ``pid`` is the process's number on *its*
host, ``host`` says which: ``os.kill`` reaches it only from there, ``terminate``
and ``kill`` from everywhere. ``sentinel`` is a descriptor of *this* process
that becomes ready when the other one ends, so that ``connection.wait`` works.
"""

import atexit
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import context as standard_context
from multiprocessing import process as standard
from multiprocessing import util
from multiprocessing.process import (
    BaseProcess,
    active_children,
    current_process,
    parent_process,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from multihost import context
from multihost.client.arguments import number, text, texts, whole
from multihost.runtime import settings

if TYPE_CHECKING:
    from multihost.client.launch import Launched
    from multihost.core.job import JobSpec

__all__ = ["BaseProcess", "Process", "active_children", "current_process", "parent_process"]

DAEMON_S = 5.0
"""How long a daemon process may take to end after SIGTERM, when its starter ends."""


class Process(BaseProcess):
    """A process on some worker; to be subclassed with ``run``, as in the standard library.

    ``host``, ``tags`` and ``requires`` (``cpus``, ``memory_bytes``, ``gpus``) choose the
    worker, ``queue`` the workers that serve it. What the process prints appears here
    unless ``output`` is False.
    """

    _start_method = None
    _method: str | None = None
    _placement: Mapping[str, Any] = {}
    _queue: str | None = None
    _output = True

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] = {},
        *,
        daemon: bool | None = None,
        host: str | None = None,
        tags: Iterable[str] = (),
        requires: Mapping[str, Any] | None = None,
        queue: str | None = None,
        output: bool = True,
    ) -> None:
        """Describe the process; ``start`` starts it."""
        super().__init__(group, target, name, args, kwargs, daemon=daemon)
        placement = {**(requires or {})}
        unknown = placement.keys() - {"cpus", "memory_bytes", "gpus"}
        if unknown:
            what = min(unknown)
            raise TypeError(f"requires has no {what!r}; there are cpus, memory_bytes and gpus")
        if "cpus" in placement:
            placement["cpus"] = number("cpus", placement["cpus"])
        for what in ("memory_bytes", "gpus"):
            if what in placement:
                placement[what] = whole(what, placement[what])
        if host is not None:
            text("host", host)
        self._placement = {"host": host, "tags": texts("tags", tags), **placement}
        self._queue = queue if queue is None else text("queue", queue)
        self._output = output

    @property
    def sentinel(self) -> int:
        """A descriptor that is ready as soon as the process has ended."""
        launched = self._launched()
        if launched is None:
            raise ValueError("process not started")
        return launched.open_sentinel()

    @property
    def host(self) -> str | None:
        """Name of the machine that runs it; before the start, the one that was asked for."""
        launched = self._launched()
        return launched.host if launched is not None else self._placement.get("host")

    def _launched(self) -> "Launched | None":
        self._check_closed()  # type: ignore[attr-defined]
        launched: Launched | None = self._popen  # type: ignore[attr-defined]
        return launched

    def __getstate__(self) -> dict[str, Any]:
        """What travels: not the running process, which only its starter can wait for."""
        state = self.__dict__.copy()
        state["_popen"] = None
        state["_method"] = context.get_start_method(allow_none=True)
        state.pop("_sentinel", None)
        return state

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Run it to its end, in the child; the exit code."""
        if self._method is not None:
            context.set_start_method(self._method, force=True)
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        return code

    @staticmethod
    def _after_fork() -> None:
        """In the child: begin afresh, as the base class does."""
        BaseProcess._after_fork()  # type: ignore[attr-defined]
        util.Finalize(None, _prepare_for_threads, exitpriority=0)

    @staticmethod
    def _Popen(process: "Process") -> "Launched":  # noqa: N802 - what the base class calls
        return _launch(process)


def _launch(process: Process) -> "Launched":
    """Have a process started, and wait until it runs."""
    from multihost.client.client import shared_client
    from multihost.client.launch import Launched
    from multihost.client.packing import as_payload

    client = shared_client()
    data, is_by_value = _pack(process, is_local=client.is_embedded)
    launched = Launched(client.session, _spec(process, is_by_value=is_by_value), as_payload(data))
    _end_children_at_exit()
    launched.wait_begun()
    return launched


def _pack(process: Process, *, is_local: bool) -> tuple[bytes, bool]:
    """The payload, and whether it holds code of this version of Python."""
    from multihost.client.packing import label_of, pack_process

    standard_context.set_spawning_popen(_Spawning())  # type: ignore[arg-type]
    try:
        return pack_process(_surroundings(is_local=is_local), process, label_of(_target(process)))
    finally:
        standard_context.set_spawning_popen(None)


class _Spawning:
    """In whose presence the standard library lets keys be pickled, and asks for descriptors."""

    def duplicate_for_child(self, descriptor: int) -> NoReturn:
        """Refuse: no descriptor is of any use on another machine."""
        raise TypeError(
            f"descriptor {descriptor} can't be passed to a process on another machine; "
            "multihost.Pipe and multihost.Queue can"
        )


def _surroundings(*, is_local: bool) -> dict[str, Any]:
    """What a child has from its parent, besides the object."""
    from multihost.client.packing import definitions_met

    current: Any = current_process()
    logger = util._logger  # type: ignore[attr-defined]
    directory = None
    with contextlib.suppress(OSError):  # it may have been removed
        directory = str(Path.cwd())
    return {
        "name": current.name,
        "authkey": bytes(current.authkey),
        "argv": list(sys.argv),
        "environment": dict(os.environ) if is_local else {},
        "host": socket.gethostname(),
        "directory": directory,
        "settings": settings.taken(),
        "main": definitions_met(),
        "sys_path": [str(Path(directory or "/", path)) for path in sys.path],
        "logs_to_stderr": bool(util._log_to_stderr),  # type: ignore[attr-defined]
        "log_level": logger.getEffectiveLevel() if logger is not None else None,
    }


def _spec(process: Process, *, is_by_value: bool) -> "JobSpec":
    from multihost.client.packing import PYTHON
    from multihost.client.printer import is_shown
    from multihost.core.job import DEFAULT_QUEUE, JobSpec, Style
    from multihost.core.resources import Requirement
    from multihost.core.retry import Limits

    python = PYTHON if is_by_value else None
    return JobSpec(
        style=Style.PROCESS,
        label=process.name,
        queue=process._queue or DEFAULT_QUEUE,
        # It is started once: how it ended is its exit code.
        limits=Limits(max_attempts=1, max_crashes=1, max_losses=1),
        requires=Requirement(python=python, is_beside=True, **process._placement),
        is_transient=True,
        wants_output=process._output and is_shown(),
    )


def _target(process: Process) -> object:
    return getattr(process, "_target", None) or type(process).run


def _prepare_for_threads() -> None:
    """Threads that outlive ``run`` may be the first to use a client: it needs this module.

    While the interpreter waits for them it can't be imported any more.
    """
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        import concurrent.futures.thread  # noqa: F401


_has_exit = False


def _end_children_at_exit() -> None:
    """See to it that children end before the client does, whose handler is older."""
    global _has_exit  # noqa: PLW0603 - once a process
    if not _has_exit:
        _has_exit = True
        atexit.register(_end_children)


def _end_children() -> None:
    """At exit: daemons are terminated, all others are waited for."""
    from multihost.client.launch import end_all, interrupt_all

    children: list[Any] = [
        child
        for child in active_children()
        if isinstance(child, Process) and child._parent_pid == os.getpid()  # type: ignore[attr-defined]
    ]
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        interrupt_all()
    daemons = [child for child in children if child.daemon]
    for child in daemons:
        child.terminate()
    for child in daemons:
        child.join(DAEMON_S)
        child.kill()
    for child in children:
        child.join()
    end_all(DAEMON_S)  # those that Ctrl-C came too early for, while they were being started


def _forget_children() -> None:
    """In a forked copy of this program: the processes are the other one's to wait for."""
    children: set[Any] = standard._children  # type: ignore[attr-defined]
    children -= {child for child in children if isinstance(child, Process)}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_children)
