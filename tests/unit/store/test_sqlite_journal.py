"""The journal of items: what is in it survives, what is over in it does not come back."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from multihost.core.ids import taker_id
from multihost.errors import StoreError, StoreFull
from multihost.store.places import STORE_FILE, journal_of
from multihost.store.sqlite import journal as store_journal
from multihost.store.sqlite.check import check
from multihost.store.sqlite.store import SQLiteStore, open_store
from multihost.testing.disk import DiedError, MemoryDisk
from multihost.testing.owner import Owner
from multihost.wire.act import Confirm, Exchange, Item, Put
from multihost.wire.message import Blob

TAKER = taker_id(1, 1)


@pytest.fixture
def disk(request):
    disk = MemoryDisk(request.node.name)
    yield disk
    disk.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def owner(disk, path):
    owner = Owner(lambda: open_on(disk, path))
    yield owner
    disk.revive()
    owner.close()


def open_on(disk: MemoryDisk, path: Path) -> SQLiteStore:
    return open_store(
        path,
        vfs=disk.vfs,
        sync_log=lambda: disk.sync(f"{path}-wal"),
        journal=disk.file(str(journal_of(path))),
    )


def queue_of(owner: Owner, name: str = "q") -> int:
    number: int = owner.do("open_item_queue", name, 0, Confirm.NEXT, None)[0].number
    # The first of them goes into the database.
    owner.do("note_answer", TAKER, 0, b"")
    return number


def exchange(owner: Owner, call: int, **parts: object) -> list[Item]:
    items: list[Item] = owner.do("exchange", TAKER, call, Exchange(**parts), owner.now).items
    return items


def rows(owner: Owner) -> int:
    count: int = owner.store._db.execute("SELECT count(*) FROM items").get
    return count


def die(owner: Owner, disk: MemoryDisk) -> None:
    """The process is gone; another one opens the store."""
    disk.kill()
    try:
        owner.store.close()
    except BaseException:
        assert disk.is_dead
    disk.revive()
    owner.store = owner._open_store()


def test_an_item_that_is_soon_done_with_never_becomes_a_row(owner, disk):
    queue = queue_of(owner)
    log = disk.writes_to("-wal")
    held = []
    for call in range(20):
        exchange(owner, 2 * call, confirms=held, puts=[Put(queue, [b"item"])])
        held = [item.number for item in exchange(owner, 2 * call + 1, take=queue)]
    assert disk.writes_to("-wal") == log
    owner.do("set_queue", "other", is_paused=True, limit=None)
    assert rows(owner) == 1, "the one that is held"


def test_items_of_a_process_that_was_killed_are_there(owner, disk):
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a", b"b", b"c"])])
    taken = exchange(owner, 2, take=queue)
    owner.do("note_answer", TAKER, 2, b"answer")
    die(owner, disk)
    assert owner.store.taken(TAKER, 2) == taken
    assert owner.store.taker(TAKER).answer == b"answer"
    items = exchange(owner, 3, confirms=[taken[0].number], take=queue, limit=5)
    assert [item.payload for item in items] == [b"b", b"c"]


def test_what_another_transaction_has_written_down_is_not_done_again(owner, disk):
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    owner.do("set_queue", "other", is_paused=True, limit=None)
    exchange(owner, 2, puts=[Put(queue, [b"b"])])
    for _ in range(3):
        die(owner, disk)
        assert owner.store.item_queue(queue).waiting == 2
    items = exchange(owner, 3, take=queue, limit=5)
    assert [item.payload for item in items] == [b"a", b"b"]


def test_a_record_that_was_cut_short_never_was(owner, disk, path):
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    before = len(disk.files[str(journal_of(path))])
    exchange(owner, 2, puts=[Put(queue, [b"b" * 100])])
    disk.kill()
    disk.revive()
    disk.truncate(str(journal_of(path)), before + 60)
    die(owner, disk)
    assert [item.payload for item in exchange(owner, 3, take=queue, limit=5)] == [b"a"]


def test_the_journal_of_another_store_is_left_alone(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    owner = Owner(lambda: open_store(one))
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    data = journal_of(one).read_bytes()
    owner.close()
    journal_of(other).write_bytes(data)
    owner = Owner(lambda: open_store(other))
    assert owner.store.item_queues() == []
    owner.close()


def test_the_file_is_the_owner_s_alone_and_takes_its_room_when_it_is_used(tmp_path):
    owner = Owner(lambda: open_store(tmp_path / "store"))
    queue = queue_of(owner)
    assert journal_of(tmp_path / "store").stat().st_size == 0, "nothing before it is needed"
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    found = journal_of(tmp_path / "store").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == store_journal.JOURNAL_BYTES
    owner.close()


@pytest.mark.parametrize("is_quota", [False, True])
def test_without_room_for_the_journal_items_go_into_the_database(owner, disk, is_quota):
    disk.faults.is_quota = is_quota
    queue = queue_of(owner)
    disk.files_that_are_full.add("-items")
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    assert rows(owner) == 1
    exchange(owner, 2, puts=[Put(queue, [b"b"])])
    assert rows(owner) == 2
    owner.reopen()
    assert owner.store.item_queue(queue).waiting == 2


def test_a_journal_for_which_there_is_no_room_takes_none(tmp_path, monkeypatch):
    owner = Owner(lambda: open_store(tmp_path / "store"))
    queue = queue_of(owner)
    write = os.pwrite

    def write_to_small_disk(fd, data, at):
        if at >= 1 << 20:
            raise OSError(errno.ENOSPC, "the disk is full")
        return write(fd, data[: 1 << 20], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_to_small_disk)
        exchange(owner, 1, puts=[Put(queue, [b"a"])])
    assert journal_of(tmp_path / "store").stat().st_size == 0
    assert rows(owner) == 1
    owner.close()


def test_a_blob_is_counted_when_its_item_is_put_and_when_it_is_done_with(owner):
    queue = queue_of(owner)
    blob = Blob(b"b" * 32, 9000)
    owner.do("put_blob", blob, b"x" * 9000, owner.now)
    exchange(owner, 1, puts=[Put(queue, [blob])])
    refs = "SELECT refs FROM blobs"
    assert owner.store._db.execute(refs).get == 1
    (item,) = exchange(owner, 2, take=queue)
    assert item.payload == blob
    exchange(owner, 3, confirms=[item.number])
    assert owner.store._db.execute(refs).get == 0


def test_a_check_tells_of_items_that_wait_in_the_journal(tmp_path):
    store = open_store(tmp_path / STORE_FILE)
    owner = Owner(lambda: store)
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    data = journal_of(tmp_path / STORE_FILE).read_bytes()
    database = (tmp_path / STORE_FILE).read_bytes(), Path(f"{store.path}-wal").read_bytes()
    owner.close()
    for file, content in zip((STORE_FILE, f"{STORE_FILE}-wal"), database, strict=True):
        (tmp_path / file).write_bytes(content)
    journal_of(tmp_path / STORE_FILE).write_bytes(data)
    report = check(tmp_path)
    assert report.problems == []
    assert any("journal" in note for note in report.notes)


def test_what_a_rollback_leaves_in_the_journal_is_written_down_once(owner, disk):
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    owner.store.begin()
    owner.store.set_queue("other", is_paused=True, limit=None)
    owner.store.rollback()
    owner.do("set_queue", "other", is_paused=True, limit=None)
    die(owner, disk)
    assert [item.payload for item in exchange(owner, 2, take=queue, limit=5)] == [b"a"]


def test_what_a_power_cut_undid_does_not_come_back_at_a_later_start(owner, disk, path):
    queue = queue_of(owner)
    with owner.transaction(is_durable=True) as store:
        store.set_queue("other", is_paused=True, limit=None)
    owner.do("set_queue", "other", is_paused=False, limit=None)
    exchange(owner, 1, puts=[Put(queue, [b"rests on what is not synced"])])
    disk.sync(str(journal_of(path)))
    disk.kill()
    with contextlib.suppress(DiedError, StoreError):
        owner.store.close()
    disk.lose_power(lambda _: False)
    owner.store = owner._open_store()
    assert owner.store.item_queue(queue).put == 0
    die(owner, disk)
    assert owner.store.item_queue(queue).put == 0


def test_generations_do_not_run_out(owner, disk):
    queue = queue_of(owner)
    owner.store._db.execute("UPDATE meta SET value = 1 << 42 WHERE name = 'journal'")
    owner.reopen()
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    exchange(owner, 2, puts=[Put(queue, [b"b"])])
    die(owner, disk)
    assert [item.payload for item in exchange(owner, 3, take=queue, limit=5)] == [b"a", b"b"]


def test_a_copy_for_which_the_store_has_no_room_fails_and_the_store_goes_on(owner, disk, tmp_path):
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    copy = owner.store.begin_copy(tmp_path / "copy")
    copy.is_due = True
    disk.files_that_are_full.add("-wal")
    owner.do("item_queue", queue)
    assert isinstance(copy.failure, StoreFull)
    disk.files_that_are_full.clear()
    exchange(owner, 2, puts=[Put(queue, [b"b"])])
    die(owner, disk)
    assert [item.payload for item in exchange(owner, 3, take=queue, limit=5)] == [b"a", b"b"]


def test_a_copy_that_nobody_wants_any_more_needs_no_room(owner, disk, tmp_path):
    queue = queue_of(owner)
    exchange(owner, 1, puts=[Put(queue, [b"a"])])
    copy = owner.store.begin_copy(tmp_path / "copy")
    copy.is_due = copy.is_unwanted = True
    disk.files_that_are_full.add("-wal")
    exchange(owner, 2, puts=[Put(queue, [b"b"])])
    owner.store.begin_copy(tmp_path / "another")
