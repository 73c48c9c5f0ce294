"""Backups: one instant of a store at work, restored as a store that owes nothing to old leases."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from multihost.core.digest import digest_of
from multihost.core.ids import task_id
from multihost.core.outcome import Ending
from multihost.core.state import TaskState
from multihost.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked
from multihost.store.places import BLOB_DIRECTORY, STORE_FILE, blob_place
from multihost.store.sqlite import SQLiteStore, open_store
from multihost.store.sqlite.backup import Sealed, restore, seal
from multihost.store.sqlite.check import check
from multihost.testing.owner import Owner
from multihost.wire.message import Attempt, Blob, Role

BIG = b"big" * 700_000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def owner(state: Path) -> Iterator[Owner]:
    owner = Owner(lambda: open_store(state / STORE_FILE))
    yield owner
    owner.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.mhb"


def put_big(owner: Owner, state: Path, data: bytes = BIG) -> Blob:
    """A blob that is a file."""
    blob = Blob(digest_of(data), len(data))
    place = blob_place(state / BLOB_DIRECTORY, blob.digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    owner.do("put_blob", blob, None, owner.now)
    return blob


def back_up(owner: Owner, state: Path, file: Path, busy=lambda: None) -> Sealed:
    """Make a backup, with something done between any two of its steps."""
    store = owner.store
    assert isinstance(store, SQLiteStore)
    copy = store.begin_copy(file)
    while not copy.is_done:
        copy.is_due = True
        with owner.transaction():
            assert copy.failure is None
        busy()
    return seal(copy.release(), file, state / BLOB_DIRECTORY, owner.now)


def test_a_backup_is_the_store_at_the_instant_of_its_last_step(owner, state, file, tmp_path):
    first = owner.submit([b"x" * 900] * 2000)
    worker = owner.worker()
    submitted = []

    def busy():
        owner.finish(worker, owner.lease(worker, 3))
        submitted.append(owner.submit([b"y" * 900] * 10))

    back_up(owner, state, file, busy)
    assert len(submitted) > 5
    assert check(file).problems == []
    done = owner.store.job(first).succeeded
    jobs = len(owner.store.jobs(limit=1000))
    restored = restore(file, tmp_path / "other", owner.now, replaces=False)
    # The last round came after the last step.
    assert restored.jobs == jobs - 1
    other = open_store(tmp_path / "other" / STORE_FILE)
    assert other.job(first).succeeded == done - 3
    assert other.verify() == []
    other.close()


def test_a_backup_has_the_blobs_that_are_files(owner, state, file, tmp_path):
    blob = put_big(owner, state)
    owner.submit([blob])
    sealed = back_up(owner, state, file)
    assert (sealed.blobs, sealed.damaged) == (1, ())
    assert file.stat().st_mode & 0o777 == 0o600
    assert check(file).problems == []
    assert restore(file, tmp_path / "other", owner.now, replaces=False).blobs == 1
    assert blob_place(tmp_path / "other" / BLOB_DIRECTORY, blob.digest).read_bytes() == BIG
    assert check(tmp_path / "other").problems == []
    # What the blobs took in the backup is given back.
    assert (tmp_path / "other" / STORE_FILE).stat().st_size < len(BIG)


def test_a_blob_that_is_damaged_is_named_and_the_rest_is_backed_up(owner, state, file):
    blob = put_big(owner, state)
    owner.submit([blob])
    blob_place(state / BLOB_DIRECTORY, blob.digest).write_bytes(b"other" + BIG[5:])
    assert back_up(owner, state, file).damaged == (blob.digest.hex(),)
    assert len(check(file).problems) == 1
    assert blob.digest.hex() in check(file).problems[0]


def test_no_lease_from_before_counts_in_a_restored_store(owner, state, file, tmp_path):
    uid = owner.uid()
    worker = owner.worker(uid=uid)
    job = owner.submit(3)
    held = owner.lease(worker, 1)
    back_up(owner, state, file)
    tokens = [lease.token for lease in held]
    # The old store goes on: grants more, and is restarted, which begins another epoch.
    for _ in range(3):
        tokens += [lease.token for lease in owner.lease(worker, 1)]
        owner.reopen()
    old_uid = owner.store.uid
    assert restore(file, tmp_path / "other", owner.now, replaces=False).requeued == 1

    other = Owner(lambda: open_store(tmp_path / "other" / STORE_FILE))
    assert other.store.uid != old_uid
    assert other.store.job(job).queued == 3
    again = other.worker(uid=uid)
    assert again != worker
    for session, index, token in itertools.product((worker, again), range(3), tokens):
        outcome = Attempt(task_id(job, index), token, Ending.OK, b"late")
        assert len(other.do("finish", session, [outcome], other.now, 0.5).stale) == 1
    leases = other.lease(again, 3)
    assert min(lease.token for lease in leases) > max(tokens)
    assert len(other.finish(again, leases).finals) == 3
    other.close()


def test_a_task_that_ran_is_queued_again_and_no_fault_is_counted(owner, state, file, tmp_path):
    worker = owner.worker()
    job = owner.submit(1)
    owner.lease(worker, 1)
    back_up(owner, state, file)
    restore(file, tmp_path / "other", owner.now, replaces=False)
    other = open_store(tmp_path / "other" / STORE_FILE)
    row = other.task(task_id(job, 0))
    assert (row.state, row.losses) == (TaskState.QUEUED, 0)
    assert other.sessions(Role.WORKER) == []
    other.close()


class _KilledError(BaseException):
    """The process is no more."""


@pytest.mark.parametrize("steps", range(5))
def test_a_restore_that_is_killed_leaves_the_old_store_or_the_new_one_whole(
    owner, state, file, monkeypatch, steps
):
    owner.submit(2)
    back_up(owner, state, file)
    last = owner.submit(2)
    left = state.with_name("left")
    shutil.copytree(state, left)  # as a server that was killed leaves it, with its log
    renamed, rename = [], Path.rename

    def stop(path, target):
        if len(renamed) == steps:
            raise _KilledError
        renamed.append(target)
        return rename(path, target)

    with monkeypatch.context() as patch, contextlib.suppress(_KilledError):
        patch.setattr(Path, "rename", stop)
        restore(file, left, owner.now, replaces=True)
    store = open_store(left / STORE_FILE)
    assert (store.job(last) is None) is bool(steps)
    store.close()
    if steps:
        aside = open_store(left / f"{STORE_FILE}.replaced-1")
        assert aside.job(last).count == 2
        aside.close()
    assert len(renamed) == steps


def test_a_restore_is_refused_over_a_store_unless_that_may_be_moved(owner, state, file):
    owner.submit(2)
    back_up(owner, state, file)
    with pytest.raises(StoreLocked):
        restore(file, state, owner.now, replaces=True)
    last = owner.submit(2)
    epoch = owner.store.epoch
    owner.store.close()
    with pytest.raises(StoreError, match="--replace"):
        restore(file, state, owner.now, replaces=False)
    assert check(state).jobs == 2
    moved = restore(file, state, owner.now, replaces=True).moved
    assert moved.name == "store.sqlite.replaced-1"
    assert check(state).jobs == 1
    owner.reopen()
    assert owner.store.job(last) is None
    assert owner.store.epoch > epoch
    assert sorted(path.name for path in state.iterdir()) == [
        STORE_FILE,
        f"{STORE_FILE}-items",
        f"{STORE_FILE}-wal",
        f"{STORE_FILE}.lock",
        moved.name,
        f"{moved.name}-items",
    ]


def test_no_server_opens_a_backup_as_its_store(owner, state, file):
    back_up(owner, state, file)
    with pytest.raises(StoreError, match="multihost restore"):
        open_store(file)
    assert check(file).problems == []


def test_half_a_backup_and_other_files_are_refused(owner, state, file, tmp_path):
    owner.submit([b"x" * 900] * 2000)
    copy = owner.store.begin_copy(file)
    copy.is_due = True
    owner.do("lose", 1, owner.now)
    assert 0 < copy.pages < copy.of_pages
    copy.is_due = copy.is_unwanted = True
    owner.do("lose", 1, owner.now)
    for path in (file, Path(__file__), state / STORE_FILE):
        with pytest.raises(StoreError):
            restore(path, tmp_path / "other", owner.now, replaces=False)
    with pytest.raises(StoreCorrupt):
        check(Path(__file__))
    assert not (tmp_path / "other" / STORE_FILE).exists()
    # The store is none the worse for it, and makes another.
    file.unlink()
    back_up(owner, state, file)
    assert check(file).problems == []


def test_a_copy_that_finds_no_room_is_not_the_stores_trouble(owner, file):
    owner.submit([b"x" * 900] * 2000)
    copy = owner.store.begin_copy(file)
    copy._copy.pragma("max_page_count", 100)
    while copy.failure is None:
        copy.is_due = True
        owner.submit(1)
    assert isinstance(copy.failure, StoreFull)
    assert str(file) in str(copy.failure)
    owner.submit(1)


# --- check ----------------------------------------------------------------------------------


def test_a_check_changes_nothing(owner, state):
    owner.submit(5)
    owner.store.close()
    before = (state / STORE_FILE).read_bytes()
    assert check(state).problems == []
    assert (check(state).jobs, check(state).tasks) == (1, 5)
    assert (state / STORE_FILE).read_bytes() == before
    owner.reopen()


def test_a_check_names_what_is_wrong(owner, state):
    blob = put_big(owner, state)
    small = Blob(digest_of(b"small"), 5)
    owner.do("put_blob", small, b"small", owner.now)
    job = owner.submit([blob, small])
    owner.store.close()
    db = apsw.Connection(str(state / STORE_FILE))
    db.execute("UPDATE jobs SET queued = 7")
    db.execute("UPDATE blob_data SET data = x'00'")
    db.close()
    blob_place(state / BLOB_DIRECTORY, blob.digest).unlink()
    problems = "\n".join(check(state).problems)
    assert f"job {job}: its counters say" in problems
    assert f"blob {blob.digest.hex()} has {len(BIG)} bytes, 0 of them" in problems
    assert f"blob {small.digest.hex()}: its bytes" in problems
    (state / STORE_FILE).unlink()  # so that the fixture's store is not looked at again
    owner.reopen()


def test_a_file_without_a_row_is_a_note_and_no_problem(owner, state):
    orphan = put_big(owner, state)
    owner.do("unused_blobs", owner.now + 1, 10)
    owner.store.close()
    report = check(state)
    assert report.problems == []
    assert orphan.digest.hex() in report.notes[0]
    owner.reopen()
