"""One job as its client sees it: tasks go in, outcomes come out.

A stream is made on any thread and tasks are appended on any thread, which sends a
lone one itself; all else happens on the event-loop thread. It keeps what the server
has not acknowledged and sends it again, under the same uid and indices, after a
reconnect; outcomes that come twice are told by their index. Whoever waits for a task
is its *receiver*, called on the event-loop thread with a position of its own choice.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from multihost.client.blobs import Bytes
from multihost.client.earlier import EarlierRun
from multihost.client.forking import forget_in_child
from multihost.client.outcomes import refusal
from multihost.client.packing import Bulk
from multihost.client.receiver import Receiver
from multihost.core.ids import make_uid
from multihost.core.job import MAX_LABEL_CHARS, JobSpec
from multihost.core.outcome import Ending
from multihost.errors import (
    ConnectionLost,
    MultihostError,
    SubmitUnknown,
    TaskCancelled,
)
from multihost.wire import message as m

if TYPE_CHECKING:
    from multihost.client.session import Session
    from multihost.client.signing import Signer

ADD_TASKS = 2_000
"""Tasks in one Add message at most."""
ADD_BYTES = 1 << 20
"""Bytes of payloads after which an Add message is full."""
TURN_TASKS = 20_000
TURN_BYTES = 4 << 20
"""What is sent in one turn of the loop; then the connection is asked whether it takes more."""
ALONE_BYTES = 8 << 10
"""A task with a larger payload is not sent by the thread that appends it."""
TAKEN_EVERY = 1_000
"""Outcomes after which the server is told that it may drop them."""


class Stream:
    """A job to which tasks are appended at rising indices.

    Invariant: a task is in ``_inbox`` or in ``_pending`` until its receiver was
    told its outcome or its refusal, and that happens exactly once.
    """

    def __init__(
        self,
        session: "Session",
        spec: JobSpec,
        blobs: Iterable[Bulk] = (),
        *,
        is_watched: bool = False,
    ) -> None:
        """Prepare a job; it is opened with its first task.

        ``blobs`` are those that ``spec`` refers to. ``is_watched``: receivers are
        Watchers and are told of the acknowledgement, and of the start if
        ``spec.wants_starts``.
        """
        self.session = session
        if len(spec.label) > MAX_LABEL_CHARS:
            spec = msgspec.structs.replace(spec, label=spec.label[:MAX_LABEL_CHARS])
        self.spec = spec
        self.uid = make_uid(time.time_ns() // 1_000_000, os.urandom(10))
        self._signer: Signer | None = None
        """Where there is a seal: signs what goes out, checks what comes back."""
        self._sign()
        self.number: int | None = None
        """The server's number of the job, once it is open."""
        self.earlier = None if spec.is_transient else EarlierRun(spec)
        """What a lasting job held already when it was opened."""
        self.waiting = ""
        """Why its tasks are not being run, as far as the server told."""
        self.total: int | None = None
        """Tasks it will ever have, once that was stated."""
        self.title = ""
        """What a process is called where its output is told from others'."""
        self.alias = 0
        self._blobs = tuple(blobs)
        self._is_watched = is_watched
        self._changing = threading.RLock()
        """Held to send tasks, and where it matters that none is sent meanwhile."""
        self._inbox: deque[tuple[bytes | Bulk | m.Blob, Any, int]] = deque()
        self._is_due = False
        self._count = 0
        self._pending: dict[int, tuple[Any, int]] = {}
        self._unstored: dict[int, m.Add] = {}
        self._fetching: set[int] = set()
        self._cancelled: set[int] = set()
        self._signals: list[int] = []
        self._untaken = 0
        self._is_opened = False
        self._is_sent = False
        self._is_closed = False
        self._is_cut = False
        """Closed with tasks unfinished."""
        self._was_ended = False
        """Closed by the server, which had taken us for dead."""
        self.failure: MultihostError | None = None
        """Why nothing of it will ever run; another stream has to be made."""
        self._when_opened: list[Callable[[], None]] = []
        self._when_idle: list[Callable[[], None]] = []
        _streams.add(self)

    # any thread --------------------------------------------------------------------

    def append(self, payload: bytes | Bulk, receiver: Receiver, position: int = 0) -> None:
        """Add a task. Batches form by themselves while the loop is busy."""
        if not self._pending and self._send_alone(payload, receiver, position):
            return
        self._inbox.append((payload, receiver, position))
        if not self._is_due:
            self._is_due = True
            try:
                self.session.post(self._flush)
            except BaseException:  # interrupted, or no client any more: whoever is next tries again
                self._is_due = False
                raise

    def _send_alone(self, payload: bytes | Bulk, receiver: Receiver, position: int) -> bool:
        """Send a task from here, which spares two switches of threads; whether it was.

        Only when nothing else of the job is on its way: more of them make a batch.
        """
        if payload.__class__ is not bytes or len(payload) > ALONE_BYTES:
            return False
        with self._changing:
            if self._inbox or self._pending or self._is_due or not self._is_steady():
                return False
            index = self._count
            add = self._new_add(index, [payload])
            self._count = index + 1
            self._pending[index] = (receiver, position)
            try:
                if self.session.send_here(add):
                    return True
            except BaseException:  # interrupted: it may have left
                self.session.post(lambda: self.session.send(add))
                raise
            self._count = index
            del self._pending[index], self._unstored[index]
            return False

    def _is_steady(self) -> bool:
        """Whether the server keeps the job, and it goes on."""
        return (
            self._is_sent
            and self._is_opened
            and not self._is_closed
            and self.earlier is None
            and self.failure is None
        )

    def receivers(self) -> list[Any]:
        """Who waits for a task right now, oldest first."""
        waiting = [receiver for receiver, _ in list(self._pending.values())]
        return waiting + [receiver for _, receiver, _ in list(self._inbox)]

    @property
    def unfinished(self) -> int:
        """Tasks appended whose outcome has not come; from other threads an estimate."""
        return len(self._inbox) + len(self._pending)

    @property
    def appended(self) -> int:
        """Tasks appended so far."""
        with self._changing:
            return self._count + len(self._inbox)

    # the loop's thread: out ----------------------------------------------------------

    def _flush(self) -> None:
        """Send what was appended, if the connection takes it."""
        with self._changing:
            self._send_inbox()

    def _send_inbox(self) -> None:
        self._is_due = False
        failure = self.failure or self.session.failure
        if failure is not None:
            self._refuse_inbox(failure)
            self._after_outcomes()
            return
        if self._is_closed and self._inbox and not self._begins_again():
            return
        if not self._inbox or not self._may_send():
            return
        inbox, pending, index = self._inbox, self._pending, self._count
        first, payloads, size_bytes = index, [], 0
        last = index + TURN_TASKS
        turn_bytes = 0
        while inbox and index < last and turn_bytes < TURN_BYTES:
            payload, receiver, position = inbox.popleft()
            pending[index] = (receiver, position)
            index += 1
            if type(payload) is bytes:
                payloads.append(payload)
                size_bytes += len(payload)
                if size_bytes < ADD_BYTES and len(payloads) < ADD_TASKS:
                    continue
            self._add(first, payloads)
            if not isinstance(payload, bytes):
                self._add_bulk(index - 1, payload)
            first, payloads, turn_bytes, size_bytes = index, [], turn_bytes + size_bytes, 0
        if self.earlier is not None:
            self.earlier.submitted(range(self._count, index))
        self._count = index
        self._add(first, payloads)
        if inbox and not self._is_due:
            self._is_due = True
            self.session.post(self._flush)

    def _begins_again(self) -> bool:
        """A task came while the idle job was being closed: it goes into a new one.

        Not yet if that job was ended by the server and tasks of it are still to be told so.
        """
        if self._pending:
            return False
        if self._was_ended:
            self._was_ended = False
            self.session.send(m.Close(self.alias))
            self.session.unregister(self)
        self.uid = make_uid(time.time_ns() // 1_000_000, os.urandom(10))
        self._sign()
        self.alias = self._count = 0
        self._is_closed = self._is_sent = self._is_opened = False
        self.number = self.total = None
        return True

    def _sign(self) -> None:
        if self.session.seal is not None:
            from multihost.client.signing import Signer

            self._signer = Signer(self.session.seal, self.spec, self.uid)
            self.spec = self._signer.spec

    def _may_send(self) -> bool:
        if not self._is_sent and self.session.is_connected:
            self._open()
        if self._is_sent and self.session.is_writable:
            return True
        self.session.wait_writable(self._flush)
        return False

    def _open(self) -> None:
        """Open the job; its small blobs travel in the same frame, a large one first."""
        if not self.alias:
            self.session.register(self)
        if not self._is_opened:
            for blob, data in self._blobs:
                if blob.size_bytes > m.INLINE_BYTES:
                    if not self.session.blobs.is_known(blob):
                        self.session.blobs.put(blob, data, self._blob_stored)
                        return
                else:
                    self.session.send(m.PutBlob(blob.digest, blob.size_bytes, 0, data))
        self._is_sent = True
        self.session.send(m.Open(self.alias, self.uid, self.spec, self._taken_upto()))

    def _blob_stored(self, error: MultihostError | None) -> None:
        if error is not None:
            self.fail(error)
        elif not self._is_sent:
            self.resume()
            self._flush()

    def on_blob_refused(self, message: m.BlobRefused) -> None:
        """If it is the function's or the initializer's, no task of the job can run."""
        if any(blob.digest == message.digest for blob, _ in self._blobs):
            text = f"the job's function was not stored: {message.message}"
            self.fail(refusal(message.code, text))

    def _add(self, first: int, payloads: list[Any]) -> None:
        if payloads:
            self.session.send(self._new_add(first, payloads))

    def _new_add(self, first: int, payloads: list[Any]) -> m.Add:
        """The message that adds these, signed if there is a seal, kept until it is acknowledged."""
        if self._signer is not None:
            payloads = self._signer.tasks(first, payloads)
        add = self._unstored[first] = m.Add(self.alias, first, payloads)
        return add

    def _send_cancels(self, indices: list[int], *, only_queued: bool = False) -> None:
        for at in range(0, len(indices), m.BATCH_TASKS):
            part = indices[at : at + m.BATCH_TASKS]
            self.session.send(m.Cancel(self.alias, part, only_queued))

    def _add_bulk(self, index: int, bulk: Bulk | m.Blob) -> None:
        """Send the task when the server has its payload."""
        if isinstance(bulk, m.Blob):  # it has: this is not the first job that it is for
            self._add(index, [bulk])
            return
        if self._signer is not None:
            bulk = self._signer.bulk(index, bulk)

        def stored(error: MultihostError | None) -> None:
            if error is None:
                self._add(index, [bulk.blob])
                if index in self._cancelled:  # the server did not know it then
                    self._send_cancels([index])
            else:
                self._refuse([index], error)

        self.session.blobs.put(bulk.blob, bulk.data, stored)

    def seal(self) -> None:
        """State that no more tasks come."""
        with self._changing:
            if self.total is None and self.failure is None:
                self.total = self._count + len(self._inbox)
                if self._is_sent:
                    self.session.send(m.Seal(self.alias, self.total))

    def end_after_one(self) -> None:
        """The job has one task: state that, and be done when it has ended."""
        self.when_opened(self.seal)
        self.close_when_idle()

    def cancel(self, receivers: set[Any] | None = None, *, only_queued: bool = False) -> None:
        """Cancel the tasks of these receivers, or all (None); outcomes tell what became of them."""
        self._cancel_unsent(receivers)
        with self._changing:
            pending = list(self._pending.items())
        indices = [i for i, entry in pending if receivers is None or entry[0] in receivers]
        self._cancelled.update(indices)
        if indices and self._is_sent:
            self._send_cancels(indices, only_queued=only_queued)

    def _cancel_unsent(self, receivers: set[Any] | None) -> None:
        for _ in range(len(self._inbox)):
            payload, receiver, position = self._inbox.popleft()
            if receivers is None or receiver in receivers:
                receiver.settle(position, Ending.CANCELLED, b"")
            else:
                self._inbox.append((payload, receiver, position))
        self._after_outcomes()

    def close(self, reason: str = "its client is done with it") -> None:
        """Be done with the job: a transient one is ended, a lasting one goes on without us."""
        with self._changing:
            if self._is_closed and not self._was_ended:
                return
            self._is_closed, self._was_ended = True, False
            self._is_cut = self.unfinished > 0
        if self._is_cut:
            self.fail(TaskCancelled(f"the task was given up: {reason}"))
        if self.alias and (self.session.is_connected or not self._is_opened):
            self._say_close()

    def close_when_idle(self) -> None:
        """Be done with the job as soon as nothing of it is unfinished."""
        self.when_idle(self._close_idle)

    def _close_idle(self) -> None:
        with self._changing:
            if not self.unfinished:
                self.close()
                return
        self.when_idle(self._close_idle)  # a task came in this very moment

    def _say_close(self) -> None:
        if self._is_sent:
            if self.spec.is_transient and self._is_cut:
                self.session.send(m.Cancel(self.alias))
            elif self.spec.is_transient:
                self.session.send(m.Taken(self.alias, self._count))
                self.session.send(m.Seal(self.alias, self._count))
            self.session.send(m.Close(self.alias))
        self.session.unregister(self)

    def when_opened(self, then: Callable[[], None]) -> None:
        """Call ``then`` as soon as the server keeps the job, or never will."""
        if self._is_opened or self.failure is not None:
            then()
        else:
            self._when_opened.append(then)
            self._may_send()

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call ``then`` as soon as every appended task has its outcome."""
        if self.unfinished:
            self._when_idle.append(then)
            if self._inbox and not self._is_due:  # whoever appended was interrupted
                self._flush()
        else:
            then()

    # the loop's thread: in -------------------------------------------------------------

    def on_outcomes(self, message: m.Outcomes) -> None:
        """Give outcomes to their receivers; repeated ones are dropped."""
        pending, signer = self._pending, self._signer
        outcomes = message.outcomes
        if self.earlier is not None:
            outcomes = self.earlier.sift(outcomes)
        for outcome in outcomes:
            payload = outcome.payload
            if not isinstance(payload, bytes):
                self._fetch(outcome)
                continue
            entry = pending.pop(outcome.index, None)
            if entry is not None:
                if signer is None:
                    entry[0].settle(entry[1], outcome.ending, payload)
                else:
                    self._settle_signed(entry, outcome.index, outcome.ending, payload)
        self._untaken += len(outcomes)
        self._after_outcomes()

    def _after_outcomes(self) -> None:
        if self._untaken >= TAKEN_EVERY and self.spec.is_transient:
            self._untaken = 0
            self.session.send(m.Taken(self.alias, self._taken_upto()))
        if self._was_ended and self._inbox and not self._pending:
            self._flush()
        if self._when_idle and not self.unfinished:
            waiting, self._when_idle = self._when_idle, []
            for then in waiting:
                then()

    def _settle_signed(
        self, entry: tuple[Any, int], index: int, ending: Ending, payload: Bytes
    ) -> None:
        """Give an outcome to its receiver, or the reason why it must not be unpickled."""
        error = None
        if self._signer is not None:
            error = self._signer.error_of(index, ending, payload)
        if error is None:
            entry[0].settle(entry[1], ending, payload)
        else:
            entry[0].refuse(entry[1], error)

    def _fetch(self, outcome: m.Outcome) -> None:
        """Bring a large result here before its receiver is told, while the server keeps it."""
        index = outcome.index
        if index not in self._pending or index in self._fetching:
            return
        self._fetching.add(index)

        def fetched(result: Bytes | MultihostError) -> None:
            self._fetching.discard(index)
            entry = self._pending.pop(index, None)
            if entry is None:
                return
            if isinstance(result, MultihostError):
                entry[0].refuse(entry[1], result)
            else:
                self._settle_signed(entry, index, outcome.ending, result)
            self._after_outcomes()

        assert isinstance(outcome.payload, m.Blob)
        self.session.blobs.get(outcome.payload, fetched)

    def on_stored(self, message: m.Stored) -> None:
        """Forget tasks that the server keeps."""
        self._forget(message.first, message.count)
        if self._is_watched:
            for index in range(message.first, message.first + message.count):
                entry = self._pending.get(index)
                if entry is not None:
                    entry[0].stored(entry[1])
        if self.earlier is not None:
            held = self.earlier.compared(range(message.first, message.first + message.count))
            if held:
                self.on_outcomes(m.Outcomes(self.alias, held))

    def _forget(self, first: int, count: int) -> None:
        end = first + count
        while first < end:
            add = self._unstored.pop(first, None)
            if add is None:
                return
            first += len(add.payloads)

    def on_started(self, message: m.Started) -> None:
        """Tell receivers that their tasks run."""
        if self._is_watched:
            for index in message.indices:
                entry = self._pending.get(index)
                if entry is not None:
                    entry[0].started(entry[1])

    def on_process_began(self, message: m.ProcessBegan) -> None:
        """Tell whoever started a process that it runs, and where."""
        self.title = f"{self.spec.label}@{message.host}"
        entry = self._pending.get(message.index)
        if entry is not None:
            entry[0].began(message.pid, message.host, message.worker)

    def signal(self, number: int) -> None:
        """Send a signal to the job's only process; again after a reconnect, lest it was lost."""
        self._signals.append(number)
        if self._is_sent:
            self.session.send(m.Signal(self.alias, 0, number))

    def on_opened(self, message: m.Opened) -> None:
        """The job is kept; its blobs need not be sent again."""
        self._is_opened = True
        self.number = message.number
        if self.earlier is not None:
            self.earlier.count = max(self.earlier.count, message.count)
        self._tell_opened()
        if message.is_sealed and self.total is None and self.spec.is_transient:
            with self._changing:
                if not self._is_closed:
                    self._is_closed = self._was_ended = True
            self._flush()

    def _tell_opened(self) -> None:
        waiting, self._when_opened = self._when_opened, []
        for then in waiting:
            then()

    def on_open_refused(self, message: m.OpenRefused) -> None:
        """The job was not stored, and so none of its tasks."""
        self.fail(self._refusal(message.code, message.message, ()))

    def on_add_refused(self, message: m.AddRefused) -> None:
        """These tasks were not stored."""
        if self._was_ended:
            self._move(message)
            return
        self._forget(message.first, message.count)
        error = self._refusal(message.code, message.message, message.indices)
        self._refuse(range(message.first, message.first + message.count), error)
        self._after_outcomes()

    def _move(self, message: m.AddRefused) -> None:
        """Put tasks that came too late for a job that was ended into the next one."""
        with self._changing:
            payloads: list[Any] = []
            while (add := self._unstored.pop(message.first + len(payloads), None)) is not None:
                payloads += add.payloads
                if len(payloads) >= message.count:
                    break
            for index, payload in reversed([*enumerate(payloads, message.first)]):
                entry = self._pending.pop(index, None)
                if entry is None:
                    continue
                bare = payload if self._signer is None else self._signer.unsigned(payload)
                if bare is None:
                    entry[0].refuse(entry[1], refusal(message.code, message.message))
                else:
                    self._inbox.appendleft((bare, *entry))
        self._flush()

    def _refusal(self, code: m.RefusalCode, text: str, indices: tuple[int, ...]) -> MultihostError:
        if self.earlier is not None:
            return self.earlier.refusal(code, text, indices)
        return refusal(code, text, indices)

    # connection ----------------------------------------------------------------------

    def resume(self) -> None:
        """After a reconnect: open the job again and send what was not acknowledged."""
        with self._changing:
            self._resume()

    def _resume(self) -> None:
        self._is_sent = False
        self._open()
        is_closed = self._is_closed and not self._was_ended
        if is_closed:
            self._say_close()
        if is_closed or not self._is_sent:
            return
        for add in sorted(self._unstored.values(), key=lambda add: add.first):
            self.session.send(add)
        self._cancelled &= self._pending.keys()
        if self._cancelled:
            self._send_cancels(sorted(self._cancelled))
        if self.total is not None:
            self.session.send(m.Seal(self.alias, self.total))
        for number in self._signals:
            self.session.send(m.Signal(self.alias, 0, number))

    def fail(self, error: MultihostError) -> None:
        """Nothing more will come: tell everyone who waits, now and later."""
        with self._changing:
            self.failure = error
            unstored = {
                index
                for add in self._unstored.values()
                for index in range(add.first, add.first + len(add.payloads))
            }
            self._unstored.clear()
            pending = sorted(self._pending.items())
        for index, (receiver, position) in pending:
            is_unknown = index in unstored and isinstance(error, ConnectionLost)
            receiver.refuse(position, self._unknown(error) if is_unknown else error)
        self._pending.clear()
        self._refuse_inbox(error)
        self._tell_opened()
        self._after_outcomes()

    def _unknown(self, error: MultihostError) -> SubmitUnknown:
        unknown = SubmitUnknown(
            f"the connection broke before the server said whether it keeps the task ({error}); "
            "with a name or a unique key, submitting it again never makes a second",
            self.uid,
        )
        unknown.__cause__ = error
        return unknown

    def _refuse_inbox(self, error: MultihostError) -> None:
        while self._inbox:
            _, receiver, position = self._inbox.popleft()
            receiver.refuse(position, error)

    def _refuse(self, indices: Iterable[int], error: MultihostError) -> None:
        for index in indices:
            entry = self._pending.pop(index, None)
            if entry is not None:
                entry[0].refuse(entry[1], error)

    def _taken_upto(self) -> int:
        """Index below which every outcome has come."""
        with self._changing:
            return next(iter(self._pending), self._count)


_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


def _forget() -> None:
    """In a forked child: the parent's event loop may have been in the midst of sending."""
    for stream in list(_streams):
        stream._changing = threading.RLock()
        stream._is_due = False


forget_in_child(_forget)
