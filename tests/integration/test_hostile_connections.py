"""Strangers at a real server's ports: they are cut off, and nobody beside them notices."""

import asyncio
import contextlib
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import multihost
from multihost.runtime.config import KEY_FILE
from multihost.runtime.secret import read_key
from multihost.server import admission, patience, web
from multihost.server.app import Server, ServerOptions
from multihost.server.managers.options import ManagersOptions
from multihost.testing.stranger import Stranger
from multihost.testing.waiting import wait_until

SOON_S = 0.2
DEADLINE_S = 20.0
HOST = "127.0.0.1"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


@contextlib.asynccontextmanager
async def served(directory, *, is_tls=False):
    """A server in this process with both ports."""
    options = ServerOptions(
        state=directory,
        port=0,
        is_tls=is_tls,
        durability="process",
        announces=False,
        managers=ManagersOptions(host=HOST, port=0),
    )
    server = Server(options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def port_of(server):
    return int(server.url.rpartition(":")[2])


async def is_cut(reader):
    """Read until the other end closes; what it said."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), DEADLINE_S):
            said += data
    return said


async def dribble(writer, data):
    """A byte at a time, each in time for a deadline that only knows silence."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(SOON_S / 5)


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(b"", id="silent from the first"),
        pytest.param(b"GET / HTTP/1.1\r\nHost", id="half a request"),
        pytest.param(UPGRADE + b"\r\n", id="silent as a WebSocket"),
        pytest.param(UPGRADE + b"\r\n\x82\xff", id="half a frame"),
        pytest.param(b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", id="no body"),
    ],
)
def test_who_says_too_little_is_cut_off(tmp_path, monkeypatch, beginning):
    monkeypatch.setattr(admission, "HANDSHAKE_S", SOON_S)
    monkeypatch.setattr(web, "REQUEST_S", SOON_S)

    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(beginning)
            await is_cut(reader)
            assert server.admission.unproved == 0
            writer.close()

    asyncio.run(main())


def test_who_dribbles_a_byte_at_a_time_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "HANDSHAKE_S", SOON_S)

    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            dribbling = asyncio.create_task(dribble(writer, b"GET /healthz HTTP/1.1\r\n" * 50))
            assert await is_cut(reader) == b""
            dribbling.cancel()
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
def test_who_never_ends_a_tls_handshake_is_cut_off(tmp_path, monkeypatch, beginning):
    monkeypatch.setattr(admission, "HANDSHAKE_S", SOON_S)

    async def main():
        async with served(tmp_path, is_tls=True) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(beginning)
            assert b"HTTP" not in await is_cut(reader)
            assert server.admission.unproved == 0
            writer.close()

    asyncio.run(main())


def test_a_silent_connection_to_the_managers_port_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "HANDSHAKE_S", SOON_S)

    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(*server.door.address[:2])
            assert b"#CHALLENGE#" in await is_cut(reader)
            assert server.admission.unproved == 0
            writer.close()

    asyncio.run(main())


def test_a_member_that_never_ends_its_second_request_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "REQUEST_S", SOON_S)

    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            key = server.key
            head = b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key
            writer.write(head + b"\r\n\r\n")
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 200")
            assert server.admission.proved
            writer.write(head)
            assert await is_cut(reader) == b""
            assert not server.admission.proved
            writer.close()

    asyncio.run(main())


def asking(key):
    return b"GET /api/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + b"\r\n\r\n"


def test_wrong_keys_over_http_slow_whoever_comes_from_there_and_nobody_who_is_in(
    tmp_path, monkeypatch
):
    plain = patience.FailureLog.slow_s

    def slow_s(log, address, now):
        return 5 * SOON_S if plain(log, address, now) else 0.0

    async def ask(server, key):
        reader, writer = await asyncio.open_connection(HOST, port_of(server))
        writer.write(asking(key))
        said = await is_cut(reader)
        writer.close()
        return said

    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(asking(server.key))
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            for _ in range(patience.FREE_FAILURES):
                assert b"401" in await ask(server, b"wrong")
            monkeypatch.setattr(patience.FailureLog, "slow_s", slow_s)
            monkeypatch.setattr(admission, "HANDSHAKE_S", SOON_S)
            assert await ask(server, b"wrong") == b""
            assert await ask(server, server.key) == b""
            stranger = await asyncio.to_thread(Stranger, server.url, server.key)
            with stranger, pytest.raises(IndexError):  # no challenge comes
                await asyncio.to_thread(stranger.enter)
            door, door_writer = await asyncio.open_connection(*server.door.address[:2])
            assert await is_cut(door) == b""
            door_writer.close()
            writer.write(asking(server.key))
            assert b"200 OK" in await reader.readuntil(b"200 OK")
            writer.close()

    asyncio.run(main())


def test_a_stranger_gets_one_answer_a_connection(tmp_path):
    async def main():
        async with served(tmp_path) as server:
            reader, writer = await asyncio.open_connection(HOST, port_of(server))
            writer.write(b"GET /api/jobs HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
            said = await is_cut(reader)
            assert said.count(b"HTTP/1.1 401") == 1
            assert b"connection: close" in said.lower()
            writer.close()

    asyncio.run(main())


def test_where_there_is_no_place_left_each_door_says_why(tmp_path):
    async def main():
        async with served(tmp_path) as server:
            server.admission.max_connections = 0
            ask = [
                asyncio.to_thread(call, server)
                for call in (_why_no_http, _why_no_client, _why_no_managers)
            ]
            for reason in await asyncio.gather(*ask):
                assert "max_connections" in reason
                assert "ulimit -n" in reason

    asyncio.run(main())


def _why_no_http(server):
    connection = http.client.HTTPConnection(HOST, port_of(server), timeout=DEADLINE_S)
    connection.request(
        "GET", "/api/jobs", headers={"Authorization": f"Bearer {server.key.decode()}"}
    )
    answer = connection.getresponse()
    assert answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE
    return json.loads(answer.read())["error"]


def _why_no_client(server):
    with pytest.raises(multihost.MultihostError) as caught:
        multihost.connect(server.url, server.key)
    return str(caught.value)


def _why_no_managers(server):
    from multiprocessing.managers import BaseManager, RemoteError

    class Manager(BaseManager):
        """What it registers is for itself: the class is everybody's."""

    Manager.register("q")
    manager = Manager(server.door.address, server.key)
    with pytest.raises(RemoteError) as caught:
        manager.connect()
    return str(caught.value)


@pytest.fixture
def small_server(tmp_path):
    """A server that the system allows 400 descriptors, and no more if it asks."""
    state = tmp_path / "state"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("sh", "-c", 'ulimit -n 400; exec "$@"', "sh"),
                *(sys.executable, "-m", "multihost", "server", "--json"),
                *("--state", str(state), "--port", "0", "--durability", "process"),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"MULTIHOST_STATE": str(state)},
        )
    try:
        note = json.loads(process.stdout.readline())
        yield process, note["url"], read_key(state / KEY_FILE)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
        process.stdout.close()


def _crowd(url, count):
    """Connections that say nothing."""
    address = HOST, int(url.rpartition(":")[2])
    crowd = []
    for _ in range(count):
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.connect_ex(address)
        crowd.append(stranger)
    return crowd


def _works(url, key):
    with multihost.connect(url, key) as client:
        queue = client.queue("q")
        queue.put("through")
        return queue.get()


def test_silent_connections_leave_descriptors_for_who_has_the_key(small_server):
    process, url, key = small_server
    crowd = _crowd(url, 1000)
    assert _works(url, key) == "through"
    descriptors = Path(f"/proc/{process.pid}/fd")
    if descriptors.exists():
        assert len(list(descriptors.iterdir())) < 200
    for stranger in crowd:
        stranger.close()
    assert process.poll() is None


def test_a_server_without_descriptors_goes_on_when_it_has_some(small_server):
    process, url, key = small_server
    if not hasattr(resource, "prlimit"):
        pytest.skip("limits of another process can be set on Linux only")
    descriptors = Path(f"/proc/{process.pid}/fd")
    resource.prlimit(
        process.pid, resource.RLIMIT_NOFILE, (len(list(descriptors.iterdir())) + 8,) * 2
    )
    crowd = _crowd(url, 60)
    assert _works(url, key) == "through"
    for stranger in crowd:
        stranger.close()
    wait_until(lambda: _works(url, key) == "through", "the server lets clients in")
