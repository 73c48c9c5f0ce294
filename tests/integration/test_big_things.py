"""Payloads larger than the memory of who passes them on: limited, interrupted, refused."""

import os
import shutil
import threading
from pathlib import Path

import psutil
import pytest
import worker_tasks as tasks

import multihost
from multihost import Pool, Process, errors
from multihost.core.digest import digest_of
from multihost.runtime import upload
from multihost.testing import Cluster, wait_until
from multihost.wire import message as m

HERE = [str(Path(__file__).parent)]  # the workers import worker_tasks from there
SIZE = 144 << 20
LIMIT = 128 << 20
"""Bytes of data that server and agent may have: what they need otherwise, and less than SIZE."""
LARGE = 16 << 20
HALF = LARGE // 2
MAX_BLOB = 150 << 20

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster():
    options = ["--max-blob", f"{MAX_BLOB >> 20}MiB"]
    with Cluster(workers=1, slots=1, python_path=HERE, server_options=options) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with multihost.connect(cluster.url, cluster.key) as client:
        yield client


@pytest.fixture
def offsets(monkeypatch):
    """From where on the server wanted each upload."""
    seen = []
    found = upload.Uploads._found

    def note(self, message):
        seen.append(message.have_bytes)
        found(self, message)

    monkeypatch.setitem(upload.Uploads._handlers, m.BlobFound, note)
    return seen


@pytest.fixture
def go_on(monkeypatch):
    """Uploads stop at HALF until this event is set and their connection is a new one."""
    event = threading.Event()
    pump = upload.Uploads._pump

    def stop_half_way(self):
        if event.is_set() or all(one.offset < HALF for one in self._to_send):
            pump(self)
        else:
            self._is_pump_due = False

    monkeypatch.setattr(upload.Uploads, "_pump", stop_half_way)
    return event


def parts(cluster):
    return list((cluster.directory / "blobs").glob("*.part"))


def wait_until_half_has_come(cluster):
    wait_until(lambda: any(path.stat().st_size >= HALF for path in parts(cluster)), "half has come")


def test_more_than_their_memory_passes_through_server_and_agent(cluster, client):
    assert client.submit(tasks.where).result(30)
    for process in (cluster.server, cluster.workers[0]):
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_DATA, (LIMIT, -1))
    data = os.urandom(1 << 20) * (SIZE >> 20)
    turned = client.submit(tasks.turn_first_byte, data).result(100)
    assert (turned[0], turned[1:]) == (data[0] ^ 1, data[1:])
    for process in (cluster.server, cluster.workers[0]):
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_DATA, (-1, -1))


def test_an_upload_goes_on_where_a_broken_connection_stopped_it(cluster, client, offsets, go_on):
    data = os.urandom(LARGE)
    future = client.submit(digest_of, data)
    wait_until_half_has_come(cluster)
    go_on.set()
    client.session.post(lambda: client.session.peer.drop("cut by the test"))
    assert future.result(60) == digest_of(data)
    assert offsets[0] == 0
    assert offsets[1] >= HALF


def test_an_upload_goes_on_where_a_killed_server_stopped_it(cluster, client, offsets, go_on):
    data = os.urandom(LARGE)
    future = client.submit(digest_of, data)
    wait_until_half_has_come(cluster)
    cluster.kill_server()
    go_on.set()
    cluster.start_server()
    assert future.result(60) == digest_of(data)
    assert offsets[0] == 0
    assert offsets[1] >= HALF
    assert parts(cluster) == []


def test_a_beginning_that_was_damaged_meanwhile_is_sent_again(cluster, client, offsets, go_on):
    data = os.urandom(LARGE)
    future = client.submit(digest_of, data)
    wait_until_half_has_come(cluster)
    cluster.kill_server()
    (path,) = parts(cluster)
    with path.open("r+b") as file:
        file.write(b"something else")
    go_on.set()
    cluster.start_server()
    assert future.result(60) == digest_of(data)
    assert offsets[1] >= HALF
    assert offsets[2] == 0


def test_what_is_sent_once_is_not_sent_again(cluster, offsets):
    data = os.urandom(LARGE)
    for _ in range(2):
        with multihost.connect(cluster.url, cluster.key) as client:
            assert client.submit(len, data).result(60) == LARGE
    assert offsets[0] == 0
    assert offsets[1] > LARGE


def test_an_argument_beyond_the_limit_is_refused_with_what_to_do(client):
    with pytest.raises(errors.LimitExceeded, match="--max-blob") as caught:
        client.submit(len, bytes(MAX_BLOB + 1)).result(60)
    assert caught.value.limit == "MAX_BLOB_BYTES"


def test_a_result_beyond_the_limit_fails_its_task_with_what_to_do(client):
    with pytest.raises(errors.TaskError, match="--max-blob"):
        client.submit(bytes, MAX_BLOB + 1).result(60)


def test_a_full_store_refuses_arguments_before_they_are_sent_and_takes_results():
    with (
        Cluster(workers=1, slots=1, server_options=["--store-limit", "8MiB"]) as cluster,
        multihost.connect(cluster.url, cluster.key) as client,
    ):
        assert client.submit(len, os.urandom(5 << 20)).result(60) == 5 << 20
        for size in (5 << 20, 9 << 20):
            with pytest.raises(errors.StoreFull, match="--store-limit"):
                client.submit(len, os.urandom(size)).result(60)
        files = [path for path in (cluster.directory / "blobs").rglob("*") if path.is_file()]
        assert len(files) == 1
        assert client.submit(bytes, LARGE).result(60) == bytes(LARGE)
        with pytest.raises(errors.StoreFull, match="--store-limit"):
            client.submit(abs, -1).result(60)


def test_large_things_that_are_no_arguments_come_through_files_as_well(cluster, client):
    ballast = os.urandom(6 << 20)
    assert client.submit(lambda: digest_of(ballast)).result(60) == digest_of(ballast)
    with Pool(1, tasks.set_ballast, (ballast,), url=cluster.url, authkey=cluster.key) as pool:
        assert pool.apply(tasks.digest_of_ballast) == digest_of(ballast)
    assert client.command(["cmp", "-", "/dev/zero"], stdin=bytes(6 << 20)).result(60) == 1


def test_a_process_takes_large_arguments(cluster, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    process = Process(target=tasks.leave_with_length, args=(bytes(6 << 20),))
    process.start()
    process.join(60)
    assert process.exitcode == 6


def test_a_result_that_the_spool_does_not_take_fails_its_task_with_what_to_do(cluster, tmp_path):
    cluster.start_worker("--spool", str(tmp_path), "--tag", "elsewhere")
    cluster.wait_for_workers(2)
    with multihost.connect(cluster.url, cluster.key) as client:
        there = client.options(tags=["elsewhere"])
        assert there.submit(bytes, LARGE).result(60) == bytes(LARGE)
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
        with pytest.raises(OSError, match="--spool"):
            there.submit(bytes, LARGE).result(60)
