"""Clients' sessions: jobs and calls come in, acknowledgements and answers go out.

What a client is told of its jobs after that is ``server.subscription``'s.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from multihost.core.ids import MAX_TAKER, taker_id, task_id
from multihost.core.job import MAX_NAME_CHARS, JobSpecError, check
from multihost.core.state import TaskState
from multihost.runtime.link import Link
from multihost.server.blobs import BlobTraffic
from multihost.server.branches import Branches
from multihost.server.dispatch import by_role, refusal_of
from multihost.server.gateway import Connection
from multihost.server.intake import LARGE_BYTES
from multihost.server.operation import Operation
from multihost.server.services import Services
from multihost.server.subscription import Subscription
from multihost.store.base import OpenedJob, Refusal, SessionInfo, Store
from multihost.wire import message as m
from multihost.wire.act import AnyResult, RejectCode, Rejected, put_bytes

TASKS_OF_WEIGHT = 20
"""Tasks whose insert takes the loop as long as a usual operation."""
MAX_CALLS = 10_000
"""Calls of one client that wait to be answered."""
MAX_CALL_BYTES = 64 << 20
"""Bytes to be put in them."""
WAITING_S = 2.0
"""How long a job may wait before its client is told why."""


class ClientPeer:
    """One client's open session on one connection."""

    def __init__(self, services: Services, connection: Connection, attach: m.Attach) -> None:
        """Open the session, or take it over from an older connection."""
        self.services = services
        self.connection = connection
        self.session = 0
        self._handlers = _HANDLERS[connection.key.role]
        self.branches = Branches(self)
        self.uid = attach.session
        self._user = attach.user[:MAX_NAME_CHARS]
        self.slots = 0
        """Slots that this client asked for."""
        self._jobs: dict[int, Subscription] = {}
        self._blobs = BlobTraffic(services.blobs, connection.link, self._why_no_blob)
        self._waiting: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._is_silent = False
        self._is_closed = False
        self._unanswered: dict[int, int] = {}
        """Bytes that are to be put, if they are many, of each taker's call under way."""
        info = SessionInfo(
            attach.session,
            m.Role.CLIENT,
            user=attach.user,
            host=attach.host,
            pid=attach.pid,
            key=connection.key.id,
        )
        services.committer.submit(
            Operation(lambda store, now: self._open_session(store, info, now), self._welcome)
        )

    # SessionPeer ---------------------------------------------------------------------

    def received(self, messages: Sequence[Any]) -> None:
        """Serve the client's messages in order."""
        now = self.services.now()
        self.services.clients.renew(self.session, now)
        self.services.takers.renew(self.session, now)
        for message in messages:
            self._handlers[type(message)](self, message)

    def writable(self) -> None:
        """Go on with what did not fit."""
        self._blobs.writable()
        for subscription in list(self._jobs.values()):
            subscription.writable()

    def fell_silent(self) -> None:
        """Cut a connection that nothing comes from; whoever is behind it may come back."""
        self._is_silent = True
        self.connection.link.abort(f"nothing from the client for {self.services.lease_s:g} s")

    def closed(self, reason: str) -> None:
        """The connection is gone: wait for it to come back, unless it said goodbye."""
        self._is_closed = True
        self._blobs.close()
        self.branches.close()
        if self._waiting is not None:
            self._waiting.cancel()
        for subscription in self._jobs.values():
            self.services.watchers.remove(subscription)
        if self.services.client_peers.get(self.uid) is not self:
            return
        del self.services.client_peers[self.uid]
        self._await_return()

    def _await_return(self) -> None:
        if self._is_leaving:
            self.services.end_client(self.session, is_clean=True)
            return
        now = self.services.now()
        if not self._is_silent:
            self.services.clients.disconnect(self.session, now)
        self.services.takers.disconnect(self.session, now)
        self.services.calls.disconnected(self.session)
        self.services.reaper_wake()

    # the session -----------------------------------------------------------------------

    def _open_session(self, store: Store, info: SessionInfo, now: float) -> int | None:
        session = store.open_session(info, now)
        self.session = session or 0
        return session

    def _welcome(self, session: int | None) -> None:
        if session is None:
            self.connection.refuse_session()
            return
        older = self.services.client_peers.get(self.uid)
        if self._is_closed and older is not None:
            return
        now = self.services.now()
        self.services.clients.renew(session, now)
        self.services.takers.renew(session, now)
        if self._is_closed:  # before it was known to be open
            self._await_return()
            return
        self.services.client_peers[self.uid] = self
        if older is not None and older is not self:
            older.branches.close()
            older.connection.link.abort("the session goes on over a newer connection")
        self.connection.link.send(self.services.welcome(session, self.branches.ticket))

    def _on_goodbye(self, _: m.Goodbye) -> None:
        self._is_leaving = True
        self.connection.link.close("goodbye")

    def _on_beat(self, message: m.Beat) -> None:
        self.connection.link.send(m.BeatBack(message.number))

    def _on_blob(self, message: m.PutBlob | m.GetBlob | m.FindBlob) -> None:
        self._blobs.received(message)

    def _why_no_blob(self, size_bytes: int) -> str | None:
        """Outcomes are always taken, and so is what workers send."""
        return self.services.committer.store.why_no_blob(self.session, size_bytes)

    def _on_resize(self, message: m.Resize) -> None:
        # The sum: a task that uses a pool itself occupies a slot while it waits for its tasks.
        self.slots = message.slots
        self.services.resize(sum(peer.slots for peer in self.services.client_peers.values()))

    # jobs ------------------------------------------------------------------------------

    def _on_open(self, message: m.Open) -> None:
        link, committer = self.connection.link, self.services.committer
        spec = message.spec
        if not spec.user:
            spec = msgspec.structs.replace(spec, user=self._user)
        subscription = Subscription(message.job, spec, link, committer)
        self._jobs[message.job] = subscription
        try:
            check(spec)
        except JobSpecError as error:
            self._open_refused(subscription, m.RefusalCode.BAD_REQUEST, str(error))
            return

        def run(store: Store, now: float) -> OpenedJob | Refusal:
            owner = self.session if spec.is_transient else None
            opened = store.open_job(message.uid, spec, owner, now)
            if isinstance(opened, OpenedJob):
                subscription.number, subscription.session = opened.number, self.session
            return opened

        def done(opened: OpenedJob | Refusal) -> None:
            if isinstance(opened, Refusal):
                self._open_refused(subscription, opened.code, opened.message)
            else:
                self._opened(subscription, opened, message.taken)

        committer.submit(
            Operation(
                run,
                done,
                refused=lambda text: self._open_refused(
                    subscription, m.RefusalCode.STORE_FULL, text
                ),
                comes_first=True,
            )
        )

    def _opened(self, subscription: Subscription, opened: OpenedJob, taken: int) -> None:
        if self._is_closed or self._jobs.get(subscription.alias) is not subscription:
            return
        self.services.hub.remember(opened.number, opened.spec)
        self.services.watchers.add(opened.number, subscription)
        self.connection.link.send(
            m.Opened(
                subscription.alias,
                opened.number,
                opened.is_new,
                opened.count,
                is_sealed=opened.total is not None,
            )
        )
        if not opened.is_new:
            for index, process in self.services.hub.processes.told(opened.number):
                subscription.process_began(index, process)
            subscription.resume_output(self.services.watchers.unheard.take(opened.number))
            subscription.replay(taken)
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(WAITING_S, self._explain)

    def _open_refused(self, subscription: Subscription, code: m.RefusalCode, text: str) -> None:
        subscription.refused = text
        self.connection.link.send(m.OpenRefused(subscription.alias, code, text))

    def _on_add(self, message: m.Add) -> None:
        subscription = self._jobs.get(message.job)
        count = len(message.payloads)

        def refuse(code: m.RefusalCode, text: str, indices: tuple[int, ...] = ()) -> None:
            self.connection.link.send(
                m.AddRefused(message.job, message.first, count, code, text, indices)
            )

        if subscription is None:
            refuse(m.RefusalCode.BAD_REQUEST, f"job alias {message.job} is not open here")
            return
        if message.keys is not None and max(map(len, message.keys), default=0) > MAX_NAME_CHARS:
            text = f"a task's key has more than {MAX_NAME_CHARS} characters: shorten or hash it"
            refuse(m.RefusalCode.BAD_REQUEST, text)
            return

        def run(store: Store, now: float) -> object:
            if subscription.number is None:
                reason = subscription.refused or "its job was not stored"
                return Refusal(m.RefusalCode.BAD_REQUEST, reason)
            return store.add_tasks(
                subscription.number, message.first, message.payloads, message.keys, now
            )

        def done(result: object) -> None:
            if isinstance(result, Refusal):
                refuse(result.code, result.message, result.indices)
            else:
                self.connection.link.send(m.Stored(message.job, message.first, count))

        self.services.committer.submit(
            Operation(
                run,
                done,
                refused=lambda text: refuse(m.RefusalCode.STORE_FULL, text),
                may_linger=True,
                weight=1 + count // TASKS_OF_WEIGHT,
            )
        )

    def _on_seal(self, message: m.Seal) -> None:
        self._on_job(
            message.job, lambda store, number, now: store.seal_job(number, message.total, now)
        )

    def _on_cancel(self, message: m.Cancel) -> None:
        self._on_job(
            message.job,
            lambda store, number, now: store.cancel(
                number, message.indices, only_queued=message.only_queued, now=now
            ),
            self.services.cancelled,
        )

    def _on_taken(self, message: m.Taken) -> None:
        self._on_job(
            message.job,
            lambda store, number, _: store.take(number, message.upto),
            is_durable=False,
        )

    def _on_close(self, message: m.Close) -> None:
        subscription = self._jobs.pop(message.job, None)
        if subscription is not None:
            self.services.watchers.remove(subscription)

    def _on_job(
        self,
        alias: int,
        verb: Callable[[Store, int, float], Any],
        done: Callable[[Any], None] | None = None,
        *,
        is_durable: bool = True,
    ) -> None:
        """Run a verb on the job behind an alias, if it was opened."""
        subscription = self._jobs.get(alias)
        if subscription is None:
            return

        def run(store: Store, now: float) -> object:
            number = subscription.number
            return None if number is None else verb(store, number, now)

        def tell(result: object) -> None:
            if done is not None and result is not None:
                done(result)

        self.services.committer.submit(Operation(run, tell, is_durable))

    def _on_signal(self, message: m.Signal) -> None:
        def run(store: Store, number: int, _: float) -> int | None:
            task = task_id(number, message.index)
            row = store.task(task)
            return task if row is not None and row.state is TaskState.RUNNING else None

        def done(task: int) -> None:
            processes = self.services.hub.processes
            process = processes.find(task)
            worker = self.services.worker_peers.get(process.session) if process else None
            if process is None or process.pid is None or worker is None:
                processes.keep_signal(task, message.number)
            else:
                worker.connection.link.send(m.SignalTask(task, process.token, message.number))

        self._on_job(message.job, run, done, is_durable=False)

    # calls -----------------------------------------------------------------------------

    def _on_call(self, message: m.Call) -> None:
        link = self.connection.link
        self.call(message, link, link.send)

    def call(self, message: m.Call, link: Link, send: Callable[[m.Message], None]) -> None:
        """Do a call that came by ``link``, and ``send`` the answer."""
        index, number = message.taker, message.number

        def reply(result: AnyResult) -> None:
            unanswered.pop(index, None)
            send(m.Answer(index, number, result))

        unanswered = self._unanswered
        size_bytes = put_bytes(message.act) if link.frame_bytes > LARGE_BYTES else 0
        trouble = ""
        if not 0 < index <= MAX_TAKER or number < 1:
            trouble = f"takers are numbered from 1 to {MAX_TAKER}, their calls from 1"
        elif len(unanswered) >= MAX_CALLS or size_bytes:
            trouble = self._why_no_call(index, size_bytes)
        if trouble:
            send(m.Answer(index, number, Rejected(RejectCode.BAD_REQUEST, trouble)))
            return
        unanswered[index] = size_bytes
        taker = taker_id(self.session, index)
        # Somebody waits for it at the other end, and does nothing else.
        calls = self.services.calls
        calls.call(taker, number, message.act, message.wait_s, reply, is_urgent=True)

    def _why_no_call(self, index: int, size_bytes: int) -> str:
        """Why a call is one too many, or too large beside the others; empty if it is not."""
        others = len(self._unanswered) - (index in self._unanswered)
        if others >= MAX_CALLS:
            return (
                f"{others} calls of this client wait to be answered, which is the limit "
                "(max_calls): let fewer threads or coroutines wait at once, or connect twice"
            )
        waiting_bytes = sum(self._unanswered.values()) - self._unanswered.get(index, 0)
        if waiting_bytes + size_bytes > MAX_CALL_BYTES:
            return (
                f"{waiting_bytes} bytes of this client's puts wait already, and the limit "
                f"(max_call_bytes) is {MAX_CALL_BYTES}: let fewer of them wait at once"
            )
        return ""

    def _on_withdraw(self, message: m.Withdraw) -> None:
        if 0 < message.taker <= MAX_TAKER:
            self.services.calls.withdraw(taker_id(self.session, message.taker), message.number)

    def _on_end_taker(self, message: m.EndTaker) -> None:
        if 0 < message.taker <= MAX_TAKER:
            self._unanswered.pop(message.taker, None)
            self.services.calls.end_taker(taker_id(self.session, message.taker))

    # waiting ---------------------------------------------------------------------------

    def _explain(self) -> None:
        """Tell the client why its jobs wait, when that has changed."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.call_later(WAITING_S, self._explain) if self._jobs else None
        for subscription in self._jobs.values():
            if subscription.number is None:
                continue
            reason = ""
            if not subscription.has_progress:
                spec = subscription.spec
                reason = self.services.why_waiting(spec.queue, spec.requires)
            subscription.has_progress = False
            if reason != subscription.told:
                subscription.told = reason
                self.connection.link.send(m.Waiting(subscription.alias, reason))

    def _on_forbidden(self, message: m.Message) -> None:
        self.connection.link.send(refusal_of(message, self.connection.refuse(message)))

    _every_handler: dict[type, Callable[["ClientPeer", Any], None]] = {
        m.Goodbye: _on_goodbye,
        m.Beat: _on_beat,
        m.PutBlob: _on_blob,
        m.GetBlob: _on_blob,
        m.FindBlob: _on_blob,
        m.Resize: _on_resize,
        m.Open: _on_open,
        m.Add: _on_add,
        m.Seal: _on_seal,
        m.Cancel: _on_cancel,
        m.Taken: _on_taken,
        m.Close: _on_close,
        m.Call: _on_call,
        m.Withdraw: _on_withdraw,
        m.EndTaker: _on_end_taker,
        m.Signal: _on_signal,
    }


_HANDLERS = by_role(ClientPeer._every_handler, ClientPeer._on_forbidden)
"""Of each role of a key."""
