"""What runs in a slot: reads tasks from a pipe, runs them, writes what became of them.

The main thread runs users' code, as it would in their own program. A second
thread waits on the control pipe: it gives back tasks that sit unbegun behind a
long one, interrupts a task on request, and, when the agent is gone, ends this
process and all that it started. Its process is started in a hurry, so whatever
is not needed at once is imported late.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from typing import NoReturn

from multihost.runtime import endings, waiting
from multihost.worker import current, output
from multihost.worker.frames import (
    CANCEL,
    DONE,
    DONE_IN_FILE,
    GIVE_BACK,
    PARENT_GONE,
    PRINTED,
    READ,
    READY,
    RETURNED,
    SPOOL_BYTES,
    WAITS,
    Filed,
    FrameBuffer,
    FrameWriter,
    InFile,
    split,
    write_all,
)
from multihost.worker.functions import Functions
from multihost.worker.inbox import READ_BYTES, Entry, Inbox
from multihost.worker.pickling import dumps, load
from multihost.worker.running import INTERRUPT, Running, TaskInterrupted

OK, RAISED, CANCELLED, UNRUNNABLE = 0, 1, 5, 7  # core.outcome.Ending, without its imports


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
        self.agent = FrameWriter(outcomes_fd)
        self._control = control_fd
        self._functions = Functions()
        self.running = Running()
        self._prints = (os.dup(1), os.dup(2))
        """Like stdout's and stderr's descriptors, which a task may lead elsewhere."""
        self._were_read = threading.Semaphore(0)
        self._waits = 0
        """How much the main thread waits for: of several futures for each."""
        self._initializer_failure: bytes | None = None

    def run(self) -> int:
        """Run tasks until the agent closes the pipe; the exit code of this process."""
        output.install(self.agent, self.running)
        current.told_by(lambda: self.running.lease)
        waiting.told_by(self._tell_waiting, self._priority)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
        self.running.listen()
        threading.Thread(target=self._obey, name="multihost-control", daemon=True).start()
        inbox, send = self.inbox, self.agent.send
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
            if self.agent.is_closed:
                os._exit(0)  # a task forgot to; its result is the other process's
            self._wait_until_read()
            kind = DONE
            if len(data) > SPOOL_BYTES and ending == OK:
                kind, ending, data = self._to_file(task, token, data)
            run_s = time.perf_counter() - began
            send(kind, task, token, data, detail=ending, seconds=run_s)
        return 0

    def _wait_until_read(self) -> None:
        """See to it that the agent reads what was written to the descriptors themselves.

        It can't tell whose that was once the next task has begun; and it may be held up for long.
        """
        out, err = output.unread(self._prints)
        if out or err:
            self.agent.send(PRINTED, out, err, b"")
            self._were_read.acquire()

    def _tell_waiting(self, is_waiting: bool) -> None:  # noqa: FBT001 - what waiting tells
        """Tell the agent when the task begins to wait for others, and when it goes on."""
        running = self.running
        if threading.get_ident() != running.main or not running.task or self.agent.is_closed:
            return
        before = self._waits
        self._waits = max(0, before + (1 if is_waiting else -1))
        if bool(before) == bool(self._waits):
            return
        was_writing, running.is_writing = running.is_writing, True
        try:
            self.agent.send(WAITS, running.task, running.token, b"", detail=is_waiting)
        finally:
            running.is_writing = was_writing
            running.raise_due()

    def _priority(self) -> int | None:
        """Priority of the job whose task runs here; None: none does."""
        task = self.running.task
        return self.inbox.priorities.get(task, 0) if task else None

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
            self.running.task, self.running.token = task, token
            sys.stderr.write(f"multihost: {refusal}\n")
            output.flush()
            os._exit(1)
        # The agent sends a function only once.
        digest, function, _ = split(payload)
        self._functions.keep(digest, function)
        assert self.checker is not None
        self.agent.send(DONE, task, token, self.checker.failure(refusal), detail=UNRUNNABLE)

    def _live(self, task: int, token: int, payload: bytes | Filed) -> int:
        """Be the process that a user started; its exit code. Nothing else runs here after it."""
        from multihost.worker.process import live

        self.running.task, self.running.token = task, token
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
            # Here, where no interrupt would lose what is sent only once.
            self._functions.keep(digest, code)
        running = self.running
        try:
            try:
                running.task, running.token, self._waits = task, token, 0
                if running.unwanted == token:
                    raise TaskInterrupted
                return self._attempt(style, digest, data)
            finally:
                running.task = 0
                self.inbox.priorities.pop(task, None)
        except TaskInterrupted:
            running.task = 0
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
            function = self._functions.take(digest)
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

    def _initialize(self, context: bytes) -> None:
        name, _, call = context.partition(b"\0")
        if name:
            _name_process(name.decode())
        if not call:
            return
        try:
            loaded = load(call)
            self._functions.be_as(loaded)
            function, arguments = loaded.thing
            function(*arguments)
        except BaseException as error:  # told to whoever wanted a task run here
            what = "the initializer failed: "
            self._initializer_failure = _failure(error, UNRUNNABLE, depth=1, what=what)
        output.flush()
        self.agent.send(READY, 0, 0, b"")

    # the control thread ------------------------------------------------------------------

    def _obey(self) -> NoReturn:
        # What can't be answered has nobody to answer to: the agent is gone just as well.
        with contextlib.suppress(BrokenPipeError):
            self._heed()
        # The agent is gone, and nobody would ever read our outcomes.
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def _heed(self) -> None:
        """Do as the agent says until it is gone; raises BrokenPipeError if it goes amid that."""
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
                elif kind == CANCEL:
                    self.running.end(token)

    def _tell_returned(self, tasks: list[tuple[int, int]]) -> None:
        text = b"".join(
            task.to_bytes(8, "little") + token.to_bytes(8, "little") for task, token in tasks
        )
        self.agent.send(RETURNED, len(tasks), 0, text)

    def _forked(self) -> None:
        """Let go of the pipes: the agent knows by their end that the slot's process is gone."""
        self.agent.close()
        for descriptor in (self.inbox._descriptor, self._control):
            with contextlib.suppress(OSError):
                os.close(descriptor)


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
