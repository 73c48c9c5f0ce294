"""Claims about messages that other threads write to a link's socket themselves."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from multihost.runtime.link import client_link, server_link
from multihost.runtime.loop import new_event_loop
from multihost.wire import message as m
from multihost.wire.session import Session

OPENING = m.Hello(m.Role.CLIENT, bytes(m.NONCE_BYTES))


class Owner:
    """Notes what a link tells it."""

    def __init__(self):
        self.opened, self.closed = asyncio.Event(), asyncio.Event()
        self.received = asyncio.Queue()

    def link_opened(self, link):
        self.opened.set()

    def link_received(self, link, messages):
        for message in messages:
            self.received.put_nowait(message)

    def link_writable(self, link):
        pass

    def link_closed(self, link, reason):
        self.closed.set()


@pytest.fixture(params=[asyncio.new_event_loop, new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


async def connect():
    """A server's owner, and a client's with its link."""
    near, far = socket.socketpair()
    at_server, at_client = Owner(), Owner()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: server_link(at_server), far)
    _, link = await loop.create_unix_connection(
        lambda: client_link(at_client, Session(m.Role.CLIENT), "ws://nearby/ws"), sock=near
    )
    await at_client.opened.wait()
    return at_server, at_client, link


def descriptors():
    return set(Path("/proc/self/fd").iterdir())


def test_the_first_message_of_another_thread_asks_for_a_way_that_the_next_takes(loop):
    async def scenario():
        at_server, at_client, link = await connect()
        before = descriptors()
        assert not await asyncio.to_thread(link.send_here, OPENING)
        assert await asyncio.to_thread(link.send_here, OPENING)
        assert await at_server.received.get() == OPENING
        assert at_server.received.empty()
        link.abort("enough")
        await at_client.closed.wait()
        assert not await asyncio.to_thread(link.send_here, OPENING)
        assert descriptors() <= before
        await at_server.closed.wait()

    loop.run_until_complete(asyncio.wait_for(scenario(), 20))


def test_nothing_is_written_once_the_loop_has_closed_the_socket():
    loop = new_event_loop()
    _, _, link = loop.run_until_complete(connect())
    with pytest.warns(ResourceWarning, match="unclosed"):
        loop.close()
    near, far = socket.socketpair()  # one of them has the socket's number now
    with near, far:
        assert not link.send_here(OPENING)
        for end in (near, far):
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(1)


def test_who_has_no_descriptor_left_has_the_loop_send(loop, monkeypatch):
    async def scenario():
        at_server, at_client, link = await connect()

        def none_left(descriptor):
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "dup", none_left)
        for _ in range(3):
            assert not await asyncio.to_thread(link.send_here, OPENING)
        link.send(OPENING)
        assert await at_server.received.get() == OPENING
        link.abort("enough")
        await asyncio.gather(at_client.closed.wait(), at_server.closed.wait())

    loop.run_until_complete(asyncio.wait_for(scenario(), 20))
