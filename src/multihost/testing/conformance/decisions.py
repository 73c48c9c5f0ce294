"""What people decide: cancel, retry; and clients that go, whose work goes with them."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

from multihost.core.ids import index_of
from multihost.core.outcome import Ending
from multihost.core.retry import Backoff, Limits
from multihost.core.state import JobState, TaskState
from multihost.store.base import Added, Running
from multihost.testing.owner import Owner
from multihost.wire.message import Blob, Held, Payload


class DecisionTests:
    """Cancel, retry, disown."""

    def test_cancelling_a_job_ends_all_that_is_unfinished(self, owner: Owner) -> None:
        job = owner.submit(3)
        worker = owner.worker()
        done, running = owner.lease(worker, 2)
        owner.finish(worker, [done])
        result = owner.do("cancel", job, None, only_queued=False, now=owner.now)
        assert [(index_of(final.task), final.ending) for final in result.finals] == [
            (1, Ending.CANCELLED),
            (2, Ending.CANCELLED),
        ]
        assert result.stopped == [Running(worker, running.task, running.token)]
        assert [row.state for row in owner.changes.ended] == [JobState.CANCELLED]
        assert owner.lease(worker) == []

    def test_the_outcome_of_a_cancelled_task_comes_too_late(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        owner.do("cancel", job, None, only_queued=False, now=owner.now)
        held = Held(lease.task, lease.token)
        assert owner.finish(worker, [lease]).stale == [held]
        assert owner.do("release", worker, [held], owner.now) == []
        assert owner.do("lose", worker, owner.now).requeued == 0
        assert [final.ending for final in owner.store.outcomes(job, -1, 9)] == [Ending.CANCELLED]

    def test_cancelling_seals_a_job_and_it_takes_no_more(self, owner: Owner) -> None:
        job = owner.open().number
        owner.add(job, 2)
        owner.do("cancel", job, None, only_queued=False, now=owner.now)
        row = owner.store.job(job)
        assert row is not None
        assert (row.total, row.state) == (2, JobState.CANCELLED)
        assert not isinstance(owner.add(job, 1, first=2), Added)

    def test_cancelling_a_job_sealed_for_more_ends_it(self, owner: Owner) -> None:
        job = owner.open().number
        owner.add(job, 2)
        owner.seal(job, 9)
        owner.do("cancel", job, None, only_queued=False, now=owner.now)
        row = owner.store.job(job)
        assert row is not None
        assert (row.total, row.state) == (2, JobState.CANCELLED)

    def test_single_tasks_can_be_cancelled(self, owner: Owner) -> None:
        job = owner.open().number
        owner.add(job, 4)
        result = owner.do("cancel", job, [3, 1, 3, 77], only_queued=False, now=owner.now)
        assert [index_of(final.task) for final in result.finals] == [1, 3]
        row = owner.store.job(job)
        assert row is not None
        assert (row.queued, row.cancelled, row.total) == (2, 2, None)

    def test_running_tasks_can_be_left_alone(self, owner: Owner) -> None:
        job = owner.submit(3)
        worker = owner.worker()
        leases = owner.lease(worker, 1)
        result = owner.do("cancel", job, None, only_queued=True, now=owner.now)
        assert (len(result.finals), result.stopped) == (2, [])
        assert owner.finish(worker, leases).stale == []
        assert [row.state for row in owner.changes.ended] == [JobState.CANCELLED]

    def test_blocked_and_delayed_tasks_are_cancelled_like_others(self, owner: Owner) -> None:
        first = owner.submit(1)
        for options in ({"after": (first,)}, {"delay_s": 9.0}, {"ttl_s": 9.0}):
            job = owner.submit(1, **options)
            finals = owner.do("cancel", job, None, only_queued=True, now=owner.now).finals
            assert len(finals) == 1
        assert owner.promote(10.0).finals == []
        assert owner.store.wake_at is None

    def test_cancelling_twice_or_nothing_is_nothing(self, owner: Owner) -> None:
        job = owner.submit(1)
        owner.do("cancel", job, None, only_queued=False, now=owner.now)
        for number in (job, 99):
            result = owner.do("cancel", number, None, only_queued=False, now=owner.now)
            assert (result.finals, result.stopped) == ([], [])

    def test_failed_and_cancelled_tasks_run_again_with_fresh_limits(self, owner: Owner) -> None:
        limits = Limits(max_attempts=2, max_crashes=1)
        job = owner.submit(3, limits=limits, backoff=Backoff(0.0))
        worker = owner.worker()
        good, bad, _ = owner.lease(worker)
        owner.finish(worker, [good])
        owner.finish(worker, [bad], Ending.CRASHED)
        owner.do("cancel", job, [2], only_queued=False, now=owner.now)
        row = owner.store.job(job)
        assert row is not None
        assert row.state is JobState.FAILED
        assert owner.do("retry", job, None, owner.now) == 2
        row = owner.store.job(job)
        assert row is not None
        assert (row.state, row.ended_at, row.queued) == (JobState.OPEN, None, 2)
        assert len(owner.store.outcomes(job, -1, 9)) == 1
        leases = owner.lease(worker)
        assert [(index_of(lease.task), lease.attempt) for lease in leases] == [(1, 1), (2, 1)]
        assert owner.finish(worker, leases, Ending.RAISED).requeued == 2
        owner.finish(worker, owner.lease(worker))
        assert [row.state for row in owner.changes.ended] == [JobState.SUCCEEDED]
        assert len(owner.store.attempts(bad.task)) == 2

    def test_single_tasks_can_be_retried(self, owner: Owner) -> None:
        job = owner.submit(3)
        worker = owner.worker()
        leases = owner.lease(worker)
        owner.finish(worker, leases[:1])
        owner.finish(worker, leases[1:], Ending.RAISED)
        assert owner.do("retry", job, [0, 2, 50], owner.now) == 1
        assert [index_of(lease.task) for lease in owner.lease(worker)] == [2]
        assert owner.do("retry", 99, None, owner.now) == 0

    def test_an_expired_task_that_is_retried_does_not_expire_again(self, owner: Owner) -> None:
        job = owner.submit(1, ttl_s=5.0)
        owner.promote(5.0)
        owner.do("retry", job, None, owner.now)
        assert owner.promote(50.0).finals == []
        assert len(owner.lease(owner.worker())) == 1

    def test_a_big_payload_is_still_there_for_a_retry(self, owner: Owner) -> None:
        blob = Blob(b"b" * 32, 7)
        owner.do("put_blob", blob, b"7 bytes", owner.now)
        payloads: list[Payload] = [b"x" * 5000, blob]
        job = owner.submit(payloads)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), Ending.RAISED)
        owner.do("retry", job, None, owner.now)
        assert [lease.payload for lease in owner.lease(worker)] == payloads

    def test_retried_tasks_of_a_key_wait_for_their_place(self, owner: Owner) -> None:
        job = owner.submit(2, keys=["a", "a"], key_limit=1)
        owner.do("cancel", job, None, only_queued=False, now=owner.now)
        owner.do("retry", job, None, owner.now)
        assert len(owner.lease(owner.worker())) == 1

    def test_a_cancelled_dependent_can_be_retried_once_its_need_succeeds(
        self, owner: Owner
    ) -> None:
        needed = owner.submit(1)
        job = owner.submit(1, after=(needed,))
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), Ending.RAISED)
        owner.do("retry", needed, None, owner.now)
        owner.finish(worker, owner.lease(worker))
        task = owner.store.tasks(job)[0]
        assert task.state is TaskState.CANCELLED
        owner.do("retry", job, None, owner.now)
        assert len(owner.lease(worker)) == 1

    def test_a_retry_and_a_cancel_in_one_transaction_both_count(self, owner: Owner) -> None:
        job = owner.submit(1)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), Ending.RAISED)
        with owner.transaction() as store:
            assert store.retry(job, None, owner.now) == 1
            assert len(store.cancel(job, None, only_queued=False, now=owner.now).finals) == 1
        assert [row.state for row in owner.changes.ended] == [JobState.CANCELLED]

    def test_a_clients_transient_work_goes_with_it(self, owner: Owner) -> None:
        client, other = owner.client(), owner.client()
        worker = owner.worker()
        gone = owner.submit(2, owner=client, is_transient=True)
        still_open = owner.open(owner=client, is_transient=True).number
        running = owner.lease(worker, 1)[0]
        kept = [
            owner.submit(1, owner=client),
            owner.submit(1, owner=other, is_transient=True),
        ]
        result = owner.do("disown", client, owner.now)
        assert [final.ending for final in result.finals] == [Ending.CANCELLED] * 2
        assert result.stopped == [Running(worker, running.task, running.token)]
        ended = {row.number: row.state for row in owner.changes.ended}
        assert ended == {gone: JobState.CANCELLED, still_open: JobState.SUCCEEDED}
        for job in kept:
            row = owner.store.job(job)
            assert row is not None
            assert row.state is JobState.OPEN
