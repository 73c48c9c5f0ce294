"""A worker whose server is the test: real slots, real pipes, no socket.

The test grants tasks and looks at what the worker says. Everything waits on
events, with a deadline; nothing sleeps.
"""

import asyncio
import contextlib
import pickle
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import cloudpickle
import msgspec

from multihost.core.digest import digest_of
from multihost.core.ids import job_of, task_id
from multihost.core.job import Context, Style
from multihost.core.outcome import Ending, Failure, decode_failure
from multihost.runtime import clock, loop
from multihost.wire import message as m
from multihost.worker.options import WorkerOptions
from multihost.worker.worker import Worker

DEADLINE_S = 30.0


class FakePeer:
    """In the place of ``runtime.peer.Peer``: what the worker sends goes to the test."""

    def __init__(self, owner, role=None, urls=(), key=b"", patience_s=None, **_):
        self.owner = owner
        self.is_connected = False
        self.is_writable = True
        self.renewed_at = clock.mono()
        self.round_trip_s = 0.0
        self.welcome = None
        self.goodbye = None
        self.drops = []
        self.listener: Callable[[m.Message], None] = lambda message: None
        self._closed = asyncio.get_running_loop().create_future()

    def send(self, message):
        if self.is_connected:
            self.listener(message)

    send_now = send

    async def connect(self):
        self.come_back()
        return self.welcome

    async def run(self):
        await self._closed

    def close(self, reason=""):
        self.goodbye = reason
        self.is_connected = False
        if not self._closed.done():
            self._closed.set_result(None)

    def drop(self, reason):
        self.drops.append(reason)
        self.go_away(reason)

    def come_back(self, server=b"s" * 16):
        self.enlisted = self.owner.opening()
        self.welcome = m.Welcome(1, server)
        self.is_connected = True
        self.renewed_at = clock.mono()
        self.owner.connected(self.welcome)

    def go_away(self, reason="cut by the test"):
        self.is_connected = False
        self.owner.disconnected(reason)


class LoneWorker:
    """The worker and the test's view of it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.peer: Any = worker.peer
        self.peer.listener = self._sent
        self.sent: list[m.Message] = []
        self.blobs: dict[bytes, bytes] = {}
        self.stored: dict[bytes, bytearray] = {}
        self.settles = True
        self.takes_blobs = True
        self.grants_again = True
        """Whether what was given back is granted again when the worker asks for more."""
        self._granted: dict[m.Held, m.Grant] = {}
        self._queued: deque[m.Grant] = deque()
        self._jobs: dict[int, m.JobInfo] = {}
        self._tokens = 1 << 40
        self._moved = asyncio.Event()

    # the server's side ---------------------------------------------------------------

    def job(
        self,
        function: Callable[..., Any] | None,
        style: Style = Style.CALL,
        *,
        initializer: tuple[Callable[..., Any], tuple[Any, ...]] | None = None,
        pool: str | None = None,
        max_tasks: int | None = None,
        **options: Any,
    ) -> int:
        number = len(self._jobs) + 1
        digest = None if function is None else self.blob(by_value(function))
        if pool is not None:
            blob = self.blob(by_value(initializer)) if initializer else None
            options["context"] = Context(pool, blob, max_tasks)
        self._jobs[number] = m.JobInfo(number, style, digest, **options)
        return number

    def blob(self, data: bytes) -> bytes:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    def grant(self, job: int, *payloads: Any, first: int = 0) -> list[m.Held]:
        """Grant one task a payload, pickled here unless it is a Blob or bytes."""
        grants = []
        for index, payload in enumerate(payloads, first):
            data = payload if isinstance(payload, bytes | m.Blob) else cloudpickle.dumps(payload)
            grants.append(self._new_grant(task_id(job, index), data))
        self.tell(m.Grants([self._jobs[job]], grants))
        return [m.Held(grant.task, grant.token) for grant in grants]

    def _new_grant(self, task: int, payload: m.Payload) -> m.Grant:
        self._tokens += 1
        grant = m.Grant(task, self._tokens, payload)
        self._granted[m.Held(task, self._tokens)] = grant
        return grant

    def _grant_again(self, room: int) -> None:
        grants = []
        while self._queued and len(grants) < room:
            old = self._queued.popleft()
            grants.append(self._new_grant(old.task, old.payload))
        if grants:
            jobs = {job_of(grant.task) for grant in grants}
            self.tell(m.Grants([self._jobs[job] for job in jobs], grants))

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> m.Held:
        """Grant a job of one call."""
        return self.grant(self.job(function, **options), (args, {}))[0]

    def tell(self, *messages: m.Message) -> None:
        self.worker.received(messages)

    # what the worker said --------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        async with asyncio.timeout(DEADLINE_S):
            while not (value := condition()):
                self._moved.clear()
                await self._moved.wait()
        return value

    async def attempt(self, held: m.Held) -> m.Attempt:
        """The task's attempt, under this lease or a later one."""
        return await self.until(lambda: self.attempts.get(held.task))

    async def result(self, held: m.Held) -> Any:
        attempt = await self.attempt(held)
        assert attempt.ending == Ending.OK, decode_failure(attempt.payload)
        return pickle.loads(self.payload(attempt))

    async def failure(self, held: m.Held) -> Failure:
        attempt = await self.attempt(held)
        assert attempt.ending != Ending.OK, pickle.loads(self.payload(attempt))
        return decode_failure(self.payload(attempt))

    def payload(self, attempt: m.Attempt) -> bytes:
        if isinstance(attempt.payload, m.Blob):
            data = bytes(self.stored[attempt.payload.digest])
            assert digest_of(data) == attempt.payload.digest
            assert len(data) == attempt.payload.size_bytes
            return data
        return attempt.payload

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.sent if type(message) is kind]

    @property
    def attempts(self) -> dict[int, m.Attempt]:
        return {
            attempt.task: attempt for message in self.of(m.Finished) for attempt in message.attempts
        }

    @property
    def given_back(self) -> set[m.Held]:
        return {held for message in self.of(m.GiveBack) for held in message.tasks}

    def output(self, held: m.Held, stream: int | None = None) -> str:
        parts = [
            bytes(message.data)
            for message in self.of(m.Output)
            if (message.task, message.token) == (held.task, held.token)
            and stream in (None, message.stream)
        ]
        return b"".join(parts).decode()

    @property
    def pids(self) -> set[int]:
        return {slot.pid for slot in self.worker.roster._everyone()}

    def _sent(self, message: m.Message) -> None:
        # As on a wire: what is sent later can't change what was sent.
        self.sent.append(message)
        call_soon = asyncio.get_running_loop().call_soon
        if isinstance(message, m.GetBlob):
            data = self.blobs.get(message.digest)
            size = -1 if data is None else len(data)
            answer = m.BlobPart(message.digest, size, 0, data or b"")
            call_soon(self.tell, answer)
        elif isinstance(message, m.PutBlob) and self.takes_blobs:
            data = self.stored.setdefault(message.digest, bytearray())
            assert message.offset == len(data)
            data += message.data
            if len(data) == message.size_bytes:
                call_soon(self.tell, m.BlobStored(message.digest))
        elif isinstance(message, m.Finished) and self.settles:
            held = [m.Held(attempt.task, attempt.token) for attempt in message.attempts]
            call_soon(self.tell, m.Settled(held))
        elif isinstance(message, m.GiveBack) and self.grants_again:
            self._queued.extend(self._granted[held] for held in message.tasks)
        elif isinstance(message, m.Want) and self._queued:
            call_soon(self._grant_again, message.room)
        self._moved.set()


@contextlib.asynccontextmanager
async def lone_worker(slots: int = 1, **options: Any) -> AsyncIterator[LoneWorker]:
    """A worker that runs while the block does; a failure of its own fails the block."""
    from multihost.worker import worker as module

    real, module.Peer = module.Peer, FakePeer  # type: ignore[misc]
    try:
        worker = Worker(WorkerOptions(("http://127.0.0.1:1",), b"key", slots=slots, **options))
    finally:
        module.Peer = real  # type: ignore[misc]
    lone = LoneWorker(worker)
    running = asyncio.ensure_future(worker.run())
    running.add_done_callback(lambda _: lone._moved.set())
    await lone.until(lambda: running.done() or lone.peer.is_connected)
    try:
        yield lone
    finally:
        worker.leave()
        async with asyncio.timeout(DEADLINE_S):
            await running


def run(main: Any) -> Any:
    """Run an async test on the loop that workers use."""
    return loop.run(main)


def by_value(thing: Any) -> bytes:
    """Pickle with the functions of test modules by value: a child need not import pytest."""
    modules = [m for name, m in sys.modules.items() if name.startswith("test_worker_")]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(thing)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


async def turns(condition: Callable[[], Any]) -> None:
    """Let the loop turn until something is true that the worker does not tell."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


def encode(value: Any) -> bytes:
    """A command's payload."""
    return msgspec.msgpack.encode(value)
