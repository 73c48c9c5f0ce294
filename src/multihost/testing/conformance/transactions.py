"""Transactions: all or nothing, and nothing remembered of what was rolled back."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

from multihost.core.ids import task_id
from multihost.core.outcome import Ending
from multihost.store.base import Added, OpenedJob, SessionInfo
from multihost.testing.owner import Owner, make_spec
from multihost.wire.message import Attempt, Blob, Held, Role


class TransactionTests:
    """Begin, prepare, commit, rollback, close."""

    def test_nothing_of_a_rolled_back_transaction_has_happened(self, owner: Owner) -> None:
        worker = owner.worker()
        kept = owner.submit(3, keys=["a"] * 3, key_limit=1)
        (lease,) = owner.lease(worker)
        before = owner.store.jobs(), owner.store.queues(), owner.store.sessions(Role.WORKER)
        blob = Blob(b"b" * 32, 1)
        store = owner.store
        store.begin()
        opened = store.open_job(owner.uid(), make_spec(queue="new", name="n"), None, owner.now)
        assert isinstance(opened, OpenedJob)
        store.add_tasks(opened.number, 0, [b"x"] * 5, None, owner.now)
        store.put_blob(blob, b"1", owner.now)
        store.append_output(worker, Held(lease.task, lease.token), 1, b"x", 9)
        store.finish(worker, [Attempt(lease.task, lease.token, Ending.OK, b"r")], owner.now, 0.5)
        store.cancel(kept, None, only_queued=False, now=owner.now)
        store.open_session(SessionInfo(owner.uid(), Role.WORKER), owner.now)
        store.set_queue("default", is_paused=True, limit=1)
        store.prepare(owner.now)
        store.rollback()
        assert (store.jobs(), store.queues(), store.sessions(Role.WORKER)) == before
        assert store.find_job("n") is None
        assert store.blob(blob.digest) is None
        assert store.outcomes(kept, -1, 9) == []
        assert store.output(lease.task) == []
        assert store.verify() == []
        assert owner.finish(worker, [lease]).stale == []
        assert len(owner.lease(worker)) == 1

    def test_a_rolled_back_verb_can_be_repeated(self, owner: Owner) -> None:
        uid, spec = owner.uid(), make_spec(name="n", unique_key="k")
        owner.store.begin()
        first = owner.store.open_job(uid, spec, None, owner.now)
        owner.store.rollback()
        again = owner.do("open_job", uid, spec, None, owner.now)
        assert isinstance(first, OpenedJob)
        assert again.is_new
        assert owner.add(again.number, 2) == Added(2)

    def test_a_transaction_may_hold_many_verbs(self, owner: Owner) -> None:
        worker = owner.worker()
        with owner.transaction(is_durable=True) as store:
            opened = store.open_job(owner.uid(), make_spec(), None, owner.now)
            assert isinstance(opened, OpenedJob)
            store.add_tasks(opened.number, 0, [b"a", b"b"], None, owner.now)
            store.seal_job(opened.number, 2, owner.now)
            lanes = [lane.number for lane in store.lanes()]
            leases = store.lease(lanes, 9, worker, owner.now)
            attempts = [Attempt(x.task, x.token, Ending.OK, b"r") for x in leases]
            store.finish(worker, attempts, owner.now, 0.5)
        assert [row.number for row in owner.changes.ended] == [opened.number]
        owner.reopen()
        assert len(owner.store.outcomes(opened.number, -1, 9)) == 2

    def test_a_job_that_ended_is_reported_once(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        assert [row.number for row in owner.changes.ended] == [job]
        owner.add(job, 1)
        assert owner.changes.ended == []

    def test_an_empty_transaction_changes_nothing(self, owner: Owner) -> None:
        owner.submit(1)
        before = owner.store.jobs()
        for is_durable in (False, True):
            with owner.transaction(is_durable=is_durable):
                pass
        assert owner.store.jobs() == before
        assert (owner.changes.ended, owner.changes.finals) == ([], [])

    def test_what_was_not_committed_is_gone_after_reopening(self, owner: Owner) -> None:
        job = owner.submit(1)
        owner.store.begin()
        owner.store.cancel(job, None, only_queued=False, now=owner.now)
        owner.store.prepare(owner.now)
        owner.reopen()
        row = owner.store.job(job)
        assert row is not None
        assert row.queued == 1

    def test_the_store_stays_the_same_store(self, owner: Owner) -> None:
        uid, epoch = owner.store.uid, owner.store.epoch
        assert len(uid) == 16
        owner.reopen()
        assert (owner.store.uid, owner.store.epoch) == (uid, epoch + 1)

    def test_more_jobs_than_are_remembered_are_still_right(self, owner: Owner) -> None:
        jobs = [owner.open().number for _ in range(40)]
        for round_number in range(2):
            for job in jobs:
                assert owner.add(job, 1, first=round_number) == Added(1)
        for job in jobs:
            row = owner.store.job(job)
            assert row is not None
            assert row.queued == 2
            assert owner.store.task(task_id(job, 1)) is not None
