"""Links that carry nothing and end with nobody being told, and links that carry little.

In the same network namespace, through a proxy; ``tests/scenario/test_links.py`` has links that
are cut, lossy and long.
"""

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest
import worker_tasks as tasks
from hasty import HastyCluster

import multihost
from multihost.runtime.config import KEY_FILE
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there
HOST = "127.0.0.1"
SLOW = 100_000 // 8
"""Bytes a second, each way and for each connection: 100 kbit/s."""
PIECE = 1000

pytestmark = pytest.mark.timeout(60)


class Proxy:
    """A way to a server's port, in a thread: slow, if so told, and at some point gone.

    Its address is known from the beginning, and refuses until the block is entered.
    """

    def __init__(self, port, bytes_a_second=None):
        self._port = port
        self._rate = bytes_a_second
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.accepted = 0
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def vanish(self):
        """Carry nothing any more, and take nobody; whoever is connected is told nothing."""
        asyncio.run_coroutine_threadsafe(self._vanish(), self._loop).result(10)

    async def _vanish(self):
        self._server.close()
        for way in self._ways:
            way.cancel()

    async def _serve(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._ways, self._writers = set(), []
        self._server = await asyncio.start_server(self._accept, sock=self._listener)
        self._ready.set()
        await self._end.wait()
        self._server.close()
        for way in self._ways:
            way.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _accept(self, reader, writer):
        self.accepted += 1
        far_reader, far_writer = await asyncio.open_connection(HOST, self._port)
        self._writers += [writer, far_writer]
        for way in (self._carry(reader, far_writer), self._carry(far_reader, writer)):
            self._ways.add(self._loop.create_task(way))

    async def _carry(self, reader, writer):
        while data := await reader.read(PIECE if self._rate else 1 << 16):
            writer.write(data)
            await writer.drain()
            if self._rate:
                await asyncio.sleep(len(data) / self._rate)
        writer.close()


def test_a_client_misses_a_server_that_vanished_and_finds_it_at_its_other_address(tmp_path):
    go = tmp_path / "go"
    with HastyCluster(workers=1, slots=1, python_path=HERE) as cluster:
        first, second = Proxy(cluster.port), Proxy(cluster.port)
        with first, multihost.connect(f"{first.url},{second.url}", cluster.key) as client:
            future = client.submit(tasks.until_there, str(go))
            wait_until(Path(f"{go}.begun").exists)
            number = client.session.peer.welcome.session
            first.vanish()
            go.touch()
            with second:
                assert future.result(40) > 0
                assert client.session.peer.url == second.url
                assert client.session.peer.welcome.session == number
                client.close()


def test_a_worker_misses_a_server_that_vanished_and_works_on_by_its_other_address(tmp_path):
    go = tmp_path / "go"
    with HastyCluster(workers=0, slots=1, python_path=HERE) as cluster:
        first, second = Proxy(cluster.port), Proxy(cluster.port)
        key_file = str(cluster.directory / KEY_FILE)
        with first:
            urls = f"{first.url},{second.url}"
            cluster.start_worker("--server", urls, "--key-file", key_file)
            cluster.wait_for_workers(1)
            with multihost.connect(cluster.url, cluster.key) as client:
                future = client.submit(tasks.until_there, str(go))
                wait_until(Path(f"{go}.begun").exists)
                first.vanish()
                go.touch()
                with second:
                    assert future.result(40) > 0
                    cluster.kill_worker()


def test_work_passes_links_of_a_hundred_kilobits_a_second():
    with Cluster(workers=0, python_path=HERE) as cluster, Proxy(cluster.port, SLOW) as proxy:
        key_file = str(cluster.directory / KEY_FILE)
        cluster.start_worker("--server", proxy.url, "--key-file", key_file)
        cluster.wait_for_workers(1)
        with multihost.connect(proxy.url, cluster.key) as client:
            assert list(client.map(tasks.triple, range(100))) == [3 * n for n in range(100)]
            assert client.submit(len, bytes(range(250)) * 80).result(50) == 20_000
            queue = client.queue("slow")
            queue.put("through")
            assert queue.get() == "through"
        assert proxy.accepted == 2, "nobody was cut off and came back"


def test_what_takes_a_client_longer_than_a_lease_to_send_or_get_is_no_silence():
    with (
        HastyCluster(workers=1, slots=1, python_path=HERE) as cluster,
        Proxy(cluster.port, SLOW) as proxy,
        multihost.connect(proxy.url, cluster.key) as client,
    ):
        assert client.submit(len, os.urandom(40_000)).result(50) == 40_000
        assert len(client.submit(os.urandom, 40_000).result(50)) == 40_000
        assert proxy.accepted == 1, "it was not cut off"
