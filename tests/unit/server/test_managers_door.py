"""One connection at the door, byte by byte: order, limits, and what a hang-up does."""

import asyncio
import contextlib
import os
import pickle
import queue
import socket
from types import SimpleNamespace

import pytest
from fake_calls import FakeCalls

from multihost.server.managers import connection
from multihost.server.managers.backing import ServicesBacking
from multihost.server.managers.connection import MAX_PENDING
from multihost.server.managers.door import make_door
from multihost.server.managers.framing import Framer, frame
from multihost.server.managers.handshake import CHALLENGE, WELCOME, answer_to
from multihost.server.managers.options import ManagersOptions

KEY = b"abc"


class Committer:
    async def ask(self, run, **_):
        return [], 1


class Client:
    """A client that says exactly what it is told to."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.framer = Framer(1 << 20)
        self.seen = []

    async def recv(self):
        while not self.seen:
            data = await self.reader.read(4096)
            if not data:
                raise EOFError
            self.seen += self.framer.feed(data)
        return self.seen.pop(0)

    def send(self, *messages):
        self.writer.write(b"".join(map(frame, messages)))

    def ask(self, *requests):
        self.send(*(pickle.dumps(request, 4) for request in requests))

    async def answer(self):
        return pickle.loads(await self.recv())

    async def call(self, *request):
        self.ask(request)
        return await self.answer()

    async def shake(self):
        self.send(answer_to(KEY, (await self.recv())[len(CHALLENGE) :]))
        assert await self.recv() == WELCOME
        self.send(CHALLENGE + b"{sha256}" + os.urandom(40))
        await self.recv()
        self.send(WELCOME)

    async def serve(self):
        await self.shake()
        assert await self.call(None, "accept_connection", ("me",), {}) == ("#RETURN", None)


@contextlib.asynccontextmanager
async def opened():
    calls = FakeCalls()
    services = SimpleNamespace(calls=calls, committer=Committer(), end_client=lambda _: None)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    door = make_door(ServicesBacking(services), ManagersOptions(keys=(("", KEY),)), b"")
    await door.start(listener)
    clients = []

    async def client():
        clients.append(Client(*await asyncio.open_connection(*door.address)))
        clients[-1].door = door
        return clients[-1]

    try:
        yield calls, client
    finally:
        for each in clients:
            each.writer.close()
        await door.stop()


def run(test):
    async def whole():
        async with asyncio.timeout(20), opened() as (calls, client):
            await test(calls, client)

    asyncio.run(whole())


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is watched is the server's own state
            await asyncio.sleep(0)


def test_requests_that_come_at_once_are_answered_in_their_order():
    async def test(calls, client):
        me = await client()
        await me.serve()
        me.ask(*[("q:a", "put", (number,), {}) for number in range(2)])
        me.ask(("q:a", "qsize", (), {}), ("q:a", "get", (), {}))
        answers = [await me.answer() for _ in range(4)]
        assert answers == [("#RETURN", None)] * 2 + [("#RETURN", 2), ("#RETURN", 0)]

    run(test)


def test_a_stranger_keeps_no_core_awake_and_a_client_does_with_whole_requests(monkeypatch):
    noticed = []
    spin = SimpleNamespace(noticed=lambda: noticed.append(1))
    monkeypatch.setattr(connection, "spin_of", lambda _: spin)

    async def test(calls, client):
        me, stranger = await client(), await client()
        stranger.send(b"no answer to that")
        await stranger.recv(), await stranger.recv()
        with pytest.raises(EOFError):
            await stranger.recv()
        assert noticed == []
        await me.serve()
        before = len(noticed)
        whole = frame(pickle.dumps(("q:a", "qsize", (), {}), 4))
        for at in range(len(whole)):
            me.writer.write(whole[at : at + 1])
            await me.writer.drain()
            await asyncio.sleep(0)
        assert await me.answer() == ("#RETURN", 0)
        assert len(noticed) == before + 1

    run(test)


def test_a_client_that_asks_on_and_on_without_waiting_is_hung_up_on():
    async def test(calls, client):
        me = await client()
        await me.serve()
        me.ask(*[("q:a", "get", (), {})] * (MAX_PENDING + 2))
        with pytest.raises((EOFError, ConnectionError)):
            await me.recv()

    run(test)


def test_an_item_goes_to_another_when_its_taker_hangs_up_and_is_not_put_twice():
    async def test(calls, client):
        first, second = await client(), await client()
        await first.serve()
        await second.serve()
        await second.call("q:a", "put", ("item",), {})
        assert await first.call("q:a", "get", (), {}) == ("#RETURN", "item")
        first.writer.close()
        assert await second.call("q:a", "get", (True, 10), {}) == ("#RETURN", "item")

    run(test)


def test_what_is_staged_goes_out_with_its_item_when_the_taker_hangs_up():
    async def test(calls, client):
        first, second = await client(), await client()
        await first.serve()
        await second.serve()
        await first.call("q:a", "put", ("item",), {})
        await first.call("q:a", "get", (), {})
        assert await first.call("q:b", "put", ("made of it",), {}) == ("#RETURN", None)
        first.writer.close()
        assert await second.call("q:b", "get", (True, 10), {}) == ("#RETURN", "made of it")
        assert await second.call("q:a", "qsize", (), {}) == ("#RETURN", 0)

    run(test)


def test_a_get_that_waits_ends_with_its_connection_and_swallows_nothing():
    async def test(calls, client):
        first, second = await client(), await client()
        await first.serve()
        await second.serve()
        first.ask(("q:a", "get", (), {}))
        await until(lambda: calls.parked)
        first.writer.close()
        await until(lambda: not calls.parked)
        await second.call("q:a", "put", ("item",), {})
        assert await second.call("q:a", "get", (), {}) == ("#RETURN", "item")

    run(test)


def test_staged_items_go_out_by_themselves():
    async def test(calls, client):
        me = await client()
        await me.serve()
        await me.call("q:a", "put", ("item",), {})
        await me.call("q:a", "get", (), {})
        await me.call("q:b", "put", ("made of it",), {})
        await until(lambda: calls.by_name["b"].waiting)
        assert not any(calls.held.values())

    run(test)


@pytest.mark.parametrize(
    ("request_", "kind", "what"),
    [
        (("q:a", "get", (False,), {}), "#ERROR", queue.Empty),
        (("q:a", "get_nowait", (), {}), "#ERROR", queue.Empty),
        (("q:a", "get", (True, 0.01), {}), "#ERROR", queue.Empty),
        (("q:a", "get", (), {"timeout": -1}), "#ERROR", ValueError),
        (("q:a", "get", (1, 2, 3), {}), "#ERROR", TypeError),
        (("q:a", "put", (), {}), "#ERROR", TypeError),
        (("q:a", "task_done", (), {}), "#ERROR", ValueError),
        (("q:a", "mutex", (), {}), "#TRACEBACK", str),
        (("other", "get", (), {}), "#TRACEBACK", str),
    ],
)
def test_what_queue_raises_is_raised(request_, kind, what):
    async def test(calls, client):
        me = await client()
        await me.serve()
        said, error = await me.call(*request_)
        assert (said, type(error)) == (kind, what)

    run(test)


def test_a_put_where_there_is_always_room_looks_at_no_timeout():
    async def test(calls, client):
        me = await client()
        await me.serve()
        for timeout in (-1, "soon"):
            answer = await me.call("q:a", "put", ("item",), {"timeout": timeout})
            assert answer == ("#RETURN", None)

    run(test)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_a_machine_that_vanishes_while_an_item_is_on_its_way_is_not_waited_for_longer():
    async def test(calls, client):
        me = await client()
        await me.serve()
        (served,) = me.door.connections
        option = served._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == 30_000

    run(test)


def test_a_long_request_is_read_beside_the_loop_and_those_after_it_come_after_it():
    async def test(calls, client):
        me = await client()
        await me.serve()
        long = list(range(100_000))
        me.ask(("q:a", "full", (long,), {}), ("q:a", "put", ("item",), {}), ("q:a", "get", (), {}))
        answers = [await me.answer() for _ in range(3)]
        assert answers[0] in (("#RETURN", False), ("#TRACEBACK", answers[0][1]))
        assert answers[1:] == [("#RETURN", None), ("#RETURN", "item")]
        me.send(b"\x80\x04" + b"]" * 100_000)
        kind, text = await me.answer()
        assert (kind, "can't be read" in text) == ("#TRACEBACK", True)

    run(test)
