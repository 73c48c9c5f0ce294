"""The process of one slot: reads tasks from a pipe, runs them, writes what became of them.

The main thread runs users' code, as it would in their own program. A second
thread waits on the control pipe: it gives back tasks that sit unbegun behind a
long one, interrupts a task on request, and, when the agent is gone, ends this
process and all that it started. Started in a hurry and imported by nobody
else, so whatever is not needed at once is imported late.
"""

import contextlib
import fcntl
import io
import os
import pickle
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NoReturn

from multihost.runtime import endings, waiting
from multihost.runtime.memory import hide_what_is_kept
from multihost.worker import current, naming, output
from multihost.worker.frames import (
    CANCEL,
    CONTEXT,
    DONE,
    DONE_IN_FILE,
    FOR_PROCESSES,
    FUNCTIONS,
    GIVE_BACK,
    HEADER,
    PARENT_GONE,
    PATHS,
    READY,
    RETURNED,
    SEALED,
    SPOOL_BYTES,
    STYLES,
    TASK,
    TASK_HEAD,
    TASK_IN_FILES,
    WAITS,
    Filed,
    FrameBuffer,
    InFile,
    contents,
    split,
    write_all,
)

READ_BYTES = 1 << 16
JOIN_BYTES = 1 << 12
"""Of so little a copy costs less than a write of two buffers."""
MESSAGE_CHARS = 10_000
TRACEBACK_CHARS = 50_000
"""Of a longer one, beginning and end are kept."""
EXCEPTION_BYTES = 4 << 20
"""A larger exception does not travel; its type, message and traceback do."""
OK, RAISED, CANCELLED, UNRUNNABLE = 0, 1, 5, 7  # core.outcome.Ending, without its imports
MAIN = b"__main__"
INTERRUPT = getattr(signal, "SIGUSR1", None)


class TaskInterrupted(BaseException):
    """The task was cancelled, or ran into its timeout. Not for ``except Exception``."""


Entry = tuple[int, int, str, bytes | Filed, bytes | None]
"""Task, token, style, the payload of its frame, and what is signed of its job."""


class Inbox:
    """Tasks that have come and not begun.

    Either the main thread reads the pipe (it has nothing to do), or the control
    thread may (the main thread is busy): ``_is_reading`` says which, so no frame
    is ever torn between them.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._frames = FrameBuffer()
        self._tasks: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._is_reading = False
        self._job: bytes | None = None
        self.context: bytes | None = None
        self.paths: bytes | None = None
        self.priorities: dict[int, int] = {}
        """Of tasks whose job has one that is not 0."""

    def next(self) -> "Entry | None":
        """The next task, waiting for it; None when no more will come."""
        while True:
            with self._lock:
                if self._tasks:
                    return self._tasks.popleft()
                self._is_reading = True
            data = os.read(self._descriptor, READ_BYTES)
            with self._lock:
                self._is_reading = False
                if not data:
                    return None
                self._take(data)

    def give_back(self, tell: Callable[[list[tuple[int, int]]], None]) -> None:
        """Take out all that has not begun, and ``tell`` which tasks those are.

        What came behind them can't begin before that is told: the agent knows
        what runs by the order of what it hears.
        """
        import select

        # Not select(), which takes no descriptor above 1,023: those of many slots are.
        more = select.poll()
        more.register(self._descriptor, select.POLLIN)
        with self._lock:
            if not self._is_reading:
                while more.poll(0):
                    data = os.read(self._descriptor, READ_BYTES)
                    if not data:
                        break
                    self._take(data)
            returned = [(task, token) for task, token, *_ in self._tasks]
            self._tasks.clear()
            for task, _ in returned:
                self.priorities.pop(task, None)
            tell(returned)

    def _take(self, data: bytes) -> None:
        for kind, detail, first, second, priority, payload in self._frames.feed(data):
            if priority:
                self.priorities[first] = int(priority)
            if kind == TASK:
                self._tasks.append((first, second, STYLES[detail], payload, self._job))
            elif kind == TASK_IN_FILES:
                filed = Filed(detail, payload)
                self._tasks.append((first, second, filed.style, filed, self._job))
            elif kind == CONTEXT and detail:
                name, _, path = payload.partition(b"\0")
                self.context = name + b"\0" + contents(path)
            elif kind == CONTEXT:
                self.context = payload
            elif kind == PATHS:
                self.paths = payload
            elif kind == SEALED:
                self._job = payload


class Child:
    """What runs in a slot."""

    def __init__(
        self,
        tasks_fd: int,
        outcomes_fd: int,
        control_fd: int,
        spool: str,
        seal: bytes | None = None,
    ) -> None:
        self.checker = None
        """Checks, before anything is unpickled, that tasks are signed with the worker's seal."""
        if seal is not None:
            from multihost.worker.checker import Checker

            self.checker = Checker(seal)
        self.inbox = Inbox(tasks_fd)
        self._spool = spool
        """Where large results go."""
        self._outcomes = outcomes_fd
        self._control = control_fd
        self._write_lock = threading.Lock()
        self._functions: OrderedDict[bytes, Any] = OrderedDict()
        self._current = 0
        self._token = 0
        self._prints = (os.dup(1), os.dup(2))
        """Like stdout's and stderr's descriptors, which a task may lead elsewhere."""
        self._unwanted = 0
        """The task that the agent wants to end."""
        self.main = threading.get_ident()
        """The thread that runs users' code."""
        self.is_writing = False
        """Whether that thread is printing, and must not be interrupted."""
        self.is_interrupt_due = False
        self._waits = 0
        """How much the main thread waits for: of several futures for each."""
        self._initializer_failure: bytes | None = None
        self.is_forked = False
        """Whether this is a process that a task forked: the pipes are not its own."""

    @property
    def current(self) -> tuple[int, int]:
        """Task and token that run now; zeros between tasks."""
        return self._current, self._token

    def run(self) -> int:
        """Run tasks until the agent closes the pipe; the exit code of this process."""
        output.install(self)
        current.told_by(lambda: self.current)
        waiting.told_by(self._tell_waiting, self._priority)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        if INTERRUPT is not None:
            signal.signal(INTERRUPT, self._interrupt)
        threading.Thread(target=self._obey, name="multihost-control", daemon=True).start()
        inbox, send = self.inbox, self.send
        send(READY, 0, 0, b"")
        while (entry := inbox.next()) is not None:
            task, token, style, payload, _ = entry
            began = time.perf_counter()
            if self.checker is not None and self._refuses(entry):
                continue
            if inbox.paths is not None or inbox.context is not None:
                self._begin()
            if style == "process":
                return self._live(task, token, payload)
            ending, data = self._settle(*self._run(task, token, style, payload))
            data = self._signed(ending, data)
            output.flush()
            if self.is_forked:
                os._exit(0)  # a task forgot to; its result is the other process's
            self.wait_until_read()
            kind = DONE
            if len(data) > SPOOL_BYTES and ending == OK:
                kind, ending, data = self._to_file(task, token, data)
            run_s = time.perf_counter() - began
            send(kind, task, token, data, detail=ending, seconds=run_s)
        return 0

    def send(
        self,
        kind: int,
        first: int,
        second: int,
        payload: bytes,
        *,
        detail: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Write a frame to the agent; from any thread."""
        head = HEADER.pack(len(payload), kind, detail, first, second, seconds)
        with self._write_lock:
            if len(payload) > JOIN_BYTES:
                write_all(self._outcomes, [head, payload])
                return
            data = head + payload
            written = os.write(self._outcomes, data)
            if written < len(data):
                write_all(self._outcomes, [data[written:]])

    def wait_until_read(self) -> None:
        """Wait until the agent has read what was written to the descriptors themselves."""
        if not self.is_forked:
            output.wait_until_read(self._prints)

    def _tell_waiting(self, is_waiting: bool) -> None:  # noqa: FBT001 - what waiting tells
        """Tell the agent when the task begins to wait for others, and when it goes on."""
        if threading.get_ident() != self.main or not self._current or self.is_forked:
            return
        before = self._waits
        self._waits = max(0, before + (1 if is_waiting else -1))
        if bool(before) == bool(self._waits):
            return
        was_writing, self.is_writing = self.is_writing, True
        try:
            self.send(WAITS, self._current, self._token, b"", detail=is_waiting)
        finally:
            self.is_writing = was_writing
            self.raise_due()

    def _priority(self) -> int | None:
        """Priority of the job whose task runs here; None: none does."""
        return self.inbox.priorities.get(self._current, 0) if self._current else None

    # running -------------------------------------------------------------------------

    def _begin(self) -> None:
        """Become a child of the pool or the job that is served from now on."""
        inbox = self.inbox
        paths, inbox.paths = inbox.paths, None
        context, inbox.context = inbox.context, None
        if paths is not None:
            _import_from(paths)
        if context is not None:
            self._initialize(context)

    def _refuses(self, entry: Entry) -> bool:
        """Whether a task was not signed as it should be; nothing of it was looked into."""
        assert self.checker is not None
        refusal = self.checker.refusal(entry, self.inbox.paths, self.inbox.context)
        if refusal is not None:
            self._refuse(entry, refusal)
        return refusal is not None

    def _refuse(self, entry: Entry, refusal: str) -> None:
        """Report a task that must not be run."""
        task, token, style, payload, _ = entry
        if style == "process":
            # Its outcome is its exit code, and what it says goes to whoever started it.
            output.install_descriptors()
            self._current, self._token = task, token
            sys.stderr.write(f"multihost: {refusal}\n")
            output.flush()
            self.wait_until_read()
            os._exit(1)
        # The agent sends a function only once.
        digest, function, _ = split(payload)
        self._known(digest, function)
        assert self.checker is not None
        self.send(DONE, task, token, self.checker.failure(refusal), detail=UNRUNNABLE)

    def _live(self, task: int, token: int, payload: bytes | Filed) -> int:
        """Be the process that a user started; its exit code. Nothing else runs here after it."""
        from multihost.worker.process import live

        self._current, self._token = task, token
        output.install_descriptors()
        if INTERRUPT is not None:
            signal.signal(INTERRUPT, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = live(split(payload)[2])
        endings.work_ended(code == 0)
        return code

    def _run(self, task: int, token: int, style: str, payload: bytes | Filed) -> tuple[int, bytes]:
        """Ending and payload of a task, even if it is interrupted at the last moment."""
        try:
            try:
                self._current, self._token, self._waits = task, token, 0
                return self._attempt(style, payload)
            finally:
                self._current = 0
                self.inbox.priorities.pop(task, None)
        except TaskInterrupted:
            self._current = 0
            return CANCELLED, b""

    def _settle(self, ending: int, data: bytes) -> tuple[int, bytes]:
        """Have done with what the task took from queues, or leave it to others."""
        try:
            endings.work_ended(ending == OK)
        except Exception as error:  # the server is gone, or refuses: the work is not done
            if ending == OK:
                return RAISED, _failure(error, RAISED)
        return ending, data

    def _signed(self, ending: int, data: bytes) -> bytes:
        """An outcome as it leaves the machine."""
        return data if self.checker is None else self.checker.sign(ending, data)

    def _to_file(self, task: int, token: int, data: bytes) -> tuple[int, int, bytes]:
        """Kind, ending and payload of the frame for a large result."""
        from multihost.core.digest import digest_of

        name = f"{os.getpid()}-{task}-{token}"
        path = os.path.join(self._spool, name)  # noqa: PTH118 - as above
        try:
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - as above
                write_all(file.fileno(), [data])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - as above
            text = (
                f"a result of {len(data):,} bytes can't be kept in {self._spool} on its way to "
                f"the server: {error.strerror}; make room there, or start the worker with "
                "--spool DIR on a larger disk"
            )
            failure = _failure(OSError(error.errno, text), RAISED)
            return DONE, RAISED, self._signed(RAISED, failure)  # not what was signed before
        return DONE_IN_FILE, OK, InFile(digest_of(data), len(data), name).pack()

    def _attempt(self, style: str, payload: bytes | Filed) -> tuple[int, bytes]:
        if self._initializer_failure is not None:
            return UNRUNNABLE, self._initializer_failure
        if type(payload) is bytes:
            digest, size = TASK_HEAD.unpack_from(payload)
            at = TASK_HEAD.size + size
            code, data = payload[TASK_HEAD.size : at], memoryview(payload)[at:]
        else:
            digest, code, data = split(payload)
        if style == "command":
            from multihost.worker.command import run_command

            return run_command(bytes(data if self.checker is None else self.checker.bare(data)))
        try:
            function = self._function(digest, code)
            arguments = pickle.loads(data)
        except (Exception, SystemExit) as error:  # whatever users' reducers raise
            return UNRUNNABLE, _failure(error, UNRUNNABLE)
        try:
            if style == "call":
                result = function(*arguments[0], **arguments[1])
            elif style == "map":
                result = [function(item) for item in arguments]
            else:
                result = [function(*items) for items in arguments]
        except TaskInterrupted:
            raise
        except BaseException as error:  # sys.exit in a task ends the task, not the slot
            return RAISED, _failure(error, RAISED, depth=1)
        del arguments
        try:
            return OK, dumps(result)
        except (Exception, SystemExit) as error:
            return RAISED, _failure(_encoding_error(error, result), RAISED)

    def _known(self, digest: bytes, data: bytes) -> Any:
        """What is kept under a digest; least recently used ones are forgotten as by the agent."""
        functions = self._functions
        function = functions.get(digest)
        if function is None:
            functions[digest] = function = data
            if len(functions) > FUNCTIONS:
                functions.popitem(last=False)
        else:
            functions.move_to_end(digest)
        return function

    def _function(self, digest: bytes, data: bytes) -> Any:
        """The function, unpickled once; ``sys.argv`` becomes that of its program."""
        known = self._known(digest, data)
        if type(known) is bytes:
            # Kept as it came until it can be read: the agent sends it only once.
            known = self._functions[digest] = _load(known)
        function, argv = known
        if argv is not None:
            sys.argv[:] = argv
        return function

    def _initialize(self, context: bytes) -> None:
        name, _, call = context.partition(b"\0")
        if name:
            _name_process(name.decode())
        if not call:
            return
        try:
            (function, arguments), argv = _load(call)
            if argv is not None:
                sys.argv[:] = argv
            function(*arguments)
        except BaseException as error:  # told to whoever wanted a task run here
            what = "the initializer failed: "
            self._initializer_failure = _failure(error, UNRUNNABLE, depth=1, what=what)
        output.flush()
        self.send(READY, 0, 0, b"")

    # the control thread ------------------------------------------------------------------

    def _obey(self) -> NoReturn:
        frames = FrameBuffer()
        while data := os.read(self._control, READ_BYTES):
            for kind, _, task, _, _, _ in frames.feed(data):
                if kind == GIVE_BACK:
                    self.inbox.give_back(self._tell_returned)
                elif kind == PARENT_GONE:
                    from multihost.worker.process import parent

                    parent.ended()
                elif kind == CANCEL and task == self._current and INTERRUPT is not None:
                    self._unwanted = task
                    signal.pthread_kill(self.main, INTERRUPT)
        # The agent is gone, and nobody would ever read our outcomes.
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def _tell_returned(self, tasks: list[tuple[int, int]]) -> None:
        text = b"".join(
            task.to_bytes(8, "little") + token.to_bytes(8, "little") for task, token in tasks
        )
        self.send(RETURNED, len(tasks), 0, text)

    def _forked(self) -> None:
        """Let go of the pipes: the agent knows by their end that the slot's process is gone."""
        self.is_forked = True
        for descriptor in (self.inbox._descriptor, self._outcomes, self._control):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _interrupt(self, *_: object) -> None:
        # The signal may come late, in the next task, or from users' code.
        if not self._current or self._current != self._unwanted:
            return
        if self.is_writing:
            # Raised there it would tear a frame in two, or have it written twice.
            self.is_interrupt_due = True
            return
        self._unwanted = 0
        raise TaskInterrupted

    def raise_due(self) -> None:
        """Raise the interruption that came while a frame was written, if one did."""
        if self.is_interrupt_due:
            self.is_interrupt_due = False
            self._interrupt()


def _load(data: bytes) -> tuple[Any, list[str] | None]:
    """What was pickled, and the arguments of the program that did it, if they follow."""
    pickles = io.BytesIO(data)
    loaded = pickle.load(pickles)
    return loaded, pickle.load(pickles) if pickles.tell() < len(data) else None


def dumps(value: Any) -> bytes:
    """Pickle a result as the standard library does, but what came from ``__main__`` by value.

    A lambda of an imported module stays the error that it is there.
    """
    try:
        data = pickle.dumps(value, 5)
    except (Exception, SystemExit) as error:  # whatever users' reducers raise
        import cloudpickle

        data = cloudpickle.dumps(value, 5)
        if MAIN not in data:
            raise error from None
    else:
        if MAIN in data:
            import cloudpickle

            data = cloudpickle.dumps(value, 5)
    return data


def _failure(error: BaseException, ending: int, depth: int = 0, what: str = "") -> bytes:
    """Failure in a form that others can read without unpickling."""
    import traceback

    from multihost.core.outcome import Ending, Failure, encode_failure

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


def _encoding_error(error: BaseException, result: Any) -> Any:
    """What multiprocessing raises for a result that can't be pickled, of bounded size."""
    from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]

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


def _import_from(paths: bytes) -> None:
    """Find what a job has shipped before anything that is installed here."""
    import importlib

    sys.path[:0] = [os.fsdecode(path) for path in paths.split(b"\0")]
    importlib.invalidate_caches()


def _name_process(name: str) -> None:
    """Name this process as multiprocessing would, for logs and for users' code."""
    import multiprocessing

    process = multiprocessing.current_process()
    process.name = name


def main() -> None:
    """Run a slot over the four pipes given; then come the spool's directory and its own number."""
    tasks_fd, outcomes_fd, control_fd, life_fd = map(int, sys.argv[1:5])
    spool, number = sys.argv[5], int(sys.argv[6])
    is_for_processes = FOR_PROCESSES in sys.argv[7:]
    for descriptor in (tasks_fd, outcomes_fd, control_fd, life_fd):
        os.set_inheritable(descriptor, False)
    _die_with(life_fd)
    hide_what_is_kept()
    setup = sys.stdin.buffer.read()
    seal = _setup(setup) if setup else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.meta_path.insert(0, naming.PoolWorker(number, life_fd))
    if is_for_processes:
        import cloudpickle  # noqa: F401 - what a process needs first

        import multihost.worker.process  # noqa: F401 - as above
    child = Child(tasks_fd, outcomes_fd, control_fd, spool, seal)
    code = child.run()
    _leave()
    child.wait_until_read()
    sys.exit(code)


def _die_with(life: int) -> None:
    """Have the kernel kill this process and what it started when the agent's end is closed.

    The control thread does so, too, but can't run while C code holds the interpreter.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def _setup(data: bytes) -> bytes | None:
    """Be where the program is that the work comes from; the worker's seal, if it has one."""
    import json

    options = json.loads(data)
    first = [*options.get("first_path", ()), *options.get("sys_path", ())]
    # In the program's order: what it put first may be meant to hide what is installed.
    sys.path[:] = [*first, *(path for path in sys.path if path not in first)]
    if options.get("argv"):
        sys.argv[:] = options["argv"]
    seal = options.get("seal")
    return None if seal is None else bytes.fromhex(seal)


def _leave() -> None:
    """End as a process of multiprocessing does: its finalizers run, then atexit's."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._exit_function()
    output.flush()
