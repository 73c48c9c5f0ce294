"""What a pause of the server itself does to the deadlines of others."""

import asyncio
from unittest import mock

import pytest

from multihost.server import reaper as module
from multihost.server.reaper import Reaper
from multihost.server.services import Services

SESSION = 5


@pytest.fixture
def server(monkeypatch):
    """Services whose clock the test sets, and a reaper that sleeps as long as the test says."""
    server = mock.Mock(now=100.0)
    parts = [mock.Mock() for _ in range(6)]
    server.services = Services(*parts)
    monkeypatch.setattr(Services, "now", lambda _: server.now)

    def sleep(for_s):
        async def wait_for(waiting, asked_s):
            waiting.close()
            server.asked_s = asked_s
            server.now += for_s
            raise TimeoutError

        with mock.patch.object(module.asyncio, "wait_for", wait_for):
            asyncio.run(Reaper()._sleep(server.services))

    server.sleep = sleep
    return server


@pytest.mark.parametrize("pause_s", [12.0, 24.0, 60.0, 3600.0])
def test_a_pause_of_the_server_costs_nobody_a_lease(server, pause_s):
    server.services.leases.renew(SESSION, server.now)
    left_s = server.services.leases.next_deadline() - server.now
    server.sleep(pause_s)
    assert server.services.leases.expired(server.now) == []
    assert server.services.leases.next_deadline() - server.now >= left_s


@pytest.mark.parametrize("pause_s", [12.0, 60.0, 3600.0])
def test_who_had_nearly_run_out_is_listened_to_after_a_pause(server, pause_s):
    services = server.services
    services.leases.renew(SESSION, server.now - services.lease_s + 0.1)
    server.sleep(pause_s)
    assert services.leases.expired(server.now) == []
    assert services.leases.next_deadline() - server.now >= services.heartbeat_s


def test_who_is_dead_is_given_up_by_a_server_that_is_always_late(server):
    services = server.services
    services.leases.renew(SESSION, server.now)
    for _ in range(100):
        server.sleep(services.heartbeat_s + 1.5)
        if services.leases.expired(server.now):
            break
    assert SESSION not in services.leases


def test_an_ordinary_sleep_extends_nothing(server):
    services = server.services
    services.leases.renew(SESSION, server.now)
    deadline = services.leases.next_deadline()
    server.sleep(services.heartbeat_s)
    assert server.asked_s == services.heartbeat_s
    assert services.leases.next_deadline() == deadline


def test_a_server_alone_sleeps_a_whole_lease(server):
    server.sleep(server.services.lease_s)
    assert server.asked_s == server.services.lease_s
