"""A disk that is full refuses what is new, loses nothing, and all goes on when there is room."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import multihost
from multihost import errors
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there
DISK = "size=40m"
DATA_BYTES = 3000
RESULT_BYTES = 50_000
BIG_BYTES = 400_000

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def wait_for(path, number, size=RESULT_BYTES):
    while not Path(path).exists():
        time.sleep(0.01)
    return bytes([number]) * size


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", DISK, "none", str(mount)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small file system")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


@contextmanager
def ballast(disk):
    """Something else takes all the room there is; call it to take what was left since."""
    path = disk / "ballast"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)

    def fill():
        with suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))

    fill()
    yield fill
    os.close(descriptor)
    path.unlink()


def waiting(cluster):
    return cluster.get("/api/queues")[0]["queued"]


def is_refused(cluster, future, before):
    """Whether it was, or waits beside the ``before`` that waited already."""
    wait_until(lambda: future.done() or waiting(cluster) > before)
    return future.done()


def submit_until_full(cluster, client):
    """Futures of what was submitted while nothing was worked off, the refused ones among them."""
    futures = []

    def is_full():
        futures.extend(client.submit(len, os.urandom(DATA_BYTES)) for _ in range(100))
        return any(future.done() and future.exception() for future in futures)

    wait_until(is_full, "a submit is refused")

    # That one came in a large transaction; a small one may still find room.
    while True:
        before = waiting(cluster)
        futures.append(client.submit(len, os.urandom(DATA_BYTES)))
        if is_refused(cluster, futures[-1], before):
            return futures


def test_a_full_disk_refuses_submits_and_everything_goes_on_when_there_is_room(disk, tmp_path):
    flag = tmp_path / "flag"
    state = disk / "state"
    with Cluster(workers=1, slots=3, durability="power", python_path=HERE, state=state) as cluster:
        with multihost.connect(cluster.url, cluster.key) as client:
            running = [client.submit(wait_for, str(flag), number) for number in range(2)]
            running.append(client.submit(wait_for, str(flag), 2, BIG_BYTES))
            wait_until(lambda: sum(job["running"] for job in cluster.get("/api/jobs")) == 3)
            with ballast(disk):
                futures = submit_until_full(cluster, client)
                refused = next(future for future in futures if future.done())
                assert "make room and submit again" in str(refused.exception())
                # What ran on ends now, and nobody can write that down.
                flag.touch()
                # Listings are answered meanwhile, all of them.
                for path in ("/api/jobs", "/api/queues", "/api/workers"):
                    assert cluster.get(path)
                with pytest.raises(errors.StoreFull, match="make room and submit again"):
                    client.submit(len, bytes(BIG_BYTES)).result(30)
                assert not any(future.done() for future in running)
            assert [future.result(30)[0] for future in running] == [0, 1, 2]
            # Each was refused, or has its result: of what was acknowledged nothing is lost.
            refused = [future for future in futures if future.exception(30)]
            assert all(isinstance(future.exception(), errors.StoreFull) for future in refused)
            kept = [future.result() for future in futures if not future.exception()]
            assert kept == [DATA_BYTES] * (len(futures) - len(refused))
            assert kept
            assert client.submit(len, b"abc").result(30) == 3
        assert "Traceback" not in cluster.log
        cluster.kill_worker()
        cluster.kill_server()
        check = [sys.executable, "-m", "multihost", "check", "--state", str(state)]
        shown = subprocess.run(check, capture_output=True, text=True, check=True).stdout
        assert shown.endswith(": sound\n")


def test_a_store_at_its_limit_says_so_and_takes_work_again_when_some_was_deleted(tmp_path):
    options = ("--store-limit", "2M")

    with Cluster(workers=1, server_options=options, python_path=HERE) as cluster:
        with multihost.connect(cluster.url, cluster.key) as client:
            results = client.map(os.urandom, [900] * 1000, name="first")
            assert [len(data) for data in results] == [900] * 1000
            multihost_cli(cluster, "queues", "pause", "default")
            futures = submit_until_full(cluster, client)
            refused = next(future for future in futures if future.done())
            assert "of the 2 MiB that --store-limit allows" in str(refused.exception())
            multihost_cli(cluster, "delete", "first")
            before = waiting(cluster)
            more = []

            def is_taken():
                more.append(client.submit(len, b"x"))
                return waiting(cluster) > before

            wait_until(is_taken, "the store takes work again")
            multihost_cli(cluster, "queues", "resume", "default")
            assert more[-1].result(30) == 1
            assert {future.exception(30).__class__ for future in futures} == {
                type(None),
                errors.StoreFull,
            }
        assert "Traceback" not in cluster.log


def multihost_cli(cluster, *arguments):
    command = [sys.executable, "-m", "multihost", *arguments]
    environment = {**os.environ, **cluster.environment}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_a_server_that_finds_no_room_at_all_says_so_and_starts_when_there_is_some(disk):
    with Cluster(workers=0, state=disk / "state") as cluster:
        with multihost.connect(cluster.url, cluster.key) as client:
            client.queue("q").put(1)
        cluster.kill_server()

        def refusal():
            fill()
            try:
                cluster.start_server()
            except AssertionError as error:
                return str(error)
            cluster.kill_server()  # what the last one had open was not given back before
            return None

        with ballast(disk) as fill:
            assert re.search(r"state is full, .* make room", wait_until(refusal))
        cluster.start_server()
        with multihost.connect(cluster.url, cluster.key) as client:
            assert client.queue("q").get() == 1
