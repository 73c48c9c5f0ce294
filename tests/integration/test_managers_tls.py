"""Managers beside a server with TLS: what they say to proxies is encrypted, too."""

import socket

import pytest

from multihost.errors import AuthenticationError, ConfigError, UntrustedServer
from multihost.managers import BaseManager, SyncManager
from multihost.managers.wires import connect
from multihost.testing import Cluster

ADDRESS = ("127.0.0.1", 0, "tls")
"""As a manager without an address gets it when the server is another machine."""
KEY = b"an authkey"


class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


class Counters(BaseManager):
    """Without a queue among its types."""


Counters.register("Counter", Counter)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=0, is_tls=True) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _configured(cluster, monkeypatch):
    monkeypatch.setenv("MULTIHOST_JOIN", cluster.join.text())


@pytest.fixture
def manager():
    with SyncManager(ADDRESS, KEY) as manager:
        yield manager


def test_objects_and_queues_of_a_manager_are_reached_over_tls(manager):
    _, port, fingerprint = manager.address
    assert len(fingerprint) == 64
    assert port
    shared, queue = manager.dict(a=1), manager.Queue()
    shared["b"] = "x" * 100_000
    assert shared.copy() == {"a": 1, "b": "x" * 100_000}
    queue.put(2)
    assert queue.get(timeout=10) == 2
    other = SyncManager(manager.address, KEY)
    other.connect()
    assert other.list([1, 2])[1] == 2


def test_a_manager_without_queues_speaks_tls_as_well():
    with Counters(ADDRESS, KEY) as manager:
        counter = manager.Counter()
        assert [counter.add(), counter.add()] == [1, 2]
        assert len(manager.address) == 3


def test_another_certificate_is_refused(manager):
    host, port, _ = manager.address
    with pytest.raises(UntrustedServer):
        connect((host, port, "0" * 64), KEY)
    with pytest.raises(AuthenticationError, match="another authkey"):
        connect(manager.address, b"another")


def test_nothing_is_said_in_clear(manager):
    with socket.create_connection(manager.address[:2]) as end:
        end.settimeout(0.2)
        with pytest.raises(TimeoutError):  # the standard library's server would speak first
            end.recv(1)


def test_a_kept_connection_is_not_taken_for_a_broken_one(manager):
    wire = connect(manager.address, KEY)
    assert not wire.is_stale()
    assert not wire.poll(0.0)
    wire.close()


def test_a_serializer_that_can_do_without_is_refused():
    with pytest.raises(ConfigError, match="speaks no TLS"):
        Counters(ADDRESS, KEY, "xmlrpclib").start()
