"""A server's socket for its own machine: who uses it, and what happens when it is not there."""

import contextlib
import socket
import stat

import pytest

from multihost import Client, errors
from multihost.runtime.config import SOCKET_FILE, STATE_VARIABLE
from multihost.server.admission import HANDSHAKE_S
from multihost.testing import Cluster, wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def at_home(monkeypatch):
    """Have this process find a cluster's server as its user's own."""

    def at_home(cluster):
        monkeypatch.setenv(STATE_VARIABLE, str(cluster.directory))

    return at_home


@pytest.mark.parametrize("is_tls", [False, True])
def test_programs_of_the_servers_user_need_no_network_and_no_tls(at_home, is_tls):
    with Cluster(workers=1, is_tls=is_tls) as cluster:
        at_home(cluster)
        with Client() as client:
            assert client.session.peer.is_nearby
            assert client.submit(pow, 2, 5).result(20) == 32


def test_a_thread_that_makes_many_calls_makes_them_there_too(at_home):
    with Cluster(workers=0) as cluster:
        at_home(cluster)
        with Client() as client:
            queue, taker = client.queue("numbers"), client.session.calls.threads.mine()

            def has_branch():
                queue.qsize()
                return taker.has_branch

            wait_until(has_branch)
            assert taker._branch.link._socket.family is socket.AF_UNIX
            queue.put(42)
            assert queue.get(timeout=20) == 42


def test_who_names_another_address_gets_there_by_the_network():
    with Cluster(workers=0) as cluster, Client(cluster.url, cluster.key) as client:
        assert not client.session.peer.is_nearby


def test_only_its_user_may_use_it():
    with Cluster(workers=0) as cluster:
        assert stat.S_IMODE((cluster.directory / SOCKET_FILE).stat().st_mode) == 0o600


def test_it_carries_messages_only_and_turns_http_requests_away():
    with Cluster(workers=0) as cluster, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(cluster.directory / SOCKET_FILE))
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
        assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 426 ")), answer


def test_who_says_nonsense_there_is_hung_up_on():
    with Cluster(workers=0) as cluster, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(HANDSHAKE_S / 2)
        sock.connect(str(cluster.directory / SOCKET_FILE))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(bytes(100_000))
            while sock.recv(4096):
                pass


def test_a_wrong_key_is_refused_there_too(at_home):
    with Cluster(workers=0) as cluster:
        at_home(cluster)
        with pytest.raises(errors.AuthenticationError, match="another key"):
            Client(authkey=b"wrong" * 8)


def test_a_killed_servers_socket_is_taken_over_by_the_next(at_home):
    with Cluster(workers=1) as cluster:
        at_home(cluster)
        with Client() as client:
            cluster.kill_server()
            assert (cluster.directory / SOCKET_FILE).exists()
            cluster.start_server()
            assert client.submit(pow, 2, 5).result(20) == 32
            assert client.session.peer.is_nearby


def test_a_server_that_stops_leaves_none():
    with Cluster(workers=0) as cluster:
        cluster.server.terminate()
        cluster.server.wait(20)
        assert not (cluster.directory / SOCKET_FILE).exists()


def test_without_it_the_network_is_used(at_home):
    with Cluster(workers=1) as cluster:
        at_home(cluster)
        (cluster.directory / SOCKET_FILE).unlink()
        with Client() as client:
            assert not client.session.peer.is_nearby
            assert client.submit(pow, 2, 5).result(20) == 32


def test_a_state_directory_whose_name_is_too_long_for_one_has_none(tmp_path, at_home):
    state = tmp_path / ("long" * 30)
    with Cluster(workers=1, state=state) as cluster:
        at_home(cluster)
        assert not (state / SOCKET_FILE).exists()
        with Client() as client:
            assert not client.session.peer.is_nearby
            assert client.submit(pow, 2, 5).result(20) == 32
