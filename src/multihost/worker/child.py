"""The process of one slot: reads tasks from a pipe, runs them, writes what became of them.

The main thread runs users' code, as it would in their own program. A second
thread waits on the control pipe: it gives back tasks that sit unbegun behind a
long one, interrupts a task on request, and, when the agent is gone, ends this
process and all that it started. Started in a hurry and imported by nobody
else, so whatever is not needed at once is imported late.
"""

import _thread
import contextlib
import fcntl
import os
import pickle
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from multihost import mainspace
from multihost.runtime import endings, waiting
from multihost.runtime.memory import hide_what_is_kept
from multihost.worker import current, naming, output
from multihost.worker.frames import (
    CANCEL,
    DONE,
    DONE_IN_FILE,
    FOR_PROCESSES,
    FUNCTIONS,
    GIVE_BACK,
    HEADER,
    PARENT_GONE,
    PRINTED,
    READ,
    READY,
    RETURNED,
    SPOOL_BYTES,
    WAITS,
    Filed,
    FrameBuffer,
    InFile,
    split,
    write_all,
)
from multihost.worker.inbox import READ_BYTES, Entry, Inbox
from multihost.worker.pickling import Loaded, dumps, load

JOIN_BYTES = 1 << 12
"""Of so little a copy costs less than a write of two buffers."""
OK, RAISED, CANCELLED, UNRUNNABLE = 0, 1, 5, 7  # core.outcome.Ending, without its imports
LATER_S = 0.005
INTERRUPT = getattr(signal, "SIGUSR1", None)


class TaskInterrupted(BaseException):
    """The task was cancelled, or ran into its timeout. Not for ``except Exception``."""


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
        self._settings = b""
        self._main = b""
        """Of the program whose code ran here last."""
        self._current = 0
        self._token = 0
        self._prints = (os.dup(1), os.dup(2))
        """Like stdout's and stderr's descriptors, which a task may lead elsewhere."""
        self._were_read = threading.Semaphore(0)
        self._unwanted = 0
        """Token of the task that the agent wants to end, which may not have begun."""
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
            self._wait_until_read()
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

    def _wait_until_read(self) -> None:
        """See to it that the agent reads what was written to the descriptors themselves.

        It can't tell whose that was once the next task has begun; and it may be held up for long.
        """
        out, err = output.unread(self._prints)
        if out or err:
            self.send(PRINTED, out, err, b"")
            self._were_read.acquire()

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
        """Ending and payload of a task, even if it is interrupted at the first or last moment."""
        digest, code, data = split(payload)
        if style != "command":
            self._known(digest, code)  # here, where no interrupt would lose what is sent only once
        try:
            try:
                self._current, self._token, self._waits = task, token, 0
                if self._unwanted == token:
                    raise TaskInterrupted
                return self._attempt(style, digest, data)
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

    def _attempt(self, style: str, digest: bytes, data: memoryview) -> tuple[int, bytes]:
        if self._initializer_failure is not None:
            return UNRUNNABLE, self._initializer_failure
        if style == "command":
            from multihost.worker.command import run_command

            return run_command(bytes(data if self.checker is None else self.checker.bare(data)))
        try:
            function = self._function(digest)
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
            from multihost.worker import failures

            return RAISED, failures.encoded(failures.unsendable(error, result), RAISED)

    def _known(self, digest: bytes, data: bytes) -> None:
        """Keep a function under its digest; least recently used ones are forgotten as by the agent.

        As it came, until it can be read: the agent sends it only once.
        """
        functions = self._functions
        if digest in functions:
            functions.move_to_end(digest)
        else:
            functions[digest] = data
            if len(functions) > FUNCTIONS:
                functions.popitem(last=False)

    def _function(self, digest: bytes) -> Any:
        """The function, unpickled once; this process takes over what its program has set."""
        known = self._functions[digest]
        if type(known) is bytes:
            known = self._functions[digest] = load(known)
        self._be_as(known)
        return known.thing

    def _be_as(self, loaded: Loaded) -> None:
        """Take over what a program has set, and what was sent of its arguments and definitions."""
        if loaded.argv is not None:
            sys.argv[:] = loaded.argv
        if loaded.settings != self._settings:
            from multihost.runtime.settings import take_over

            self._settings = loaded.settings
            take_over(loaded.settings)
        if loaded.main != self._main:
            self._main = loaded.main
            mainspace.learn(loaded.main)

    def _initialize(self, context: bytes) -> None:
        name, _, call = context.partition(b"\0")
        if name:
            _name_process(name.decode())
        if not call:
            return
        try:
            loaded = load(call)
            self._be_as(loaded)
            function, arguments = loaded.thing
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
            for kind, _, _, token, _, _ in frames.feed(data):
                if kind == GIVE_BACK:
                    self.inbox.give_back(self._tell_returned)
                elif kind == READ:
                    self._were_read.release()
                elif kind == PARENT_GONE:
                    from multihost.worker.process import parent

                    parent.ended()
                elif kind == CANCEL and INTERRUPT is not None:
                    self._unwanted = token  # first: a task that begins just now looks at it
                    if self._current and self._token == token:
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

    def _interrupt(self, _: object = None, frame: FrameType | None = None) -> None:
        # The signal may come late, in the next task, or from users' code.
        if not self._current or self._token != self._unwanted:
            return
        if _loads_native_code(frame):
            # Of that little stands being interrupted: some modules end the process. In a moment.
            _thread.start_new_thread(self._interrupt_later, ())
            return
        if self.is_writing:
            # Raised there it would tear a frame in two, or have it written twice.
            self.is_interrupt_due = True
            return
        self._unwanted = 0
        raise TaskInterrupted

    def _interrupt_later(self) -> None:
        time.sleep(LATER_S)
        signal.pthread_kill(self.main, signal.SIGUSR1)

    def raise_due(self) -> None:
        """Raise the interruption that came while a frame was written, if one did."""
        if self.is_interrupt_due:
            self.is_interrupt_due = False
            self._interrupt()


def _loads_native_code(frame: FrameType | None) -> bool:
    """Whether a module that is not Python is being loaded there, which may be running Python."""
    while frame is not None:
        if frame.f_code.co_qualname.startswith("ExtensionFileLoader."):
            return True
        frame = frame.f_back
    return False


def _failure(error: BaseException, ending: int, depth: int = 0, what: str = "") -> bytes:
    from multihost.worker import failures

    return failures.encoded(error, ending, depth, what)


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
    pipes = [int(argument) for argument in sys.argv[1:5]]
    spool, number = sys.argv[5], int(sys.argv[6])
    is_for_processes = FOR_PROCESSES in sys.argv[7:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup = sys.stdin.buffer.read()
    if is_for_processes:
        import cloudpickle  # noqa: F401 - what a process needs first

        import multihost.worker.process  # noqa: F401 - as above
    sys.exit(serve(pipes, spool, number, os.getppid(), setup))


def serve(pipes: Sequence[int], spool: str, number: int, parent: int, setup: bytes) -> int:
    """Be the child with this number; the exit code of the process."""
    tasks_fd, outcomes_fd, control_fd, life_fd = pipes
    for descriptor in pipes:
        os.set_inheritable(descriptor, False)
    _die_with(life_fd)
    hide_what_is_kept()
    naming.name_process(number, parent, life_fd)
    seal = _setup(setup) if setup else None
    mainspace.stand_in()
    child = Child(tasks_fd, outcomes_fd, control_fd, spool, seal)
    code = child.run()
    _leave()
    return code


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
