"""How attempts end: once, under the right token; faults are counted by cause."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

import pytest

from multihost.core.outcome import Certificate, Ending, decode_failure
from multihost.core.retry import Backoff, Limits
from multihost.core.state import Hold, JobState, TaskState
from multihost.store.base import Final, Lease
from multihost.testing.owner import Owner, failure_bytes, failure_of
from multihost.wire.message import Attempt, Blob, Held

AT_ONCE = Backoff(first_s=0.0)


class AttemptTests:
    """Finish and lose."""

    def test_an_outcome_is_recorded_once_and_kept(self, owner: Owner) -> None:
        job = owner.submit(2)
        worker = owner.worker()
        first, second = owner.lease(worker)
        settlement = owner.finish(worker, [first], payload=b"r")
        assert settlement.finals == [Final(first.task, Ending.OK, b"r")]
        assert (settlement.stale, settlement.requeued) == ([], 0)
        assert owner.changes.ended == []
        owner.finish(worker, [second], payload=b"s")
        assert [row.state for row in owner.changes.ended] == [JobState.SUCCEEDED]
        owner.reopen()
        assert owner.store.outcomes(job, -1, 10) == [
            Final(first.task, Ending.OK, b"r"),
            Final(second.task, Ending.OK, b"s"),
        ]
        row = owner.store.job(job)
        assert row is not None
        assert (row.succeeded, row.state, row.ended_at) == (2, JobState.SUCCEEDED, owner.now)

    def test_a_late_outcome_from_a_lost_worker_is_refused(self, owner: Owner) -> None:
        job = owner.submit(1)
        lost, other = owner.worker(), owner.worker("w-2")
        old = owner.lease(lost)[0]
        owner.do("lose", lost, owner.now)
        new = owner.lease(other)[0]
        assert new.token > old.token
        late = owner.finish(lost, [old], payload=b"late")
        assert (late.finals, late.stale) == ([], [Held(old.task, old.token)])
        assert owner.finish(other, [new], payload=b"good").stale == []
        assert owner.finish(lost, [old], payload=b"later").stale == [Held(old.task, old.token)]
        assert [final.payload for final in owner.store.outcomes(job, -1, 9)] == [b"good"]

    def test_a_token_from_the_future_is_refused(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        future = Held(lease.task, lease.token + 1)
        for ending in (Ending.OK, Ending.RAISED, Ending.CANCELLED):
            assert owner.finish(worker, [future], ending).stale == [future]
        assert owner.finish(worker, [lease]).stale == []

    def test_nobody_settles_another_s_task(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker, rogue = owner.worker(), owner.worker("rogue")
        lease = owner.lease(worker)[0]
        held = Held(lease.task, lease.token)
        for ending in (Ending.OK, Ending.RAISED, Ending.CANCELLED):
            settlement = owner.finish(rogue, [lease], ending)
            assert (settlement.finals, settlement.stale) == ([], [held])
        assert owner.do("release", rogue, [held], owner.now) == []
        assert not owner.prints(rogue, held, b"forged")
        assert owner.store.output(lease.task) == []
        assert owner.finish(worker, [lease], payload=b"good").stale == []
        assert [final.payload for final in owner.store.outcomes(job, -1, 9)] == [b"good"]
        assert owner.store.attempts(lease.task) == []

    def test_an_outcome_that_is_sent_again_is_stale(self, owner: Owner) -> None:
        owner.submit(2)
        worker = owner.worker()
        leases = owner.lease(worker)
        settlement = owner.finish(worker, [leases[0], leases[0], leases[1]])
        assert len(settlement.finals) == 2
        assert settlement.stale == [Held(leases[0].task, leases[0].token)]
        assert len(owner.finish(worker, leases).stale) == 2

    def test_outcomes_of_unknown_tasks_are_stale(self, owner: Owner) -> None:
        worker = owner.worker()
        unknown = Held(5 << 32, 7)
        assert owner.finish(worker, [unknown]).stale == [unknown]

    def test_a_result_may_be_big_or_a_blob(self, owner: Owner) -> None:
        blob = Blob(b"r" * 32, 123_456)
        owner.do("put_blob", blob, None, owner.now)
        job = owner.submit(2)
        worker = owner.worker()
        big, other = owner.lease(worker)
        owner.finish(worker, [big], payload=b"x" * 60_000)
        owner.finish(worker, [other], payload=blob)
        assert [final.payload for final in owner.store.outcomes(job, -1, 9)] == [
            b"x" * 60_000,
            blob,
        ]

    def test_a_result_whose_blob_never_came_is_a_failure(self, owner: Owner) -> None:
        owner.submit(2)
        worker = owner.worker()
        leases = owner.lease(worker)
        blob = Blob(b"n" * 32, 123_456)
        attempts = [
            Attempt(leases[0].task, leases[0].token, Ending.OK, blob),
            Attempt(leases[1].task, leases[1].token, Ending.OK, b"fine"),
        ]
        settlement = owner.do("finish", worker, attempts, owner.now, 0.5)
        fine, failed = settlement.finals
        assert fine == Final(leases[1].task, Ending.OK, b"fine")
        assert failed.ending is Ending.UNRUNNABLE
        assert "not in the store" in failure_of(failed).message

    def test_outcomes_are_read_in_pages_by_index(self, owner: Owner) -> None:
        job = owner.submit(5)
        worker = owner.worker()
        leases = owner.lease(worker)
        owner.finish(worker, [leases[n] for n in (4, 0, 3)])
        tasks = [final.task for final in owner.store.outcomes(job, -1, 2)]
        assert tasks == [leases[0].task, leases[3].task]
        assert [f.task for f in owner.store.outcomes(job, 3, 2)] == [leases[4].task]
        assert owner.store.outcomes(job, 4, 2) == []

    # faults ------------------------------------------------------------------------------

    def test_one_error_fails_a_task_unless_more_are_allowed(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        payload = failure_bytes(message="no", exception=b"pickle")
        settlement = owner.finish(worker, [lease], Ending.RAISED, payload)
        assert settlement.finals == [Final(lease.task, Ending.RAISED, payload)]
        row = owner.store.job(job)
        assert row is not None
        assert (row.failed, row.state) == (1, JobState.FAILED)

    @pytest.mark.parametrize("ending", [Ending.RAISED, Ending.TIMED_OUT, Ending.UNRUNNABLE])
    def test_errors_are_retried_until_the_limit(self, owner: Owner, ending: Ending) -> None:
        job = owner.submit(1, limits=Limits(max_attempts=3), backoff=AT_ONCE)
        worker = owner.worker()
        for attempt in (1, 2):
            lease = owner.lease(worker)[0]
            assert lease.attempt == attempt
            assert owner.finish(worker, [lease], ending).requeued == 1
        lease = owner.lease(worker)[0]
        finals = owner.finish(worker, [lease], ending).finals
        assert [final.ending for final in finals] == [ending]
        attempts = owner.store.attempts(lease.task)
        assert [attempt.ending for attempt in attempts] == [ending] * 3
        assert [attempt.token for attempt in attempts] == sorted(a.token for a in attempts)
        task = owner.store.task(lease.task)
        assert task is not None
        assert (task.errors, task.crashes, task.losses) == (3, 0, 0)
        assert owner.store.outcomes(job, -1, 9) == finals

    def test_a_retry_waits_longer_each_time(self, owner: Owner) -> None:
        backoff = Backoff(first_s=10.0, factor=2.0, jitter=0.5)
        job = owner.submit(1, limits=Limits(max_attempts=3), backoff=backoff)
        worker = owner.worker()
        for delay_s in (10.0, 20.0):
            owner.finish(worker, owner.lease(worker), Ending.RAISED, chance=0.5)
            assert owner.store.wake_at == owner.now + delay_s
            assert owner.lease(worker) == []
            task = owner.store.tasks(job)[0]
            assert (task.state, task.hold) == (TaskState.QUEUED, Hold.TIME)
            assert task.due_at == owner.now + delay_s
            owner.promote(delay_s - 0.001)
            assert owner.lease(worker) == []
            owner.promote(0.001)
        assert owner.store.wake_at is None
        assert len(owner.lease(worker)) == 1

    def test_chance_spreads_retries(self, owner: Owner) -> None:
        job = owner.submit(2, limits=Limits(max_attempts=2), backoff=Backoff(10.0, jitter=0.5))
        worker = owner.worker()
        for lease, chance in zip(owner.lease(worker), (0.0, 0.75), strict=True):
            owner.finish(worker, [lease], Ending.RAISED, chance=chance)
        due = [task.due_at for task in owner.store.tasks(job)]
        assert due == [owner.now + 5.0, owner.now + 12.5]

    def test_a_task_that_kills_its_process_fails_with_every_certificate(self, owner: Owner) -> None:
        owner.submit(1, limits=Limits(max_crashes=3))
        worker = owner.worker()
        for pid in (1, 2, 3):
            certificate = Certificate(worker="w-1", pid=pid, exit_code=-9)
            payload = failure_bytes(Ending.CRASHED, certificates=(certificate,))
            lease = owner.lease(worker)[0]
            assert lease.attempt == pid
            finals = owner.finish(worker, [lease], Ending.CRASHED, payload).finals
        failure = failure_of(finals[0])
        assert finals[0].ending is Ending.CRASHED
        assert [certificate.pid for certificate in failure.certificates] == [1, 2, 3]

    def test_certificates_are_kept_when_the_last_fault_is_another(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        payload = failure_bytes(Ending.CRASHED, certificates=(Certificate(pid=7),))
        owner.finish(worker, owner.lease(worker), Ending.CRASHED, payload)
        final = owner.finish(worker, owner.lease(worker), Ending.RAISED).finals[0]
        failure = failure_of(final)
        assert (failure.ending, failure.message) == (Ending.RAISED, "boom")
        assert [certificate.pid for certificate in failure.certificates] == [7]

    def test_a_task_that_outlives_too_many_workers_fails_as_lost(self, owner: Owner) -> None:
        job = owner.submit(1, limits=Limits(max_losses=2))
        lost = [owner.worker("alpha"), owner.worker("beta")]
        owner.lease(lost[0])
        settlement = owner.do("lose", lost[0], owner.now)
        assert (settlement.finals, settlement.stale, settlement.requeued) == ([], [], 1)
        lease = owner.lease(lost[1])[0]
        assert lease.attempt == 2
        final = owner.do("lose", lost[1], owner.now).finals[0]
        assert (final.task, final.ending) == (lease.task, Ending.LOST)
        assert "beta" in failure_of(final).message
        attempts = owner.store.attempts(lease.task)
        assert [decode_failure(attempt.failure).worker for attempt in attempts] == ["alpha", "beta"]
        row = owner.store.job(job)
        assert row is not None
        assert row.state is JobState.FAILED

    def test_losing_a_worker_touches_only_what_it_held(self, owner: Owner) -> None:
        owner.submit(3)
        worker, other = owner.worker(), owner.worker("w-2")
        done, _ = owner.lease(worker, 2)
        kept = owner.lease(other)
        owner.finish(worker, [done])
        assert owner.do("lose", worker, owner.now).requeued == 1
        assert owner.do("lose", worker, owner.now).requeued == 0
        assert owner.finish(other, kept).stale == []

    def test_each_cause_has_its_own_limit(self, owner: Owner) -> None:
        limits = Limits(max_attempts=2, max_crashes=2, max_losses=2)
        owner.submit(1, limits=limits, backoff=AT_ONCE)
        worker = owner.worker()
        assert owner.finish(worker, owner.lease(worker), Ending.RAISED).requeued == 1
        assert owner.finish(worker, owner.lease(worker), Ending.CRASHED).requeued == 1
        owner.lease(worker)
        assert owner.do("lose", worker, owner.now).requeued == 1
        lease = owner.lease(worker)[0]
        assert lease.attempt == 4
        assert len(owner.finish(worker, [lease], Ending.CRASHED).finals) == 1

    def test_a_worker_may_report_a_task_as_cancelled(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker = owner.worker()
        final = owner.finish(worker, owner.lease(worker), Ending.CANCELLED, b"").finals[0]
        assert (final.ending, final.payload) == (Ending.CANCELLED, b"")
        row = owner.store.job(job)
        assert row is not None
        assert (row.cancelled, row.state) == (1, JobState.CANCELLED)

    @pytest.mark.parametrize("payload", [b"", b"\xc1 not msgpack"])
    def test_a_failure_that_cannot_be_read_is_still_a_failure(
        self, owner: Owner, payload: bytes
    ) -> None:
        owner.submit(1)
        worker = owner.worker()
        final = owner.finish(worker, owner.lease(worker), Ending.RAISED, payload).finals[0]
        assert isinstance(final.payload, bytes)
        assert failure_of(final).ending is Ending.RAISED

    def test_a_failure_may_be_a_blob(self, owner: Owner) -> None:
        blob = Blob(b"f" * 32, 999_999)
        owner.do("put_blob", blob, None, owner.now)
        owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        final = owner.finish(worker, [lease], Ending.RAISED, blob).finals[0]
        assert final == Final(lease.task, Ending.RAISED, blob)
        assert "blob" in decode_failure(owner.store.attempts(lease.task)[0].failure).message

    def test_listings_of_attempts_hold_no_pickled_exception(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        payload = failure_bytes(message="no", exception=b"secret pickle")
        owner.finish(worker, [lease], Ending.RAISED, payload)
        attempt = owner.store.attempts(lease.task)[0]
        assert b"secret pickle" not in attempt.failure
        assert (attempt.session, attempt.ended_at) == (worker, owner.now)

    @pytest.mark.parametrize("ending", [Ending.EXPIRED, Ending.BLOCKED])
    def test_an_ending_no_worker_can_know_counts_as_an_error(
        self, owner: Owner, ending: Ending
    ) -> None:
        owner.submit(1)
        worker = owner.worker()
        final = owner.finish(worker, owner.lease(worker), ending).finals[0]
        assert final.ending is Ending.RAISED

    def test_a_batch_may_mix_everything(self, owner: Owner) -> None:
        jobs = [owner.submit(2), owner.submit(2)]
        worker = owner.worker()
        leases = owner.lease(worker)
        endings = [Ending.OK, Ending.RAISED, Ending.CANCELLED, Ending.OK]
        attempts = [_attempt(lease, ending) for lease, ending in zip(leases, endings, strict=True)]
        attempts.append(Attempt(leases[0].task, 1, Ending.OK, b"stale"))
        settlement = owner.do("finish", worker, attempts, owner.now, 0.5)
        assert {(final.task, final.ending) for final in settlement.finals} == {
            (lease.task, ending) for lease, ending in zip(leases, endings, strict=True)
        }
        assert settlement.stale == [Held(leases[0].task, 1)]
        states = {row.number: row.state for row in owner.changes.ended}
        assert states == {jobs[0]: JobState.FAILED, jobs[1]: JobState.CANCELLED}


def _attempt(lease: Lease, ending: Ending) -> Attempt:
    payload = b"r" if ending is Ending.OK else failure_bytes(ending)
    return Attempt(lease.task, lease.token, ending, payload)
