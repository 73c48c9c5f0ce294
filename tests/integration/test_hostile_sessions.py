"""Peers that have the key and misbehave: who reads slowly, says nothing, or too much."""

import asyncio
import contextlib
import http.client
import json
import os
import threading

import psutil
import pytest
from test_hostile_connections import HOST, is_cut, port_of, served

import multihost
from multihost.core.job import MAX_NAME_CHARS, JobSpec, Style
from multihost.core.outcome import Ending
from multihost.runtime import link as links
from multihost.server.api import MAX_BODY_BYTES
from multihost.server.app import Server, ServerOptions
from multihost.server.clients import MAX_CALL_BYTES, MAX_CALLS
from multihost.server.managers.framing import Framer, frame
from multihost.server.managers.handshake import CHALLENGE, answer_to
from multihost.testing.cluster import Cluster
from multihost.testing.stranger import Stranger
from multihost.wire import act as a
from multihost.wire import message as m
from multihost.wire.codec import encode

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, slots=1) as running:
        yield running


@pytest.fixture(scope="module")
def idle_cluster():
    """One without workers: what is leased is leased to strangers."""
    with Cluster(workers=0) as running:
        yield running


def enter(cluster, role=m.Role.CLIENT):
    return Stranger(cluster.url, cluster.key, role).enter()


def works(cluster):
    """Whether a well-behaved client's work is done."""
    with multihost.connect(cluster.url, cluster.key) as client:
        queue = client.queue("beside")
        queue.put("through")
        return client.submit(os.getpid).result() > 0 and queue.get() == "through"


def answers(stranger, count):
    """Results of the next ``count`` calls to be answered."""
    results = []
    while len(results) < count:
        messages = stranger.receive()
        assert messages, "the server hung up"
        results += [message.result for message in messages if isinstance(message, m.Answer)]
    return results


def open_queue(stranger, name, taker=1):
    stranger.send(m.Call(taker, 1, a.OpenQueue(name)))
    return answers(stranger, 1)[0].queue


# what is too large, too deep, too many ----------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a length bomb"),
        pytest.param(b"\x91" * 100_000, id="deep nesting"),
        pytest.param(b"\xdc\x27\x11" + b"\x91\x08" * 10_001, id="too many messages"),
        pytest.param(b"\x91\x94\x29\x01\x01\xdd\xff\xff\xff\xff", id="a bomb in a message"),
        pytest.param(encode([m.Add(1, 0, [b""] * (m.BATCH_TASKS + 1))]), id="too many tasks"),
        pytest.param(
            encode([m.Enlist(b"u" * 16, "w", held=(m.Held(1, 1),) * (m.HELD_LEASES + 1))]),
            id="too many leases",
        ),
        pytest.param(
            encode([m.Call(1, 1, a.Exchange([1] * (a.HELD_ITEMS + 1)))]), id="too many items"
        ),
        pytest.param(encode([m.Hello(m.Role.CLIENT, b"")]), id="out of place"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no msgpack"),
    ],
)
def test_a_frame_that_breaks_the_rules_ends_its_connection_and_nothing_else(cluster, payload):
    with enter(cluster) as stranger:
        stranger.send_frame(payload)
        assert not stranger.is_served()
    assert works(cluster)


def test_a_frame_that_announces_more_than_allowed_ends_its_connection_at_once(cluster):
    with enter(cluster) as stranger:
        stranger.say(b"\x82\xff" + (1 << 62).to_bytes(8) + b"mask")
        assert not stranger.is_served()


def test_before_the_key_is_shown_a_frame_is_small(cluster):
    with Stranger(cluster.url, cluster.key) as stranger:
        stranger.upgrade()
        stranger.send(m.Hello(m.Role.CLIENT, b"n" * links.HANDSHAKE_FRAME_BYTES))
        assert stranger.receive() == []


def test_compression_is_neither_agreed_to_nor_taken(cluster):
    with Stranger(cluster.url, cluster.key) as stranger:
        stranger.upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n")
        assert stranger.answer_head.startswith(b"HTTP/1.1 101")
        assert b"extensions" not in stranger.answer_head.lower()
        stranger.say(b"\xc2\x85mask" + b"bombs")  # the bit that says: compressed
        assert not any(isinstance(each, m.Challenge) for each in stranger.receive())
        assert stranger.is_closed


def test_thousands_of_messages_in_a_frame_are_all_answered(cluster):
    with enter(cluster) as stranger:
        stranger.send(*(m.Beat(number) for number in range(9_000)))
        numbers = []
        while len(numbers) < 9_000:
            numbers += [message.number for message in stranger.receive()]
        assert numbers == list(range(9_000))


def test_a_client_cancels_and_a_worker_finishes_more_than_one_message_holds(cluster):
    with multihost.connect(cluster.url, cluster.key) as client:
        job = client.map(abs, range(25_000))
        assert sum(job) == sum(range(25_000))


@pytest.mark.parametrize("name", ["", "n" * (MAX_NAME_CHARS + 1), "n" * MIB])
def test_a_name_is_neither_empty_nor_endless(cluster, name):
    with enter(cluster) as stranger:
        stranger.send(m.Call(1, 1, a.OpenQueue(name)))
        stranger.send(m.Call(2, 1, a.OpenSynchronizer(a.Kind.LOCK, name)))
        for result in answers(stranger, 2):
            assert result.code is a.RejectCode.BAD_REQUEST
            assert str(MAX_NAME_CHARS) in result.message
        spec = JobSpec(Style.COMMAND, queue=name)
        stranger.send(m.Open(1, os.urandom(16), spec))
        (refused,) = stranger.receive()
        assert isinstance(refused, m.OpenRefused)


# HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/jobs/1/cancel", b'{"indices": [1', 400),
        ("/api/jobs/1/cancel", b'{"indices": ["1"]}', 400),
        ("/api/jobs/1/cancel", b"[" * 100_000, 400),
        ("/api/jobs/1/cancel", b" " * (MAX_BODY_BYTES + 1), 400),
        ("/api/queues/q", b'{"limit": 100000000000000000000}', 400),
        ("/api/queues/" + "q" * 1000, b"{}", 400),
    ],
)
def test_a_request_that_can_not_be_served_is_told_why(cluster, path, body, status):
    connection = http.client.HTTPConnection(HOST, cluster.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {cluster.key.decode()}"}
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, bool(json.loads(answer.read())["error"])) == (status, True)
    finally:
        connection.close()


# who speaks of what is another's ------------------------------------------------------------


def expect(stranger, kind):
    """The next message of a kind, and all that came before it."""
    heard = []
    while not any(isinstance(message, kind) for message in heard):
        messages = stranger.receive()
        assert messages, "the server hung up"
        heard += messages
    return next(message for message in heard if isinstance(message, kind)), heard


def test_a_worker_that_guesses_a_token_changes_nothing_of_another_s_task(idle_cluster):
    workers = enter(idle_cluster, m.Role.WORKER), enter(idle_cluster, m.Role.WORKER)
    with enter(idle_cluster) as client, workers[0] as worker, workers[1] as rogue:
        client.send(m.Open(1, os.urandom(16), JobSpec(Style.COMMAND, wants_output=True)))
        expect(client, m.Opened)
        client.send(m.Add(1, 0, [b""]))
        worker.send(m.Want(1))
        grants, _ = expect(worker, m.Grants)
        (grant,) = grants.tasks
        lease = grant.task, grant.token
        rogue.send(
            m.Output(*lease, 1, b"forged"),
            m.Began(*lease, pid=1),
            m.GiveBack([m.Held(*lease)]),
            m.Finished([m.Attempt(*lease, Ending.OK, b"forged")]),
        )
        assert expect(rogue, m.Settled)[0].tasks == [m.Held(*lease)]
        worker.send(
            m.Output(*lease, 1, b"printed"), m.Finished([m.Attempt(*lease, Ending.OK, b"good")])
        )
        outcomes, heard = expect(client, m.Outcomes)
        assert [each.data for each in heard if isinstance(each, m.Printed)] == [b"printed"]
        (outcome,) = outcomes.outcomes
        assert (outcome.ending, outcome.payload) == (Ending.OK, b"good")


# who does not read ---------------------------------------------------------------------------


def rss(cluster):
    return psutil.Process(cluster.server.pid).memory_info().rss


def test_a_client_that_does_not_read_its_outcomes_costs_no_memory_and_gets_them_later(
    idle_cluster,
):
    count, size = 3_000, 60_000
    with enter(idle_cluster) as client, enter(idle_cluster, m.Role.WORKER) as worker:
        client.send(m.Open(1, os.urandom(16), JobSpec(Style.COMMAND)))
        assert isinstance(client.receive()[0], m.Opened)
        before, ended = rss(idle_cluster), 0
        client.send(m.Add(1, 0, [b""] * count))
        worker.send(m.Want(count))
        while ended < count:
            messages = worker.receive()
            assert messages, "the server hung up"
            for message in messages:
                if isinstance(message, m.Grants):
                    for task in message.tasks:
                        attempt = m.Attempt(task.task, task.token, Ending.OK, b"r" * size)
                        worker.send(m.Finished([attempt]))
                elif isinstance(message, m.Settled):
                    ended += len(message.tasks)
        assert rss(idle_cluster) - before < 96 * MIB, "180 MB of outcomes wait for their reader"
        seen = set()
        while len(seen) < count:
            messages = client.receive()
            assert messages, "the server hung up"
            for message in messages:
                if isinstance(message, m.Outcomes):
                    seen |= {outcome.index for outcome in message.outcomes}
        assert seen == set(range(count))


def test_who_takes_and_does_not_read_is_cut_off_and_others_get_its_items(idle_cluster):
    cluster = idle_cluster
    with enter(cluster) as taker, enter(cluster) as giver:
        queue = open_queue(giver, "heavy")
        taker.send(*(m.Call(n, 1, a.Exchange(take=queue)) for n in range(1, 121)))
        taker.send(m.Call(500, 1, a.MeasureQueue(queue)))
        assert len(answers(taker, 1)) == 1
        before = rss(cluster)
        for number in range(120):
            giver.send(m.Call(1, 2 + number, a.Exchange(puts=[a.Put(queue, [b"i" * MIB])])))
            assert answers(giver, 1)[0].end is a.ExchangeEnd.OK
        assert rss(cluster) - before < 2 * links.UNSENT_BYTES
        # What was on its way is held for a while, then handed to the next.
        for number in range(120):
            giver.send(m.Call(2, 1 + number, a.Exchange(take=queue)))
            (result,) = answers(giver, 1)
            assert len(result.items[0].payload) == MIB


def test_who_asks_at_the_managers_port_and_does_not_read_is_not_read_either(tmp_path):
    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(*server.door.address[:2])
            framer = Framer(MIB)

            async def receive():
                while True:
                    if messages := framer.feed(await reader.read(4096)):
                        return messages[0]

            writer.write(frame(answer_to(server.key, (await receive())[len(CHALLENGE) :])))
            await receive()
            writer.write(frame(CHALLENGE + b"{sha256}" + os.urandom(40)))
            await receive()
            writer.write(frame(b"#WELCOME#"))
            import pickle

            writer.write(frame(pickle.dumps((None, "accept_connection", ("x",), {}))))
            await receive()
            (connection,) = server.door.connections
            pausing = asyncio.Event()
            pause = connection.pause_writing
            connection.pause_writing = lambda: (pause(), pausing.set())
            ask = frame(pickle.dumps(("no such object", "m" * 1000, (), {}))) * 1000
            flooding = asyncio.create_task(flood(writer, ask))
            await asyncio.wait_for(pausing.wait(), 30)
            for _ in range(100):
                await asyncio.sleep(0)
            assert connection._transport.get_write_buffer_size() < 8 * MIB
            flooding.cancel()
            writer.close()

    asyncio.run(main())


async def flood(writer, data):
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(data)
            await writer.drain()


def test_a_client_has_so_many_calls_waiting_and_no_more(idle_cluster):
    with enter(idle_cluster) as stranger:
        queue = open_queue(stranger, "empty")
        for first in range(1, MAX_CALLS + 1, 500):
            takes = (m.Call(n, 2, a.Exchange(take=queue)) for n in range(first, first + 500))
            stranger.send(*takes)
        stranger.send(m.Call(MAX_CALLS + 1, 1, a.MeasureQueue(queue)))
        (result,) = answers(stranger, 1)
        assert result.code is a.RejectCode.BAD_REQUEST
        assert "max_calls" in result.message
        stranger.send(m.EndTaker(5), m.Call(MAX_CALLS + 1, 2, a.MeasureQueue(queue)))
        assert isinstance(answers(stranger, 1)[0], a.Measured)


def test_puts_that_wait_for_room_cost_so_much_memory_and_no_more(idle_cluster):
    with enter(idle_cluster) as stranger:
        stranger.send(m.Call(1, 1, a.OpenQueue("bounded", 1)))
        queue = answers(stranger, 1)[0].queue
        size, ends, number = 15 * MIB, [], 1
        before = rss(idle_cluster)
        while a.RejectCode.BAD_REQUEST not in ends:
            number += 1
            put = a.Exchange(puts=[a.Put(queue, [b"p" * size])])
            stranger.send(m.Call(number, 1, put), m.Call(1, number, a.MeasureQueue(queue)))
            results = answers(stranger, 1 if 2 < number <= MAX_CALL_BYTES // size + 2 else 2)
            ends = [getattr(result, "code", None) for result in results]
        assert number == MAX_CALL_BYTES // size + 3
        assert rss(idle_cluster) - before < 2 * MAX_CALL_BYTES


# who says nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(m.Role))
def test_a_member_that_goes_silent_is_dropped(tmp_path, role):
    async def main():
        options = ServerOptions(
            state=tmp_path, port=0, durability="process", announces=False, lease_s=0.3
        )
        server = Server(options)
        await server.start()
        try:
            stranger = await asyncio.to_thread(Stranger, server.url, server.key, role)
            await asyncio.to_thread(stranger.enter)
            assert len(server.admission.proved) == 1
            said = await asyncio.to_thread(stranger.receive)
            assert said == []
            assert not server.admission.proved
            stranger.close()
        finally:
            await server.stop()

    asyncio.run(main())


# beside them ---------------------------------------------------------------------------------


def test_work_goes_on_beside_those_who_break_every_rule(cluster):
    stop = threading.Event()

    def misbehave(payload):
        while not stop.is_set():
            with contextlib.suppress(OSError, AssertionError), enter(cluster) as stranger:
                while stranger.send_frame(payload) and not stop.is_set():
                    pass

    payloads = [
        b"\xdd\xff\xff\xff\xff",
        encode([m.Beat()] * 9_000),
        encode([m.Call(n, 1, a.OpenQueue("x" * 300)) for n in range(1, 5_000)]),
    ]
    threads = [threading.Thread(target=misbehave, args=(each,)) for each in payloads]
    for thread in threads:
        thread.start()
    try:
        assert works(cluster)
        with multihost.connect(cluster.url, cluster.key) as client:
            assert list(client.map(abs, range(-500, 0))) == list(range(500, 0, -1))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_page_of_a_browser_gets_no_websocket(tmp_path):
    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                b"Origin: https://example.org\r\n\r\n"
            )
            assert (await is_cut(reader)).startswith(b"HTTP/1.1 403")
            writer.close()

    asyncio.run(main())
