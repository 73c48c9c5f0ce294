"""A client that was suspended for longer than its session lasts, and goes on when it wakes."""

import asyncio
import threading
from pathlib import Path

import pytest

import multihost
from multihost import Pool, errors
from multihost.runtime.secret import seal_text
from multihost.server.app import Server, ServerOptions
from multihost.testing import wait_until
from multihost.worker.options import WorkerOptions
from multihost.worker.worker import Worker

HERE = str(Path(__file__).parent)  # the worker imports this module from there
SESSION_S = 0.2

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def seal():
    """What the worker signs with."""
    return


@pytest.fixture
def server(tmp_path, seal):
    """A server that soon takes silent clients for dead, and a worker, in a loop of their own."""
    ready, servers = threading.Event(), []

    async def serve():
        options = ServerOptions(
            state=tmp_path,
            port=0,
            durability="process",
            announces=False,
            heartbeat_s=SESSION_S / 4,
            client_grace_s=SESSION_S,
        )
        server = Server(options)
        await server.start()
        worker = Worker(
            WorkerOptions((server.url,), server.key, spool=tmp_path, first_path=(HERE,), seal=seal)
        )
        working = asyncio.create_task(worker.run())
        servers.append(server)
        server.loop = asyncio.get_running_loop()
        ready.set()
        await server.wait()
        worker.leave()
        await working
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield servers[0]
    servers[0].loop.call_soon_threadsafe(servers[0].request_stop)
    thread.join()


@pytest.fixture
def sleep(server):
    """Have a session sleep until the server has ended it."""

    def sleep(session, then=lambda: None):
        awake, told = threading.Event(), session.disconnected

        def disconnected(reason):
            told(reason)
            asyncio.get_running_loop().call_soon(awake.wait, 20)

        session.disconnected = disconnected
        number = session.peer.welcome.session
        session.post(lambda: session.peer.drop("asleep"))
        wait_until(lambda: number not in server.services.clients, "the session was ended")
        session.disconnected = told
        then()
        awake.set()

    return sleep


def double(n):
    return 2 * n


def begin_and_wait(path):
    path.touch()
    threading.Event().wait(20)


def test_what_is_submitted_after_a_sleep_runs_in_a_new_job(server, sleep):
    with multihost.connect(server.url, server.key) as client:
        assert client.submit(double, 1).result(20) == 2
        sleep(client.session)
        assert client.submit(double, 2).result(20) == 4
        assert list(client.map(double, range(5))) == [0, 2, 4, 6, 8]


def test_what_was_submitted_while_the_connection_was_gone_runs_too(server, sleep):
    futures = []
    with multihost.connect(server.url, server.key) as client:
        assert client.submit(double, 1).result(20) == 2
        large = bytes(300_000)
        assert client.submit(len, large).result(20) == len(large)

        def submit():
            futures.extend(client.submit(double, n) for n in range(5))
            futures.append(client.submit(len, large))

        sleep(client.session, submit)
        assert [future.result(20) for future in futures] == [0, 2, 4, 6, 8, len(large)]


def test_a_pool_that_slept_goes_on_and_what_ran_meanwhile_was_cancelled(server, sleep, tmp_path):
    begun = tmp_path / "begun"
    with Pool(1, url=server.url, authkey=server.key) as pool:
        assert pool.apply(double, (1,)) == 2
        running = pool.apply_async(begin_and_wait, (begun,))
        wait_until(begun.exists)
        sleep(pool._crew._session)
        with pytest.raises(errors.TaskCancelled):
            running.get(20)
        assert pool.map(double, range(5)) == [0, 2, 4, 6, 8]
        assert pool.apply(double, (3,)) == 6


@pytest.mark.parametrize("seal", [b"s" * 32])
def test_what_was_signed_for_an_ended_job_is_signed_again_for_the_next(
    server, sleep, seal, monkeypatch
):
    monkeypatch.setenv("MULTIHOST_SEAL", seal_text(seal))
    futures = []
    with multihost.connect(server.url, server.key) as client:
        assert client.submit(double, 1).result(20) == 2
        sleep(client.session, lambda: futures.append(client.submit(double, 2)))
        assert futures[0].result(20) == 4
        assert client.submit(double, 3).result(20) == 6
