"""Which address of a server is tried next."""

import contextlib
import socket
from types import SimpleNamespace

import pytest

from multihost.runtime import reach

DEAD = "https://127.0.0.1:9"
SILENT = "https://192.0.2.1:7077"
"""An address that no machine has, so that nobody answers."""


@pytest.fixture(autouse=True)
def _whoever_answers_does_so_in_time(monkeypatch):
    """However long a machine keeps a thread from asking: silence is what a test says is silent."""
    monkeypatch.setattr(reach, "STAGGER_S", 30.0)


@pytest.fixture
def listening():
    """Makes addresses at which connections are accepted."""
    with contextlib.ExitStack() as stack:

        def listen():
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            return f"https://127.0.0.1:{listener.getsockname()[1]}"

        yield listen


def turns(*urls):
    reasons = {}
    return list(reach.in_turn(urls, reasons)), reasons


def test_a_single_address_is_tried_as_it_is():
    assert turns(SILENT) == ([SILENT], {})


def test_the_order_is_kept_where_all_answer(listening):
    urls = [listening() for _ in range(3)]
    assert turns(*urls) == (urls, {})


def test_dead_addresses_are_left_out_and_told(listening):
    url = listening()
    found, reasons = turns(DEAD, url)
    assert found == [url]
    assert reasons == {DEAD: "Connection refused"}


def test_a_silent_address_delays_nobody(listening, monkeypatch):
    monkeypatch.setattr(reach, "STAGGER_S", 0.01)
    monkeypatch.setattr(reach, "_ask", silent_ask)
    url = listening()
    tries = reach.in_turn([SILENT, url], {})
    assert next(tries) == url


def test_where_nobody_answers_all_are_told(monkeypatch):
    monkeypatch.setattr(reach, "CONNECT_ONE_S", 0.05)
    monkeypatch.setattr(reach, "STAGGER_S", 0.01)
    monkeypatch.setattr(reach, "_ask", silent_ask)
    monkeypatch.setattr(reach, "threading", SimpleNamespace(Thread=AtOnce))
    found, reasons = turns(SILENT, DEAD)
    assert found == []
    assert reasons == {SILENT: "no answer within 0.05 s", DEAD: "Connection refused"}


class AtOnce:
    """A thread that has ended when it has started."""

    def __init__(self, target, args, **_):
        self.start = lambda: target(*args)


def silent_ask(url, answers, ask=reach._ask):
    """Nobody at ``SILENT`` refuses either, whatever network the test runs on."""
    if url != SILENT:
        ask(url, answers)
