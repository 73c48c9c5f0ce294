"""Killed between any two writes, or without power there, the store is in a state it committed.

One workload is recorded on a disk in memory: creation, commits durable and
not, checkpoints, closing, opening again. Then it is cut after every single
write. ``MULTIHOST_PROPERTY_EXAMPLES`` adds random losses at each cut.
"""

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from multihost.core.ids import session_of, taker_id
from multihost.core.outcome import Ending
from multihost.core.retry import Backoff, Limits
from multihost.errors import StoreError
from multihost.store.base import Store
from multihost.store.sqlite import SQLiteStore, open_store
from multihost.store.sqlite import file as store_file
from multihost.store.sqlite import journal as store_journal
from multihost.store.sqlite.items import FEW_ITEMS
from multihost.testing.disk import DiedError, MemoryDisk
from multihost.testing.owner import Owner
from multihost.wire.act import Confirm, Exchange, ExchangeEnd, Item, Kind, Put
from multihost.wire.message import Blob

pytestmark = pytest.mark.timeout(300)

LOSSES = max(1, int(os.environ.get("MULTIHOST_PROPERTY_EXAMPLES", "50")) // 50)
TABLES = (
    *("lanes", "queues", "jobs", "dependencies", "graves", "settling", "keys", "tasks", "payloads"),
    *("results", "attempts", "output", "sessions", "blobs", "blob_data"),
    *("item_queues", "items", "taken_items", "item_graves", "synchronizers", "takers"),
)
TAKER = taker_id(1, 1)


class Mark(NamedTuple):
    """A commit that has returned."""

    position: int
    """Entries in the disk's journal when it did."""
    is_durable: bool
    state: dict[str, list[Any]]


class Recorder(Owner):
    """An owner whose commits leave marks; every third is durable."""

    def __init__(self, path: Path) -> None:
        self.disk = MemoryDisk(f"recording-{path.name}")
        self.path = path
        self.marks: list[Mark] = []
        super().__init__(lambda: open_on(self.disk, path))
        self.mark(is_durable=True)

    def mark(self, *, is_durable: bool) -> None:
        state = self.state_when_opened()
        self.marks.append(Mark(len(self.disk.journal), is_durable, state))

    def state_when_opened(self) -> dict[str, list[Any]]:
        """What a store has that is opened on a copy of the disk: what is in the journal, too."""
        image, path = MemoryDisk(f"mark-{self.path.name}"), self.path.with_name("mark")
        self.disk.copy_to(image)
        image.rename(str(self.path), str(path))
        store = open_on(image, path)
        try:
            return state_of(store)
        finally:
            store.close()
            image.close()

    @contextmanager
    def transaction(self, *, is_durable: bool = False) -> Iterator[Store]:
        is_durable = len(self.marks) % 3 == 0
        with super().transaction(is_durable=is_durable) as store:
            yield store
        self.mark(is_durable=is_durable)

    def reopen(self) -> None:
        super().reopen()
        self.mark(is_durable=True)


class Recording:
    """A workload, what it did to the disk, and the states that it committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = 0
        owner = Recorder(path)
        run(owner)
        owner.close()
        self.disk, self.marks = owner.disk, owner.marks
        self.found: dict[bytes, frozenset[int]] = {}
        """Commits as whose state a store was opened, by its files."""


def run(owner: Owner) -> None:
    """Something of everything that writes."""
    worker = owner.worker()
    blob = Blob(b"b" * 32, 9000)
    owner.do("put_blob", blob, b"x" * 9000, owner.now)
    limits = Limits(max_attempts=2)
    first = owner.submit([b"a", b"b" * 5000, blob], limits=limits, backoff=Backoff(0.0))
    owner.submit(3, keys=["a", "a", "b"], key_limit=1, after=(first,))
    leases = owner.lease(worker)
    owner.prints(worker, leases[0], b"printed")
    owner.finish(worker, leases[:1])
    owner.finish(worker, leases[1:], Ending.RAISED)
    owner.reopen()
    owner.finish(worker, owner.lease(worker))
    owner.finish(worker, owner.lease(worker))
    owner.do("lose", worker, owner.now)
    big = owner.submit([b"c" * 20_000] * 8, retention_s=0.0)
    owner.do("cancel", big, None, only_queued=False, now=owner.now)
    while owner.do("prune", owner.now, 3):
        pass
    owner.reopen()
    transient = owner.submit(4, owner=owner.client(), is_transient=True)
    owner.finish(worker, owner.lease(worker))
    owner.do("take", transient, 4)
    run_takers(owner)


def run_takers(owner: Owner) -> None:
    """Exchanges, deaths of takers, a synchronizer, and queues small and big that are dropped."""
    blob = Blob(b"i" * 32, 9000)
    owner.do("put_blob", blob, b"x" * 9000, owner.now)
    queue, results = (
        owner.do("open_item_queue", name, 0, confirm, None)[0].number
        for name, confirm in (("queue", Confirm.NEXT), ("results", Confirm.GET))
    )
    exchange(owner, 1, puts=[Put(queue, [b"a", blob, b"c" * 5000])])
    (item,) = exchange(owner, 2, take=queue)
    for call in (3, 4):
        # Transactions that only the journal knows of, until something else happens.
        act = Exchange(puts=[Put(results, [b"%d" % call] * call)], take=results)
        owner.do("exchange", TAKER, call, act, owner.now)
        owner.do("note_answer", TAKER, call, b"answer")
    owner.do("exchange", TAKER, 5, Exchange(returns=[item.number]), owner.now)
    (item,) = exchange(owner, 6, take=queue)
    owner.reopen()
    with owner.transaction() as store:
        act = Exchange([item.number], puts=[Put(results, [b"A", blob])], take=queue)
        store.exchange(TAKER, 3, act, owner.now)
        store.note_answer(TAKER, 3, b"answer")
    owner.reopen()
    owner.do("lose_takers", session_of(TAKER))
    exchange(owner, 4, take=queue, limit=2)
    exchange(owner, 5, take=results, limit=2)
    lock, _ = owner.do("open_synchronizer", Kind.LOCK, "lock", 1, b"free")
    owner.do("save_synchronizer", lock.number, b"held")
    owner.do("open_item_queue", "mine", 0, Confirm.NEXT, 1)
    owner.do("drop_transients", 1)
    exchange(owner, 6, puts=[Put(queue, [b"d"] * (FEW_ITEMS + 20))])
    owner.do("drop_item_queue", queue)
    owner.reopen()
    while owner.do("prune", owner.now, 200):
        pass


def exchange(owner: Owner, call: int, **parts: Any) -> list[Item]:
    result = owner.do("exchange", TAKER, call, Exchange(**parts), owner.now)
    assert result.end is ExchangeEnd.OK, result
    return result.items


def open_on(disk: MemoryDisk, path: Path) -> SQLiteStore:
    return open_store(
        path,
        vfs=disk.vfs,
        sync_log=lambda: disk.sync(f"{path}-wal"),
        journal=disk.file(f"{path}-items"),
    )


def state_of(store: SQLiteStore) -> dict[str, list[Any]]:
    """Every row, but for the epoch."""
    return {name: store._db.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}


def count_checkpoints(patch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets an entry whenever the log was copied while the store was in use."""
    seen: list[int] = []
    plain = store_file.DatabaseFile.checkpoint

    def checkpoint(file: store_file.DatabaseFile) -> None:
        before = file.log_pages
        plain(file)
        if file.log_pages < before:
            seen.append(before)

    patch.setattr(store_file.DatabaseFile, "checkpoint", checkpoint)
    return seen


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    with pytest.MonkeyPatch.context() as patch:
        # So that checkpoints happen in the middle of it, not only at its end.
        patch.setattr(store_file, "CHECKPOINT_PAGES", 40)
        patch.setattr(store_journal, "LAP_BYTES", 200)
        checkpoints = count_checkpoints(patch)
        recording = Recording(tmp_path_factory.mktemp("crash") / "store")
        recording.checkpoints = len(checkpoints)
    yield recording
    recording.disk.close()


def cuts(recording: Recording) -> Iterator[tuple[int, MemoryDisk]]:
    """The disk after each entry of the journal."""
    disk = MemoryDisk(f"replay-{id(recording)}")
    try:
        for position, entry in enumerate(recording.disk.journal, 1):
            entry(disk)
            yield position, disk
    finally:
        disk.close()


def digest_of_files(disk: MemoryDisk) -> bytes:
    """What tells apart all that a new process can find there."""
    digest = hashlib.blake2b()
    for path, data in sorted(disk.files.items()):
        digest.update(f"{path} {len(data)} ".encode())
        digest.update(data)
    return digest.digest()


def marks_on(recording: Recording, disk: MemoryDisk, cut: int) -> frozenset[int]:
    """Commits whose state the store has when opened, and after its process was killed once more."""
    found = open_and_state(recording, disk, cut, is_killed=True)
    assert open_and_state(recording, disk, cut) == found, f"cut after write {cut}: it changed"
    return frozenset(n for n, mark in enumerate(recording.marks) if mark.state == found)


def open_and_state(
    recording: Recording, disk: MemoryDisk, cut: int, *, is_killed: bool = False
) -> dict[str, list[Any]]:
    store = open_on(disk, recording.path)
    try:
        assert store.verify() == [], cut
        found = state_of(store)
        if is_killed:
            disk.kill()
        return found
    finally:
        with contextlib.suppress(DiedError, StoreError):
            store.close()
        disk.revive()


def check(recording: Recording, disk: MemoryDisk, oldest: int, newest: int, cut: int) -> None:
    """Find one of the states there; what was found on the very same files once holds again."""
    files = digest_of_files(disk)
    if files not in recording.found:
        recording.found[files] = marks_on(recording, disk, cut)
    wanted = range(oldest, newest + 1)
    found = recording.found[files]
    assert found & {*wanted}, f"cut after write {cut}: not a state of {oldest} to {newest}"


def last_mark(recording: Recording, position: int, *, is_durable: bool = False) -> int:
    """The last commit that had returned by then; before the first, creation."""
    found = [
        number
        for number, mark in enumerate(recording.marks)
        if mark.position <= position and mark.is_durable >= is_durable
    ]
    return max(found, default=0)


def test_the_workload_has_all_that_can_be_cut(recording: Recording) -> None:
    durable = sum(mark.is_durable for mark in recording.marks)
    assert len(recording.marks) > 50
    assert len(recording.marks) // 4 < durable < len(recording.marks) // 2
    seen = {name for mark in recording.marks for name, rows in mark.state.items() if rows}
    assert {"items", "taken_items", "item_graves", "synchronizers", "takers"} <= seen
    assert recording.checkpoints >= 4


def test_a_process_killed_between_any_two_writes_loses_nothing_it_committed(
    recording: Recording,
) -> None:
    image = MemoryDisk(f"image-{id(recording)}")
    for position, disk in cuts(recording):
        disk.copy_to(image)
        last = last_mark(recording, position)
        check(recording, image, last, min(last + 1, len(recording.marks) - 1), position)
    image.close()
    print(len(recording.found))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_power_cut_between_any_two_writes_loses_nothing_durable(
    recording: Recording, kept: float
) -> None:
    image = MemoryDisk(f"image-{id(recording)}")
    chance = random.Random(1)
    for position, disk in cuts(recording):
        oldest = last_mark(recording, position, is_durable=True)
        newest = min(last_mark(recording, position) + 1, len(recording.marks) - 1)
        for _ in range(LOSSES if kept else 1):
            disk.copy_to(image)
            image.lose_power(lambda _: chance.random() < kept)
            check(recording, image, oldest, newest, position)
    image.close()
    print(len(recording.found))
