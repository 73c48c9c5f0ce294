"""Connections of threads that block: what ends a wait that nobody else ends."""

import socket
import threading

import pytest

from multihost.runtime.blocking import BlockingLink
from multihost.wire import message as m
from multihost.wire.session import Session


@pytest.fixture
def ends():
    """A link, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    link = BlockingLink(ours, Session(m.Role.CLIENT))
    yield link, theirs
    link.close()
    theirs.close()


def test_what_no_answer_comes_to_ends_after_the_time_it_was_given(ends):
    link, _ = ends
    link.give_time(0.02)
    with pytest.raises(OSError, match=r"Resource temporarily unavailable|timed out"):
        link.receive()


def test_what_nobody_takes_ends_after_the_time_it_was_given(ends):
    link, _ = ends
    link.give_time(0.02)
    with pytest.raises(OSError, match=r"Resource temporarily unavailable|timed out"):
        link.send(bytes(16 << 20))


def test_a_link_that_is_interrupted_ends_who_waits_at_it(ends):
    link, _ = ends
    link.give_time(60)
    threading.Timer(0.02, link.interrupt).start()
    with pytest.raises(OSError, match="closed the connection"):
        link.receive()
