"""Connections that end before the store has what came over them."""

import asyncio
from types import SimpleNamespace
from unittest import mock

import pytest

from multihost.core.job import JobSpec, Style
from multihost.core.lease import LeaseTable
from multihost.core.resources import Offer
from multihost.server.clients import ClientPeer
from multihost.server.services import Services
from multihost.server.subscription import Watchers
from multihost.server.workers import WorkerPeer
from multihost.store.access import KeyRole
from multihost.store.base import Cancelled, OpenedJob, Reinstated
from multihost.wire import message as m

UID = b"u" * 16
SESSION, JOB = 5, 7
SPEC = JobSpec(style=Style.COMMAND, is_transient=True)
NOW, GRACE_S = 100.0, 2.0


class Desk:
    """A server whose store does what it is asked when the test says so."""

    def __init__(self):
        self._asked = []
        self.store = mock.Mock()
        self.store.open_session.return_value = SESSION
        self.store.reinstate.return_value = Reinstated([], 0)
        self.store.open_job.return_value = OpenedJob(JOB, False, SPEC, 3, None, None)
        self.store.disown.return_value = Cancelled([], [])
        committer = SimpleNamespace(submit=self._asked.append, store=self.store, kick=mock.Mock())
        self.woken = mock.Mock()
        self.services = Services(
            committer,
            mock.Mock(),
            mock.Mock(),
            mock.Mock(),
            Watchers(),
            self.woken,
            leases=LeaseTable(grace_s=GRACE_S),
            clients=LeaseTable(grace_s=GRACE_S),
            takers=LeaseTable(grace_s=GRACE_S),
        )
        self.services.hub.processes.told.return_value = []
        self.connection = SimpleNamespace(
            key=SimpleNamespace(id="own", role=KeyRole.ADMIN), link=mock.Mock()
        )

    def client(self):
        return ClientPeer(self.services, self.connection, m.Attach(UID))

    def worker(self):
        enlist = m.Enlist(UID, "w", "host", 1, 2, (), Offer("3.11", "host"))
        return WorkerPeer(self.services, self.connection, enlist)

    def commit(self):
        """Do what was asked, and answer."""
        asked, self._asked[:] = list(self._asked), []
        for operation in asked:
            result = operation.run(self.store, 0.0)
            if operation.done is not None:
                operation.done(result)


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(Services, "now", lambda _: NOW)
    return Desk()


def run(work):
    """Do something on an event loop; nothing is left on it to be done later."""

    async def main():
        loop = asyncio.get_running_loop()
        with mock.patch.object(loop, "call_later") as later:
            work()
        assert not later.called

    asyncio.run(main())


def test_a_client_that_is_gone_before_its_session_is_open_has_only_the_grace(desk):
    def work():
        desk.client().closed("killed")
        desk.commit()

    run(work)
    assert not desk.services.client_peers
    assert desk.services.clients.next_deadline() == NOW + GRACE_S
    assert desk.services.takers.next_deadline() == NOW + GRACE_S
    assert desk.woken.called


def test_a_client_that_said_goodbye_before_its_session_is_open_is_gone(desk):
    def work():
        peer = desk.client()
        peer.received([m.Goodbye()])
        peer.closed("goodbye")
        desk.commit()
        desk.commit()

    run(work)
    assert SESSION not in desk.services.clients
    assert desk.store.close_session.called


def test_nobody_watches_a_job_for_a_client_that_was_gone_before_it_was_open(desk):
    def work():
        peer = desk.client()
        desk.commit()
        peer.received([m.Open(1, UID, SPEC)])
        peer.closed("killed")
        desk.commit()

    run(work)
    assert not desk.services.watchers.by_job


def test_outcomes_are_not_read_for_a_client_that_is_gone(desk):
    def work():
        peer = desk.client()
        peer._waiting = mock.Mock()
        desk.commit()
        peer.received([m.Open(1, UID, SPEC)])
        desk.commit()
        desk.store.outcomes.return_value = []
        desk.store.job.return_value = None
        peer.closed("killed")
        with mock.patch.object(asyncio.get_running_loop(), "call_soon") as soon:
            desk.commit()
        assert desk.store.outcomes.called
        assert not soon.called

    run(work)


def test_a_worker_that_is_gone_before_its_session_is_open_has_only_the_grace(desk):
    def work():
        desk.worker().closed("killed")
        desk.commit()

    run(work)
    assert not desk.services.worker_peers
    assert desk.services.leases.next_deadline() == NOW + GRACE_S
    assert not desk.services.hub.add_taker.called


def test_what_was_gone_early_does_not_touch_a_session_that_goes_on(desk):
    def work():
        early = desk.client()
        later = desk.client()
        early.closed("another network")
        desk.commit()
        assert desk.services.client_peers == {UID: later}

    run(work)
    assert desk.services.clients.next_deadline() > NOW + GRACE_S
