"""A client whose server is away says so, once."""

import logging
import threading

import pytest

from multihost.client import absence
from multihost.runtime import waiting
from multihost.testing import wait_until


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "multihost"]


@pytest.fixture(autouse=True)
def _warnings(caplog):
    caplog.set_level(logging.WARNING, logger="multihost")


def test_that_the_server_is_away_is_told_once_and_so_is_its_return(
    client, server, caplog, monkeypatch
):
    monkeypatch.setattr(absence, "AWAY_S", 0.0)
    server.gate.clear()
    future = client.submit(len, "abc")
    assert future.wait_stored(20)
    server.stop_listening()
    wait_until(lambda: told(caplog))
    (away,) = told(caplog)
    assert f"{server.url} has not answered since " in away
    assert "for 10 s in all" in away
    server.gate.set()
    server.listen_again()
    assert future.result(20) == 3
    wait_until(lambda: len(told(caplog)) > 1)
    assert told(caplog)[1].startswith(f"multihost: the server at {server.url} is back after ")
    assert len(told(caplog)) == 2


def test_a_handler_that_waits_for_the_server_holds_up_nothing(client, server, monkeypatch):
    monkeypatch.setattr(absence, "AWAY_S", 0.0)
    came, handled = threading.Event(), []

    class Held(logging.Handler):
        def handle(self, record):
            came.set()
            handled.append(client.submit(len, record.getMessage()).result(20))

    handler = Held()
    logging.getLogger("multihost").addHandler(handler)
    try:
        server.gate.clear()
        future = client.submit(len, "abc")
        assert future.wait_stored(20)
        server.stop_listening()
        assert came.wait(20)
        server.gate.set()
        server.listen_again()
        assert future.result(20) == 3
        wait_until(lambda: len(handled) == 2)  # that it is away, and that it is back
    finally:
        logging.getLogger("multihost").removeHandler(handler)


def test_a_short_absence_is_not_worth_a_word(client, server, caplog):
    server.cut()
    assert client.submit(len, "abc").result(20) == 3
    assert told(caplog) == []


def test_a_server_that_nobody_misses_may_be_away(client, server, caplog, monkeypatch):
    monkeypatch.setattr(absence, "AWAY_S", 0.0)
    looked = []
    client.session._absence._is_missed = lambda: looked.append(1) or len(looked) > 3
    server.stop_listening()
    wait_until(lambda: told(caplog))
    assert len(looked) == 4


def test_a_task_leaves_it_to_its_worker_and_its_program(client, server, monkeypatch):
    server.gate.clear()
    assert client.submit(len, "abc").wait_stored(20)
    assert client.session._has_work()
    monkeypatch.setattr(waiting, "_tell", lambda is_waiting: None)
    assert not client.session._has_work()


def test_who_was_closed_waits_for_nobody(client, server, caplog):
    server.stop_listening()
    wait_until(lambda: not client.session.peer.is_connected)
    client.close()
    assert client.session._absence._timer is None
    assert told(caplog) == []
