"""A server for tests of the client: real connections, and misbehaviour on demand."""

import asyncio
import contextlib
import pickle
import threading
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from multihost.core.digest import digest_of
from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending, Failure, encode_failure
from multihost.runtime.link import server_link
from multihost.testing.ports import free_port
from multihost.wire import message as m
from multihost.wire.keys import is_peer_proof, parse_key, server_proof

KEY = b"a key for tests"


@dataclass
class Job:
    uid: bytes
    spec: JobSpec
    number: int
    payloads: dict = field(default_factory=dict)
    outcomes: dict = field(default_factory=dict)
    total: int | None = None
    cancelled: set = field(default_factory=set)
    taken: int = 0
    watchers: dict = field(default_factory=dict)


class FakeServer:
    """Runs calls in two threads of this process; keeps jobs over connections."""

    def __init__(self):
        self.jobs = {}
        self.by_number = {}
        self.blobs = {}
        self.messages = []
        self.connections = []
        self._links = weakref.WeakSet()
        self.gate = threading.Event()
        self.gate.set()
        self.store = b"store of a fake!"
        self.refuse_adds = None
        self.drop_adds = False
        self.refuse_blobs = False
        self.slots = 0
        self.ticket = b""
        """By which branches are made; empty: none are."""
        self.branch_calls = []
        self.answer = lambda call: None
        """What a call of a taker is answered; None: nothing yet."""
        self._runner = ThreadPoolExecutor(2)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listen(free_port())  # one that nobody is given meanwhile, if it listens again

    def _listen(self, port):
        async def listen():
            return await self._loop.create_server(self._new_link, "127.0.0.1", port)

        self._server = asyncio.run_coroutine_threadsafe(listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _stop_listening(self):
        async def stop():
            # A server that is closed before what it has just accepted is served leaks the socket.
            for sock in self._server.sockets:
                self._loop.remove_reader(sock.fileno())
            await asyncio.sleep(0)
            self._server.close()

        if self._server.sockets:  # else it has stopped already
            asyncio.run_coroutine_threadsafe(stop(), self._loop).result()

    def _new_link(self):
        link = server_link(_Connection(self))
        self._links.add(link)
        return link

    def on_loop(self, call):
        done = threading.Event()
        result = []

        def run():
            result.append(call())
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)
        return result[0]

    def cut(self):
        """Cut every connection."""
        self.on_loop(lambda: [c.link.abort("cut by the test") for c in list(self.connections)])

    def cut_branches(self):
        """Cut every connection but those that sessions are open on."""
        self.on_loop(
            lambda: [c.link.abort("cut by the test") for c in list(self.connections) if c.is_branch]
        )

    @property
    def branches(self):
        return [connection for connection in self.connections if connection.is_branch]

    def stop_listening(self):
        self._stop_listening()
        self.cut()

    def listen_again(self):
        self._listen(self.port)

    def close(self):
        self.gate.set()
        self._stop_listening()
        self.cut()
        self._runner.shutdown(cancel_futures=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        # A connection may have been on its way in: it is made, told and lost in turns of the loop.
        for _ in range(4):
            self._loop.run_until_complete(asyncio.sleep(0))
            for link in list(self._links):
                link.abort("the server is closed")
        self._loop.close()

    def of_kind(self, kind):
        return [message for message in self.messages if isinstance(message, kind)]

    def answer_now(self, taker, number, result):
        """Answer a call that was left waiting."""
        answer = m.Answer(taker, number, result)
        self.on_loop(lambda: [c.link.send(answer) for c in self.connections])

    # on the loop

    def open_job(self, message):
        for job in self.jobs.values():
            if message.spec.name is not None and job.spec.name == message.spec.name:
                if job.spec.fingerprint != message.spec.fingerprint:
                    return None, False
                return job, False
        if message.uid in self.jobs:
            return self.jobs[message.uid], False
        job = Job(message.uid, message.spec, len(self.jobs) + 1)
        self.jobs[message.uid] = job
        return job, True

    def start(self, job, index, payload):
        if isinstance(payload, m.Blob):
            payload = self.blobs[payload.digest]
        self._runner.submit(self._execute, job, index, payload)

    def _execute(self, job, index, payload):
        self.gate.wait()
        if index in job.cancelled:
            return
        self._loop.call_soon_threadsafe(self._started, job, index)
        try:
            function = pickle.loads(self.blobs[job.spec.function])
            content = pickle.loads(payload)
            if job.spec.style is Style.CALL:
                value = function(*content[0], **content[1])
            elif job.spec.style is Style.MAP:
                value = [function(item) for item in content]
            else:
                value = [function(*item) for item in content]
            outcome = (Ending.OK, pickle.dumps(value, 5))
        except BaseException as error:
            outcome = (Ending.RAISED, _failure(error))
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.finish, job, index, *outcome)

    def _started(self, job, index):
        for connection, alias in job.watchers.items():
            if job.spec.wants_starts:
                connection.link.send(m.Started(alias, [index]))

    def finish(self, job, index, ending, payload):
        if index in job.outcomes:
            return
        if len(payload) > m.INLINE_BYTES:
            digest = digest_of(payload)
            self.blobs[digest] = payload
            payload = m.Blob(digest, len(payload))
        job.outcomes[index] = m.Outcome(index, ending, payload)
        for connection, alias in job.watchers.items():
            connection.link.send(m.Outcomes(alias, [job.outcomes[index]]))


def _failure(error):
    text = "".join(traceback.format_exception(error))
    failure = Failure(
        Ending.RAISED,
        type(error).__qualname__,
        str(error),
        text,
        pickle.dumps(error, 5),
        "fake",
    )
    return encode_failure(failure)


class _Connection:
    is_branch = False

    def __init__(self, server):
        self.server = server
        self.aliases = {}
        self.parts = {}

    def link_opened(self, link):
        self.link = link
        self.server.connections.append(self)

    def link_writable(self, link):
        pass

    def link_closed(self, link, reason):
        if self in self.server.connections:
            self.server.connections.remove(self)
        for job in self.aliases.values():
            job.watchers.pop(self, None)

    def link_received(self, link, messages):
        for message in messages:
            self.server.messages.append(message)
            getattr(self, "on_" + type(message).__name__.lower())(message)

    def on_hello(self, message):
        self.peer_nonce, self.nonce = message.nonce, b"n" * 32
        proof = server_proof(parse_key(KEY).hash, message.nonce, self.nonce)
        self.link.send(m.Challenge(self.nonce, proof))

    def on_proof(self, message):
        key_hash, role = parse_key(KEY).hash, m.Role.CLIENT
        assert is_peer_proof(message.proof, key_hash, role, self.peer_nonce, self.nonce)
        self.link.admit()

    def on_attach(self, message):
        self.link.send(m.Welcome(1, self.server.store, ticket=self.server.ticket))

    def on_branch(self, message):
        if message.ticket != self.server.ticket:
            self.link.send(m.Denied(m.DenialCode.LIMIT, "refused by the test"))
            self.link.close("refused")
            return
        self.is_branch = True
        self.link.send(m.Branched())

    def on_beat(self, message):
        self.link.send(m.BeatBack(message.number))

    def on_goodbye(self, message):
        self.link.close("goodbye")

    def on_resize(self, message):
        self.server.slots = message.slots

    def on_findblob(self, message):
        have = len(self.server.blobs.get(message.digest, b""))
        self.link.send(m.BlobFound(message.digest, have))

    def on_putblob(self, message):
        if self.server.refuse_blobs:
            self.link.send(m.BlobRefused(message.digest, "the disk is full"))
            return
        data = self.parts.setdefault(message.digest, b"")
        assert message.offset == len(data)
        self.parts[message.digest] = data + message.data
        if len(self.parts[message.digest]) == message.size_bytes:
            whole = self.parts.pop(message.digest)
            assert digest_of(whole) == message.digest
            self.server.blobs[message.digest] = whole
            self.link.send(m.BlobStored(message.digest))

    def on_getblob(self, message):
        data = self.server.blobs.get(message.digest)
        if data is None:
            self.link.send(m.BlobPart(message.digest, -1, 0, b""))
            return
        for offset in range(message.offset, len(data), m.BLOB_PART_BYTES):
            part = data[offset : offset + m.BLOB_PART_BYTES]
            self.link.send(m.BlobPart(message.digest, len(data), offset, part))

    def on_open(self, message):
        job, is_new = self.server.open_job(message)
        if job is None:
            code = m.RefusalCode.INPUT_CHANGED
            self.link.send(m.OpenRefused(message.job, code, "another function"))
            return
        self.aliases[message.job] = job
        job.watchers[self] = message.job
        self.link.send(m.Opened(message.job, job.number, is_new, len(job.payloads)))
        old = [o for i, o in sorted(job.outcomes.items()) if i >= message.taken]
        if old and not is_new:
            self.link.send(m.Outcomes(message.job, old))

    def on_add(self, message):
        server, count = self.server, len(message.payloads)
        job = self.aliases.get(message.job)
        if server.drop_adds:
            self.link.abort("dropped by the test")
            return
        if job is None or server.refuse_adds is not None:
            code = server.refuse_adds or m.RefusalCode.BAD_REQUEST
            self.link.send(m.AddRefused(message.job, message.first, count, code, "refused"))
            return
        if job.total is not None and message.first + count > job.total:
            code = m.RefusalCode.INPUT_CHANGED
            late = tuple(range(job.total, message.first + count))
            refused = m.AddRefused(message.job, message.first, count, code, "sealed", late)
            self.link.send(refused)
            return
        added = dict(enumerate(message.payloads, message.first))
        changed = tuple(i for i, p in added.items() if job.payloads.get(i, p) != p)
        if changed:
            code = m.RefusalCode.INPUT_CHANGED
            refused = m.AddRefused(message.job, message.first, count, code, "changed", changed)
            self.link.send(refused)
            return
        self.link.send(m.Stored(message.job, message.first, count))
        for index, payload in added.items():
            if index not in job.payloads:
                job.payloads[index] = payload
                server.start(job, index, payload)

    def on_seal(self, message):
        job = self.aliases.get(message.job)
        if job is not None:
            job.total = message.total

    def on_cancel(self, message):
        job = self.aliases.get(message.job)
        if job is None:
            return
        indices = list(job.payloads) if message.indices is None else message.indices
        for index in indices:
            if index not in job.outcomes:
                job.cancelled.add(index)
                self.server.finish(job, index, Ending.CANCELLED, b"")

    def on_call(self, message):
        if self.is_branch:
            self.server.branch_calls.append(message)
        result = self.server.answer(message)
        if result is not None:
            self.link.send(m.Answer(message.taker, message.number, result))

    def on_withdraw(self, message):
        pass

    def on_endtaker(self, message):
        pass

    def on_taken(self, message):
        job = self.aliases.get(message.job)
        if job is not None:
            job.taken = max(job.taken, message.upto)

    def on_close(self, message):
        job = self.aliases.pop(message.job, None)
        if job is not None:
            job.watchers.pop(self, None)
