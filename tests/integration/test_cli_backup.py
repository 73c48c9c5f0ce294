"""Backing up a server that works, restoring it, checking both; what a killed server left behind."""

import json
import os
import signal
import time

import pytest
from cli_runner import Shell

import multihost
from multihost.cli.exits import Exit
from multihost.core.digest import digest_of
from multihost.server.sweeper import AGE_S
from multihost.store.places import BLOB_DIRECTORY, blob_place
from multihost.testing import Cluster
from multihost.testing.waiting import wait_until


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, slots=2) as cluster:
        yield cluster


@pytest.fixture
def shell(cluster):
    return Shell(MULTIHOST_STATE=str(cluster.directory))


def test_a_server_at_work_is_backed_up_and_restored(cluster, shell, tmp_path):
    file, other = tmp_path / "backup.mhb", tmp_path / "other"
    inputs = [os.urandom(200_000 if number % 50 == 0 else 300) for number in range(500)]
    wanted = [len(data) for data in inputs]
    with multihost.connect(cluster.url, cluster.key) as client:
        results = client.map(len, inputs, name="backed up")
        assert next(results) == wanted[0]
        row = shell.json("backup", str(file))
        assert (row["state"], row["path"]) == ("done", str(file))
        assert list(results) == wanted[1:]
    assert shell.json("check", str(file))["is_sound"]
    assert shell.json("restore", str(file), "--state", str(other))["jobs"] == 1

    shell = Shell(MULTIHOST_STATE=str(other))
    with shell.start("server", "--port", "0", "--json") as server:
        url = json.loads(server.stdout.readline())["url"]
        with shell.start("worker", "--slots", "2") as worker:
            key = (other / "key").read_text().strip()
            with multihost.connect(url, key) as client:
                assert list(client.map(len, inputs, name="backed up")) == wanted
            (job,) = shell.json("jobs")
            assert (job["job"], job["succeeded"], job["total"]) == (1, 500, 500)
            worker.terminate()
            worker.communicate()
        server.terminate()
        server.communicate()
    assert shell.json("check")["is_sound"]


def test_a_backup_never_replaces_a_file_and_needs_a_directory(shell, tmp_path):
    file = tmp_path / "there"
    file.write_text("mine")
    code, _, errors = shell.run("backup", str(file))
    assert (code, file.read_text()) == (Exit.USAGE, "mine")
    assert "never replaces" in errors
    code, _, errors = shell.run("backup", str(tmp_path / "none" / "file"))
    assert code is Exit.USAGE
    assert "no directory" in errors


def test_a_running_servers_store_is_checked_by_its_backup(shell):
    code, _, errors = shell.run("check")
    assert code is Exit.SERVER
    assert "multihost backup FILE" in errors


def test_a_check_without_a_store_and_a_restore_of_no_backup_say_so(tmp_path):
    shell = Shell(MULTIHOST_STATE=str(tmp_path))
    assert "there is no store" in shell.run("check")[2]
    (tmp_path / "file").write_bytes(b"no backup " * 1000)
    code, _, errors = shell.run("restore", str(tmp_path / "file"))
    assert code is Exit.SERVER
    assert "no finished backup" in errors or "no multihost store" in errors


def test_what_a_killed_server_left_behind_is_removed_by_the_next(tmp_path):
    """A blob's file without a row; files that may still get theirs stay."""
    places = []
    for data, age_s in ((b"old", 2 * AGE_S), (b"young", 0)):
        place = blob_place(tmp_path / BLOB_DIRECTORY, digest_of(data))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        then = time.time() - age_s
        os.utime(place, (then, then))
        places.append(place)
    with Shell(MULTIHOST_STATE=str(tmp_path)).start("server", "--port", "0", "--json") as server:
        assert server.stdout.readline()
        wait_until(lambda: not places[0].exists(), "the old file is gone")
        server.send_signal(signal.SIGTERM)
        server.communicate()
    assert places[1].exists()
