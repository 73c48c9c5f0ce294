"""What is kept and for how long: results, blobs, output, sessions, queues; and the listings."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

import msgspec

from multihost.core.ids import task_id
from multihost.core.job import DAY_S, Context
from multihost.core.outcome import Ending
from multihost.core.state import JobState, TaskState
from multihost.store.base import Added, SessionInfo, StoredBlob
from multihost.testing.owner import Owner, make_spec
from multihost.wire.message import Blob, Held, RefusalCode, Role

ANY = 1000


def prune(owner: Owner, after_s: float) -> None:
    """Let time pass and prune until nothing is left to do."""
    owner.now += after_s
    while owner.do("prune", owner.now, ANY):
        pass


class KeepingTests:
    """Take, prune, blobs, output, sessions, queues, listings."""

    # take --------------------------------------------------------------------------------

    def test_taken_outcomes_of_a_transient_job_are_dropped(self, owner: Owner) -> None:
        job = owner.open(owner=owner.client(), is_transient=True).number
        owner.add(job, [b"a", b"b" * 5000, b"c", b"d"])
        worker = owner.worker()
        leases = owner.lease(worker)
        owner.finish(worker, leases[:3])
        assert owner.do("take", job, 2) == 2
        assert owner.do("take", job, 2) == 0
        assert [f.task for f in owner.store.outcomes(job, -1, 9)] == [leases[2].task]
        row = owner.store.job(job)
        assert row is not None
        assert (row.succeeded, row.count) == (3, 4)
        owner.finish(worker, leases[3:])
        assert owner.do("take", job, 99) == 2
        owner.seal(job, 4)
        assert [row.state for row in owner.changes.ended] == [JobState.SUCCEEDED]

    def test_what_was_taken_is_not_added_again(self, owner: Owner) -> None:
        job = owner.open(owner=owner.client(), is_transient=True).number
        owner.add(job, 2)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        owner.do("take", job, 2)
        owner.reopen()
        assert owner.add(job, 3) == Added(1)
        assert len(owner.lease(worker)) == 1

    def test_unfinished_tasks_are_not_taken(self, owner: Owner) -> None:
        job = owner.submit([b"a", b"b" * 5000], owner=owner.client(), is_transient=True)
        worker = owner.worker()
        first, second = owner.lease(worker)
        owner.prints(worker, second, b"printed")
        owner.finish(worker, [first])
        assert owner.do("take", job, 2) == 1
        assert owner.store.output(second.task) == [(1, b"printed")]
        assert owner.finish(worker, [second]).stale == []
        assert owner.do("take", job, 2) == 1

    def test_a_lasting_job_keeps_its_outcomes(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        assert owner.do("take", job, 1) == 0
        assert owner.do("take", 99, 1) == 0
        assert len(owner.store.outcomes(job, -1, 9)) == 1

    # prune -------------------------------------------------------------------------------

    def test_an_ended_job_goes_when_its_retention_is_over(self, owner: Owner) -> None:
        job = owner.submit(3, name="n", retention_s=100.0, keys=["a", "b", "c"])
        kept = owner.submit(1)
        worker = owner.worker()
        leases = owner.lease(worker)
        owner.prints(worker, leases[0], b"printed")
        owner.finish(worker, leases[:2])
        owner.finish(worker, leases[2:3], Ending.RAISED)
        prune(owner, 99.0)
        assert owner.store.job(job) is not None
        prune(owner, 1.0)
        assert owner.store.job(job) is None
        assert owner.store.find_job("n") is None
        assert owner.store.tasks(job) == []
        assert owner.store.outcomes(job, -1, 9) == []
        assert owner.store.attempts(leases[2].task) == []
        assert owner.store.output(leases[0].task) == []
        assert [row.number for row in owner.store.jobs()] == [kept]
        assert owner.store.queues()[0].succeeded == 0

    def test_an_ended_job_can_be_deleted_before_its_time(self, owner: Owner) -> None:
        job, kept = owner.submit(3, name="n"), owner.submit(1)
        worker = owner.worker()
        assert owner.do("delete_job", job).code is RefusalCode.BAD_REQUEST
        assert owner.do("delete_job", 99).code is RefusalCode.BAD_REQUEST
        leases = owner.lease(worker)
        owner.finish(worker, leases[:3])
        assert owner.do("delete_job", job) is None
        assert owner.store.job(job) is None
        assert owner.store.find_job("n") is None
        assert owner.store.queues()[0].succeeded == 0
        prune(owner, 0.0)
        assert owner.store.outcomes(job, -1, 9) == []
        assert [row.number for row in owner.store.jobs()] == [kept]
        owner.reopen()
        assert owner.open(name="n").number > kept

    def test_a_big_job_is_pruned_a_little_at_a_time(self, owner: Owner) -> None:
        job = owner.submit(50, name="n", retention_s=0.0)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        rounds = 0
        while owner.do("prune", owner.now, 10):
            rounds += 1
            assert owner.store.job(job) is None
            assert owner.open(name="n").number > job
            owner.reopen()
        assert rounds > 0
        assert owner.store.tasks(job) == []

    def test_unfinished_jobs_are_never_pruned(self, owner: Owner) -> None:
        job = owner.submit(1, retention_s=0.0)
        owner.open(retention_s=0.0)
        prune(owner, 1e9)
        assert len(owner.store.jobs()) == 2
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), Ending.RAISED)
        owner.do("retry", job, None, owner.now)
        prune(owner, 1e9)
        assert len(owner.store.jobs()) == 2

    def test_a_number_is_never_given_to_a_second_job(self, owner: Owner) -> None:
        numbers = [owner.submit(0, retention_s=0.0) for _ in range(3)]
        prune(owner, 1.0)
        assert owner.store.jobs() == []
        owner.reopen()
        assert owner.open().number > max(numbers)

    def test_unused_lanes_and_queues_go(self, owner: Owner) -> None:
        owner.submit(0, queue="gone", retention_s=0.0)
        owner.submit(0, queue="limited", retention_s=0.0)
        owner.open(queue="used")
        owner.do("set_queue", "limited", is_paused=None, limit=5)
        owner.do("set_queue", "plain", is_paused=False, limit=None)
        prune(owner, 1.0)
        assert [lane.queue for lane in owner.store.lanes()] == ["used"]
        assert [row.name for row in owner.store.queues()] == ["limited", "used"]
        owner.reopen()
        assert [row.name for row in owner.store.queues()] == ["limited", "used"]

    def test_closed_sessions_go_after_a_day_unless_needed(self, owner: Owner) -> None:
        idle, busy, client = owner.worker("idle"), owner.worker("busy"), owner.client()
        owner.submit(1, owner=client, is_transient=True)
        owner.lease(busy)
        for session in (idle, busy, client):
            owner.do("close_session", session, owner.now)
        prune(owner, DAY_S - 1.0)
        assert len(owner.store.sessions(Role.WORKER, is_open=False)) == 2
        prune(owner, 1.0)
        assert [row.number for row in owner.store.sessions(Role.WORKER, is_open=False)] == [busy]
        assert len(owner.store.sessions(Role.CLIENT, is_open=False)) == 1

    # blobs -------------------------------------------------------------------------------

    def test_a_blob_is_kept_in_the_store_or_noted(self, owner: Owner) -> None:
        here, there = Blob(b"h" * 32, 5), Blob(b"t" * 32, 1 << 30)
        owner.do("put_blob", here, b"bytes", owner.now)
        owner.do("put_blob", there, None, owner.now)
        owner.do("put_blob", here, b"bytes", owner.now)
        owner.reopen()
        assert owner.store.blob(here.digest) == StoredBlob(5, b"bytes")
        assert owner.store.blob(there.digest) == StoredBlob(1 << 30, None)
        assert owner.store.blob(b"x" * 32) is None

    def test_only_unused_and_old_blobs_go(self, owner: Owner) -> None:
        blobs = {name: Blob(name.encode() * 32, 3) for name in "uficapr"}
        for blob in blobs.values():
            owner.do("put_blob", blob, b"abc", owner.now)
        context = Context("c", initializer=blobs["i"].digest)
        payloads = [blobs["a"], blobs["p"]]
        owner.submit(payloads, function=blobs["f"].digest, context=context, retention_s=0.0)
        worker = owner.worker()
        first, second = owner.lease(worker)
        owner.finish(worker, [first], payload=blobs["r"])
        # Success needs its payload no more; the touch starts its age anew.
        assert owner.do("unused_blobs", owner.now, ANY) == []
        owner.now += 60.0
        names = {blob.digest[:1].decode() for blob in owner.do("unused_blobs", owner.now, ANY)}
        assert names == set("uca")
        owner.finish(worker, [second], Ending.RAISED)
        prune(owner, 1.0)
        assert owner.do("unused_blobs", owner.now, ANY) == []
        owner.now += 1.0
        names = {blob.digest[:1].decode() for blob in owner.do("unused_blobs", owner.now, ANY)}
        assert names == set("fipr")
        assert owner.store.blob(blobs["f"].digest) is None

    def test_a_blob_that_is_put_again_is_young_again(self, owner: Owner) -> None:
        blob = Blob(b"b" * 32, 3)
        owner.do("put_blob", blob, b"abc", owner.now)
        owner.now += 100.0
        owner.do("put_blob", blob, b"abc", owner.now)
        assert owner.do("unused_blobs", owner.now - 50.0, ANY) == []
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == [blob]

    def test_taken_results_let_go_of_their_blobs(self, owner: Owner) -> None:
        blob = Blob(b"b" * 32, 3)
        owner.do("put_blob", blob, b"abc", owner.now)
        job = owner.submit(1, owner=owner.client(), is_transient=True)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), payload=blob)
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == []
        owner.do("take", job, 1)
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == [blob]

    def test_a_retry_lets_go_of_the_failures_blob(self, owner: Owner) -> None:
        blob = Blob(b"b" * 32, 3)
        owner.do("put_blob", blob, b"abc", owner.now)
        job = owner.submit(1)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), Ending.RAISED, blob)
        owner.do("retry", job, None, owner.now)
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == [blob]

    def test_a_blob_that_the_same_transaction_refers_to_is_not_unused(self, owner: Owner) -> None:
        blob = Blob(b"b" * 32, 3)
        owner.do("put_blob", blob, b"abc", owner.now)
        with owner.transaction() as store:
            store.open_job(owner.uid(), make_spec(function=blob.digest), None, owner.now)
            assert store.unused_blobs(owner.now + 1.0, ANY) == []

    # output ------------------------------------------------------------------------------

    def test_output_is_kept_in_order_and_by_stream(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        for stream, data in ((1, b"one"), (2, b"two"), (1, b"three")):
            assert owner.prints(worker, lease, data, stream=stream)
        owner.reopen()
        assert owner.store.output(lease.task) == [(1, b"one"), (2, b"two"), (1, b"three")]

    def test_only_the_last_bytes_of_output_are_kept(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        task = lease.task
        for stream, data in ((1, b"abcd"), (2, b"efgh"), (1, b"ij")):
            owner.prints(worker, lease, data, stream=stream, limit=5)
        assert owner.store.output(task) == [(2, b"fgh"), (1, b"ij")]
        owner.prints(worker, lease, b"0123456789", limit=5)
        assert owner.store.output(task) == [(1, b"56789")]
        assert owner.prints(worker, lease, b"", limit=5)
        assert owner.store.output(task) == [(1, b"56789")]

    def test_output_of_a_task_that_does_not_run_is_dropped(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        for held in (Held(5 << 32, 1), Held(lease.task, lease.token + 1)):
            assert not owner.prints(worker, held, b"x")
            assert owner.store.output(held.task) == []
        owner.finish(worker, [lease])
        assert not owner.prints(worker, lease, b"late")
        assert owner.store.output(lease.task) == []

    # sessions ----------------------------------------------------------------------------

    def test_a_session_that_comes_back_keeps_its_number(self, owner: Owner) -> None:
        uid = owner.uid()
        first = owner.worker("old name", uid)
        owner.do("close_session", first, owner.now)
        assert owner.store.sessions(Role.WORKER) == []
        opened_at = owner.now
        owner.now += 5.0
        owner.reopen()
        assert owner.worker("new name", uid) == first
        (row,) = owner.store.sessions(Role.WORKER)
        assert (row.info.name, row.opened_at, row.closed_at) == ("new name", opened_at, None)

    def test_a_session_is_gone_on_with_by_its_role_and_key_alone(self, owner: Owner) -> None:
        info = SessionInfo(owner.uid(), Role.WORKER, "w", key="k")
        session = owner.do("open_session", info, owner.now)
        others = [msgspec.structs.replace(info, key=key) for key in ("other", "")]
        others.append(msgspec.structs.replace(info, role=Role.CLIENT))
        owner.reopen()
        for other in others:
            assert owner.do("open_session", other, owner.now) is None
        owner.do("close_session", session, owner.now)
        assert owner.do("open_session", others[0], owner.now) is None
        (row,) = owner.store.sessions(Role.WORKER, is_open=False)
        assert row.info == info
        assert owner.do("open_session", info, owner.now) == session

    def test_a_session_without_a_key_is_whose_comes_back_first(self, owner: Owner) -> None:
        info = SessionInfo(owner.uid(), Role.WORKER)
        session = owner.do("open_session", info, owner.now)
        bound = msgspec.structs.replace(info, key="k")
        assert owner.do("open_session", bound, owner.now) == session
        assert owner.do("open_session", info, owner.now) is None

    def test_sessions_are_listed_by_role_newest_first(self, owner: Owner) -> None:
        info = SessionInfo(owner.uid(), Role.WORKER, "w", "me", "host", 7, 4, ("a", "b"), b"offer")
        first = owner.do("open_session", info, owner.now)
        second, client = owner.worker(), owner.client()
        rows = owner.store.sessions(Role.WORKER)
        assert [row.number for row in rows] == [second, first]
        assert rows[1].info == info
        assert [row.number for row in owner.store.sessions(Role.CLIENT)] == [client]
        owner.do("close_session", first, owner.now)
        owner.do("close_session", first, owner.now + 9.0)
        (row,) = owner.store.sessions(Role.WORKER, is_open=False)
        assert (row.number, row.closed_at) == (first, owner.now)

    # queues and listings -----------------------------------------------------------------

    def test_queues_count_their_tasks(self, owner: Owner) -> None:
        owner.submit(3, queue="b")
        owner.submit(2, queue="b")
        owner.submit(1, queue="a", after=(owner.open(queue="c").number,))
        worker = owner.worker()
        leases = owner.lease(worker, 3, "b")
        owner.finish(worker, leases[:1])
        owner.finish(worker, leases[1:2], Ending.RAISED)
        owner.do("set_queue", "b", is_paused=True, limit=9)
        for _ in range(2):
            a, b, c = owner.store.queues()
            assert (a.name, b.name, c.name) == ("a", "b", "c")
            assert (b.blocked, b.queued, b.running, b.succeeded, b.failed) == (0, 2, 1, 1, 1)
            assert (b.is_paused, b.limit, a.blocked, a.limit) == (True, 9, 1, None)
            owner.reopen()

    def test_settings_of_a_queue_are_changed_one_by_one(self, owner: Owner) -> None:
        owner.do("set_queue", "q", is_paused=True, limit=5)
        owner.do("set_queue", "q", is_paused=None, limit=7)
        owner.do("set_queue", "q", is_paused=False, limit=None)
        (row,) = owner.store.queues()
        assert (row.is_paused, row.limit) == (False, 7)

    def test_jobs_are_listed_newest_first_in_pages(self, owner: Owner) -> None:
        jobs = [owner.submit(1) for _ in range(5)]
        assert [row.number for row in owner.store.jobs(limit=2)] == jobs[:2:-1]
        assert [row.number for row in owner.store.jobs(before=jobs[3], limit=2)] == jobs[2:0:-1]

    def test_jobs_are_listed_by_state(self, owner: Owner) -> None:
        worker = owner.worker()
        jobs = {}
        for state, ending in (
            (JobState.SUCCEEDED, Ending.OK),
            (JobState.FAILED, Ending.RAISED),
            (JobState.CANCELLED, Ending.CANCELLED),
        ):
            jobs[state] = owner.submit(1)
            owner.finish(worker, owner.lease(worker), ending)
        jobs[JobState.OPEN] = owner.submit(1)
        for state, number in jobs.items():
            assert [row.number for row in owner.store.jobs(state=state)] == [number]
            assert owner.store.jobs(state=state, before=number) == []

    def test_a_listing_within_a_transaction_sees_what_it_did(self, owner: Owner) -> None:
        job = owner.open().number
        with owner.transaction() as store:
            store.add_tasks(job, 0, [b"a", b"b"], None, owner.now)
            new = store.open_job(owner.uid(), make_spec(), None, owner.now)
            assert [row.number for row in store.jobs()] == [new.number, job]  # type: ignore[union-attr]
            assert [row.queued for row in store.jobs()] == [0, 2]
            row = store.job(job)
            assert row is not None
            assert row.queued == 2
            assert store.queues()[0].queued == 2

    def test_tasks_are_listed_by_index_and_state(self, owner: Owner) -> None:
        job = owner.submit(6)
        worker = owner.worker()
        leases = owner.lease(worker, 4)
        owner.finish(worker, leases[:1])
        owner.finish(worker, leases[1:2], Ending.RAISED)
        owner.do("cancel", job, [4], only_queued=True, now=owner.now)
        expected = {
            TaskState.SUCCEEDED: [0],
            TaskState.FAILED: [1],
            TaskState.RUNNING: [2, 3],
            TaskState.CANCELLED: [4],
            TaskState.QUEUED: [5],
            TaskState.BLOCKED: [],
        }
        for state, wanted in expected.items():
            rows = owner.store.tasks(job, state=state)
            assert [row.task for row in rows] == [task_id(job, index) for index in wanted]
            assert all(row.state is state for row in rows)
        page = owner.store.tasks(job, after_index=1, limit=3)
        assert [row.task for row in page] == [task_id(job, index) for index in (2, 3, 4)]

    def test_what_does_not_exist_is_none_or_empty(self, owner: Owner) -> None:
        store = owner.store
        assert store.job(7) is None
        assert store.task(7 << 32) is None
        assert store.tasks(7) == []
        assert store.attempts(7 << 32) == []
        assert store.outcomes(7, -1, 9) == []
        assert (store.jobs(), store.queues(), store.lanes()) == ([], [], [])
