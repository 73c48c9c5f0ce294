"""Under a steady load with a short retention the store's file and its log find their size."""

import os
from pathlib import Path

import pytest

from multihost.core.ids import make_uid
from multihost.core.outcome import Ending
from multihost.store.base import SessionInfo
from multihost.store.sqlite import SQLiteStore, open_store, prune
from multihost.store.sqlite import file as store_file
from multihost.testing.owner import START, make_spec
from multihost.wire.message import Attempt, Role

TASKS = 200
PAYLOAD_BYTES = 1500
RETENTION_S = 10.0
SPARE_PAGES = 200


class Load:
    """A job a second: it comes, is worked off, and what is past its time is deleted."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.now = START
        self.spec = make_spec(retention_s=RETENTION_S)
        store.begin()
        self.worker = store.open_session(SessionInfo(b"w" * 16, Role.WORKER), self.now)
        self.write()

    def write(self) -> None:
        self.store.prepare(self.now)
        self.store.commit(is_durable=False)

    def second(self) -> None:
        store = self.store
        self.now += 1
        store.begin()
        uid = make_uid(int(self.now * 1000), os.urandom(10))
        job = store.open_job(uid, self.spec, None, self.now).number
        store.add_tasks(job, 0, self.payloads(), None, self.now)
        store.seal_job(job, TASKS, self.now)
        leases = store.lease(store.woken, TASKS, self.worker, self.now)
        results = zip(leases, self.payloads(), strict=True)
        done = [Attempt(it.task, it.token, Ending.OK, data) for it, data in results]
        store.finish(self.worker, done, self.now, 0.5)
        self.write()
        self.prune()

    def payloads(self) -> list[bytes]:
        return [os.urandom(PAYLOAD_BYTES) for _ in range(TASKS)]

    def prune(self) -> None:
        count = 1
        while count:
            self.store.begin()
            count = self.store.prune(self.now, 500)
            self.write()


def test_the_file_finds_a_size_and_shrinks_when_the_load_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "SPARE_PAGES", SPARE_PAGES)
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    load = Load(store)
    sizes, logs = [], []
    for _ in range(60):
        load.second()
        sizes.append(store._db.pragma("page_count") * 4096)
        logs.append(Path(f"{path}-wal").stat().st_size)
    # Ten seconds' worth of it is kept: then nothing grows any more.
    assert sizes[15] > 4 << 20
    assert max(sizes[20:]) <= 1.1 * max(sizes[:20])
    assert max(logs) <= store_file.LOG_LIMIT_BYTES
    load.now += RETENTION_S + 1
    load.prune()
    assert store.jobs() == []
    assert store.verify() == []
    assert store._db.pragma("page_count") < SPARE_PAGES + 100
    store.close()
    assert path.stat().st_size < (SPARE_PAGES + 100) * 4096
