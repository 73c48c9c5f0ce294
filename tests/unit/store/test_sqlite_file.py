"""The store's file: one server at a time, no newer schema, no damage, no full or failing disk."""

import errno
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from multihost.core.ids import taker_id
from multihost.core.state import JobState
from multihost.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreTooNew
from multihost.store.base import Refusal, SessionInfo
from multihost.store.sqlite import SQLiteStore, open_store, prune
from multihost.store.sqlite import file as store_file
from multihost.testing.disk import MemoryDisk
from multihost.testing.owner import Owner, make_spec
from multihost.wire.act import Confirm, Exchange, ExchangeEnd, Put
from multihost.wire.message import Blob, Role

HOLD = """
import sys
from multihost.store.sqlite import open_store
store = open_store(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""

READ = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("BEGIN")
db.execute("SELECT count(*) FROM jobs").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(code: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the store open, and is killed at the end."""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"open\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


# --- one server at a time -----------------------------------------------------------------


def test_a_second_server_is_refused_at_once_and_told_who_has_the_store(path: Path) -> None:
    with running(HOLD, path) as holder:
        with pytest.raises(StoreLocked, match=f"process {holder.pid}") as caught:
            open_store(path)
        assert (caught.value.path, caught.value.pid) == (str(path), holder.pid)
    # The lock died with its holder, whose pid is still in the file.
    assert Path(f"{path}.lock").read_text() == str(holder.pid)
    open_store(path).close()


def test_the_same_process_cannot_open_a_store_twice(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        open_store(path)
    store.close()
    open_store(path).close()


def test_a_forked_child_does_not_keep_the_store_locked(path: Path) -> None:
    read_end, write_end = os.pipe()
    store = open_store(path)
    child = os.fork()
    if not child:
        # Wait until the parent has opened it again, then go without any clean-up.
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    try:
        store.close()
        open_store(path).close()
    finally:
        os.close(write_end)
        os.waitpid(child, 0)


def test_another_program_that_has_the_file_open_is_noticed(path: Path) -> None:
    open_store(path).close()
    with running(READ, path), pytest.raises(StoreLocked, match="another program"):
        open_store(path)
    open_store(path).close()


def test_errors_survive_pickling(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(StoreLocked) as caught:
        open_store(path)
    store.close()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.pid) == (str(caught.value), os.getpid())


# --- what is in the file --------------------------------------------------------------------


def test_a_store_is_for_its_user_alone(path: Path) -> None:
    store = open_store(path)
    for name in ("", "-wal", ".lock"):
        assert stat.S_IMODE(Path(f"{path}{name}").stat().st_mode) == 0o600
    store.close()
    assert not Path(f"{path}-wal").exists()
    assert not Path(f"{path}-shm").exists()


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    open_store(path).close()
    db = apsw.Connection(str(path))
    db.pragma("user_version", store_file.SCHEMA_VERSION + 1)
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match="newer version") as caught:
        open_store(path)
    assert caught.value.version == store_file.SCHEMA_VERSION + 1
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    with pytest.raises(StoreCorrupt, match="another program"):
        open_store(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize("content", [b"no database at all" * 500, b"\0" * 8192])
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=str(path)):
        open_store(path)
    assert path.read_bytes() == content


def test_a_damaged_file_is_told_not_read(path: Path) -> None:
    owner = Owner(lambda: open_store(path))
    owner.submit([b"x" * 900] * 300)
    owner.close()
    data = bytearray(path.read_bytes())
    for page in range(4, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="damaged"):
        _use(path)


def _use(path: Path) -> None:
    store = open_store(path)
    try:
        store.begin()
        store.tasks(1)
        store.lease([1], 500, 1, 0.0)
    finally:
        store.close()


def test_verify_finds_what_does_not_fit(path: Path) -> None:
    owner = Owner(lambda: open_store(path))
    job = owner.submit(2, keys=["a", "a"], key_limit=1)
    db = owner.store._db
    for damage, word in (
        ("UPDATE jobs SET queued = queued + 1", "counters"),
        ("UPDATE tasks SET state = 3", "outcome"),
        ("UPDATE tasks SET place = NULL, key = NULL", "fit together"),
        ("UPDATE keys SET ready = 7", "key"),
        ("INSERT INTO results VALUES (5, 0, NULL, x'00')", "not ended"),
        ("INSERT INTO blobs VALUES (x'01', 5, 3, 0, 0)", "blob"),
        ("DELETE FROM lanes", "lane"),
        (f"UPDATE jobs SET state = {JobState.FAILED:d}", "state"),
    ):
        db.execute("SAVEPOINT damage")
        db.execute(damage)
        assert any(word in line for line in owner.store.verify()), damage
        db.execute("ROLLBACK TO damage")
        db.execute("RELEASE damage")
    assert owner.store.verify() == []
    assert job
    owner.close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        open_store(tmp_path / "nowhere" / "store")


# --- disks that are full or fail -----------------------------------------------------------


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[MemoryDisk]:
    disk = MemoryDisk(request.node.name)
    yield disk
    disk.close()


@pytest.fixture
def owner(disk: MemoryDisk, path: Path) -> Iterator[Owner]:
    def open_it() -> SQLiteStore:
        return open_store(
            path,
            vfs=disk.vfs,
            sync_log=lambda: disk.sync(f"{path}-wal"),
            journal=disk.file(f"{path}-items"),
        )

    owner = Owner(open_it)
    yield owner
    disk.revive()
    owner.close()


@pytest.mark.parametrize("is_quota", [False, True])
def test_a_full_disk_refuses_and_keeps_what_it_has(
    disk: MemoryDisk, owner: Owner, *, is_quota: bool
) -> None:
    disk.faults.is_quota = is_quota
    kept = owner.submit(3)
    for room_bytes in (0, 5000, 20_000):
        with disk.full(room_bytes):
            with pytest.raises(StoreFull, match="full"):
                _fill(owner)
            owner.store.rollback()
        assert owner.store.verify() == []
        assert [row.number for row in owner.store.jobs()] == [kept]
    # There is room again, without a restart.
    job = owner.submit(2)
    owner.reopen()
    assert [row.number for row in owner.store.jobs()] == [job, kept]
    assert len(owner.lease(owner.worker())) == 5


def _fill(owner: Owner) -> None:
    owner.store.begin()
    opened = owner.store.open_job(owner.uid(), make_spec(), None, owner.now)
    for first in range(0, 50, 5):
        owner.store.add_tasks(opened.number, first, [b"x" * 60_000] * 5, None, owner.now)
    owner.store.prepare(owner.now)
    owner.store.commit(is_durable=False)


@pytest.mark.parametrize("is_quota", [False, True])
def test_a_disk_that_is_full_at_a_checkpoint_loses_nothing(
    disk: MemoryDisk, owner: Owner, monkeypatch: pytest.MonkeyPatch, *, is_quota: bool
) -> None:
    disk.faults.is_quota = is_quota
    owner.submit([b"x" * 50_000] * 5)
    monkeypatch.setattr(store_file, "CHECKPOINT_PAGES", 1)
    log = next(name for name in disk.files if name.endswith("-wal"))
    # The log is long enough to be written over, the database has to grow.
    size = len(disk.files[log])
    with disk.full():
        owner.store.begin()
        owner.store.set_queue("q", is_paused=True, limit=None)
        owner.store.prepare(owner.now)
        with pytest.raises(StoreFull):
            owner.store.commit(is_durable=False)
        owner.store.rollback()
    assert len(disk.files[log]) == size
    owner.do("set_queue", "q", is_paused=True, limit=None)
    assert owner.store.verify() == []
    owner.reopen()
    assert owner.store.paused_queues() == {"q"}
    assert len(owner.store.jobs()) == 1


def test_a_store_at_its_limit_refuses_and_works_off_what_it_has(path: Path) -> None:
    limit_bytes = 2 << 20
    owner = Owner(lambda: open_store(path, limit_bytes=limit_bytes))
    worker, taker = owner.worker(), taker_id(owner.client(), 1)
    queue = owner.do("open_item_queue", "q", 0, Confirm.NEXT, None)[0].number
    put = Exchange(puts=[Put(queue, [b"x" * 1000])])
    owner.do("exchange", taker, 1, put, owner.now)
    jobs = []
    while owner.store.why_full() is None:
        jobs.append(owner.submit([b"x" * 1000] * 100))
        owner.do("set_queue", "q", is_paused=False, limit=None)  # another begin, which measures
    assert 10 < len(jobs) < 25
    for refusal in (
        owner.do("open_job", owner.uid(), make_spec(), None, owner.now),
        owner.do("add_tasks", jobs[0], 100, [b"x"], None, owner.now),
        owner.do("exchange", taker, 2, put, owner.now),
    ):
        assert refusal.code.value == "store_full"
        assert "of the 2 MiB that --store-limit allows" in refusal.message
    # A repeated submit, outcomes, and items put for others are no new work.
    repeated = owner.do("add_tasks", jobs[0], 0, [b"x" * 1000] * 100, None, owner.now)
    assert repeated.inserted == 0
    leases = owner.lease(worker, 100)
    assert len(owner.finish(worker, leases).finals) == 100
    (item,) = owner.do("exchange", taker, 3, Exchange(take=queue), owner.now).items
    done = Exchange([item.number], puts=[Put(queue, [b"y"])])
    assert owner.do("exchange", taker, 4, done, owner.now).end is ExchangeEnd.OK
    # Room within the file is room.
    owner.do("delete_job", jobs[0])
    while owner.do("prune", owner.now, 100):
        pass
    assert owner.submit(1)
    owner.close()


def test_files_of_blobs_count_for_the_limit(path: Path) -> None:
    owner = Owner(lambda: open_store(path, limit_bytes=2 << 20))
    blob = Blob(b"b" * 32, 3 << 20)
    owner.do("put_blob", blob, None, owner.now)
    for _ in range(2):
        assert isinstance(owner.do("open_job", owner.uid(), make_spec(), None, owner.now), Refusal)
        owner.reopen()
    assert owner.do("unused_blobs", owner.now + 1, 5) == [blob]
    assert owner.submit(1)


def test_a_blob_that_has_no_room_is_taken_from_who_works_off_what_there_is(path: Path) -> None:
    owner = Owner(lambda: open_store(path, limit_bytes=2 << 20))
    session = owner.client()
    taker = taker_id(session, 1)
    queue = owner.do("open_item_queue", "q", 0, Confirm.NEXT, None)[0].number
    owner.do("exchange", taker, 1, Exchange(puts=[Put(queue, [b"x"])]), owner.now)
    assert owner.store.why_no_blob(session, 1 << 20) is None
    text = owner.store.why_no_blob(session, 2 << 20)
    assert text is not None
    assert "2,097,152 bytes" in text
    assert "--store-limit" in text
    (item,) = owner.do("exchange", taker, 2, Exchange(take=queue), owner.now).items
    assert owner.store.why_no_blob(session, 2 << 20) is None
    assert owner.store.why_no_blob(owner.client(), 2 << 20) is not None
    owner.do("exchange", taker, 3, Exchange([item.number]), owner.now)
    assert owner.store.why_no_blob(session, 2 << 20) is not None
    owner.close()


def test_a_failed_flush_is_an_error_not_an_acknowledgement(disk: MemoryDisk, owner: Owner) -> None:
    owner.store.begin()
    owner.store.set_queue("q", is_paused=True, limit=None)
    owner.store.prepare(owner.now)
    disk.faults.fails_sync = True
    with pytest.raises(StoreError, match="flushed"):
        owner.store.commit(is_durable=True)


def test_a_failed_flush_at_a_checkpoint_is_an_error_too(
    disk: MemoryDisk, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_file, "CHECKPOINT_PAGES", 1)
    owner.store.begin()
    owner.store.set_queue("q", is_paused=True, limit=None)
    owner.store.prepare(owner.now)
    disk.faults.fails_sync = True
    with pytest.raises(StoreError):
        owner.store.commit(is_durable=False)


def test_a_failed_write_is_an_error(disk: MemoryDisk, owner: Owner) -> None:
    owner.store.begin()
    owner.store.set_queue("q", is_paused=True, limit=None)
    owner.store.prepare(owner.now)
    disk.faults.fails_write = True
    with pytest.raises(StoreError):
        owner.store.commit(is_durable=False)


def test_only_durable_commits_wait_for_the_disk_and_only_for_news(
    disk: MemoryDisk, owner: Owner
) -> None:
    job = owner.open().number

    def syncs(*, is_durable: bool, index: int | None) -> int:
        before = disk.syncs
        with owner.transaction(is_durable=is_durable) as store:
            if index is not None:
                store.add_tasks(job, index, [b"x"], None, owner.now)
        return disk.syncs - before

    # The one that opened the job was not durable: this one makes up for it.
    assert syncs(is_durable=True, index=None) == 1
    assert syncs(is_durable=True, index=None) == 0
    assert syncs(is_durable=False, index=0) == 0
    assert syncs(is_durable=False, index=1) == 0
    assert syncs(is_durable=True, index=None) == 1
    assert syncs(is_durable=True, index=2) == 1


def test_space_is_given_back_when_much_is_free(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "SPARE_PAGES", 10)
    owner = Owner(lambda: open_store(path))
    job = owner.submit([b"x" * 60_000] * 50, retention_s=0.0)
    owner.do("cancel", job, None, only_queued=False, now=owner.now)
    owner.reopen()
    full = path.stat().st_size
    while owner.do("prune", owner.now, 100):
        pass
    owner.close()
    assert full > 3_000_000
    assert path.stat().st_size < 300_000


def test_statements_are_prepared_once_whatever_is_bound_to_them(path: Path) -> None:
    store = open_store(path)
    # Asking with -1 changes nothing.
    assert store._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1
    store.close()


def test_a_disk_with_little_room_is_not_filled_to_lengthen_the_log(tmp_path, monkeypatch):
    write = os.pwrite

    def write_to_small_disk(fd, data, at):
        if at >= 2 << 20:
            raise OSError(errno.ENOSPC, "the disk is full")
        return write(fd, data, at)

    monkeypatch.setattr(os, "pwrite", write_to_small_disk)
    store = open_store(tmp_path / "store.sqlite", lengthens_log=True)
    assert (tmp_path / "store.sqlite-wal").stat().st_size < 1 << 20
    store.close()


def test_a_log_that_was_lengthened_is_read_back_after_a_kill(tmp_path):
    path = tmp_path / "store.sqlite"
    store = open_store(path, lengthens_log=True)
    assert (tmp_path / "store.sqlite-wal").stat().st_size >= 16 << 20
    store.begin()
    session = store.open_session(SessionInfo(b"c" * 16, Role.CLIENT), 1.0)
    store.prepare(1.0)
    store.commit(is_durable=True)
    for suffix in ("", "-wal"):  # as a kill would leave them
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"store.sqlite{suffix}").read_bytes())
    store.close()
    copy = open_store(tmp_path / "copy", lengthens_log=True)
    assert [row.number for row in copy.sessions(Role.CLIENT)] == [session]
    assert copy.verify() == []
    copy.close()
