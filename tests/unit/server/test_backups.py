"""Claims about backups in a server: one at a time, never half, another after one that failed."""

import asyncio

import pytest
from quiet_listener import QuietListener

from multihost.errors import BadRequest, StoreFull
from multihost.server import backups as backups_module
from multihost.server.backups import Backups
from multihost.server.committer import Committer
from multihost.store.sqlite import open_store
from multihost.store.sqlite.check import check


def run(tmp_path, scenario):
    async def main():
        store, fatal = open_store(tmp_path / "store.sqlite"), []
        committer = Committer(store, is_durable=False, on_fatal=fatal.append)
        committer.listener = QuietListener()
        backups = Backups(committer, store.begin_copy, tmp_path / "blobs")
        try:
            await scenario(backups, tmp_path / "backup")
        finally:
            await backups.stop()
            committer.stop()
            store.close()
        assert fatal == []

    asyncio.run(main())


def test_a_second_backup_waits_for_its_turn_and_a_file_is_never_replaced(tmp_path):
    async def scenario(backups, path):
        assert await backups.look(1) == {"state": "none"}
        backups.start(path)
        with pytest.raises(BadRequest, match="under way"):
            backups.start(path.with_name("another"))
        assert (await backups.look(20))["state"] == "done"
        assert check(path).problems == []
        with pytest.raises(BadRequest, match="there already"):
            backups.start(path)

    run(tmp_path, scenario)


def test_a_backup_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path, monkeypatch):
    def no_room(path, size_bytes):
        raise StoreFull("no room there")

    async def scenario(backups, path):
        with monkeypatch.context() as patch:
            patch.setattr(backups_module, "_check_room", no_room)
            backups.start(path)
            row = await backups.look(20)
        assert (row["state"], row["error"]) == ("failed", "no backup: no room there")
        assert not list(tmp_path.glob("backup*"))
        backups.start(path)
        assert (await backups.look(20))["state"] == "done"

    run(tmp_path, scenario)


def test_a_backup_that_can_not_begin_has_failed(tmp_path):
    async def scenario(backups, path):
        path.with_name("backup.part").mkdir()
        backups.start(path)
        row = await backups.look(20)
        assert row["state"] == "failed"
        assert row["error"].startswith("no backup: ")

    run(tmp_path, scenario)


def test_a_backup_that_others_could_read_has_failed_and_says_so(tmp_path, monkeypatch):
    async def scenario(backups, path):
        monkeypatch.setattr(backups_module.stat, "S_IMODE", lambda _: 0o755)
        backups.start(path)
        row = await backups.look(20)
        assert row["state"] == "failed"
        assert "others could read it" in row["error"]
        assert not list(tmp_path.glob("backup*"))

    run(tmp_path, scenario)


def test_a_server_that_stops_gives_up_its_backup(tmp_path):
    async def scenario(backups, path):
        backups.start(path)
        await asyncio.sleep(0)
        await backups.stop()
        assert not list(tmp_path.glob("backup*"))

    run(tmp_path, scenario)
