"""What tasks wait for: their time, their key, other jobs; and how long at most."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

from typing import Any

import pytest

from multihost.core.ids import index_of, job_of
from multihost.core.outcome import Ending
from multihost.core.retry import Backoff, Limits
from multihost.core.state import Hold, JobState, TaskState
from multihost.store.base import OpenedJob
from multihost.testing.owner import Owner, failure_of, make_spec
from multihost.wire.message import Held


def leased(owner: Owner, session: int, limit: int = 100) -> list[int]:
    """Indices of what is leased now."""
    return [index_of(lease.task) for lease in owner.lease(session, limit)]


class WaitingTests:
    """Delay, time to live, keys, dependencies."""

    # time --------------------------------------------------------------------------------

    def test_a_delayed_task_is_not_leased_before_its_time(self, owner: Owner) -> None:
        job = owner.submit(1, delay_s=60.0)
        worker = owner.worker()
        due_at = owner.now + 60.0
        assert owner.store.wake_at == due_at
        task = owner.store.tasks(job)[0]
        assert (task.due_at, task.hold) == (due_at, Hold.TIME)
        owner.promote(59.0)
        assert owner.lease(worker) == []
        owner.store.woken.clear()
        owner.promote(1.0)
        assert owner.store.woken == set(owner.lanes())
        assert owner.store.wake_at is None
        assert len(owner.lease(worker)) == 1

    def test_a_restart_forgets_no_time(self, owner: Owner) -> None:
        owner.submit(1, delay_s=60.0)
        owner.reopen()
        assert owner.store.wake_at == owner.now + 60.0

    def test_the_earliest_time_is_when_to_look_again(self, owner: Owner) -> None:
        owner.submit(1, delay_s=60.0)
        owner.submit(1, delay_s=30.0)
        assert owner.store.wake_at == owner.now + 30.0
        owner.promote(30.0)
        assert owner.store.wake_at == owner.now + 30.0

    def test_a_task_that_waited_too_long_ends_as_expired(self, owner: Owner) -> None:
        job = owner.submit(1, ttl_s=10.0)
        assert owner.store.wake_at == owner.now + 10.0
        assert owner.promote(9.0).finals == []
        final = owner.promote(1.0).finals[0]
        assert final.ending is Ending.EXPIRED
        assert "10 s" in failure_of(final).message
        assert [(row.number, row.state) for row in owner.changes.ended] == [(job, JobState.FAILED)]
        assert owner.lease(owner.worker()) == []

    def test_an_expired_task_is_not_leased_even_before_it_is_ended(self, owner: Owner) -> None:
        owner.submit(1, ttl_s=10.0)
        owner.submit(1)
        owner.now += 10.0
        assert len(owner.lease(owner.worker())) == 1

    def test_a_task_that_started_does_not_expire(self, owner: Owner) -> None:
        owner.submit(1, ttl_s=10.0, limits=Limits(max_attempts=2), backoff=Backoff(0.0))
        worker = owner.worker()
        lease = owner.lease(worker)
        assert owner.promote(20.0).finals == []
        owner.finish(worker, lease, Ending.RAISED)
        assert owner.promote(20.0).finals == []
        assert len(owner.lease(worker)) == 1

    def test_what_was_given_back_unstarted_still_expires(self, owner: Owner) -> None:
        owner.submit(1, ttl_s=10.0)
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        owner.promote(5.0)
        owner.do("release", worker, [Held(lease.task, lease.token)], owner.now)
        assert owner.store.wake_at == owner.now + 5.0
        assert len(owner.promote(5.0).finals) == 1

    def test_blocked_and_delayed_tasks_expire_too(self, owner: Owner) -> None:
        first = owner.submit(1)
        owner.submit(1, after=(first,), ttl_s=10.0)
        owner.submit(1, delay_s=10.0, ttl_s=10.0)
        owner.submit(1, keys=["k"], key_limit=1, ttl_s=10.0)
        finals = owner.promote(10.0).finals
        assert [final.ending for final in finals] == [Ending.EXPIRED] * 3

    # a clock that is set back ------------------------------------------------------------

    def test_a_delayed_task_waits_no_longer_though_the_clock_was_set_back(
        self, owner: Owner
    ) -> None:
        owner.submit(1, delay_s=60.0)
        worker = owner.worker()
        self._turn_back(owner)
        owner.promote(59.0)
        assert owner.lease(worker) == []
        owner.promote(1.0)
        assert len(owner.lease(worker)) == 1

    def test_a_key_waits_no_longer_though_the_clock_was_set_back(self, owner: Owner) -> None:
        owner.submit(2, keys=["k", "k"], key_delay_s=60.0)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        self._turn_back(owner)
        owner.promote(59.0)
        assert owner.lease(worker) == []
        owner.promote(1.0)
        assert leased(owner, worker) == [1]

    def test_a_task_lives_no_longer_though_the_clock_was_set_back(self, owner: Owner) -> None:
        owner.submit(2, ttl_s=60.0)
        worker = owner.worker()
        (lease,) = owner.lease(worker, 1)
        self._turn_back(owner)
        assert owner.promote(59.0).finals == []
        owner.do("release", worker, [Held(lease.task, lease.token)], owner.now)
        assert len(owner.promote(1.0).finals) == 2

    def _turn_back(self, owner: Owner) -> None:
        """Set the clock back by an hour; that outlasts the server."""
        due = owner.store.wake_at
        assert due == owner.now + 60.0
        owner.do("turn_back", 3600.0)
        owner.now -= 3600.0
        assert owner.store.wake_at == owner.now + 60.0

    def test_what_is_blocked_waits_no_longer_either(self, owner: Owner) -> None:
        first = owner.submit(1)
        owner.submit(1, after=(first,), delay_s=60.0)
        owner.do("turn_back", 3600.0)
        owner.now -= 3600.0
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        assert owner.lease(worker) == []
        owner.promote(60.0)
        assert len(owner.lease(worker)) == 1

    # keys --------------------------------------------------------------------------------

    def test_no_more_tasks_of_a_key_run_than_its_limit(self, owner: Owner) -> None:
        owner.submit(6, keys=["a", "a", "a", "b", "b", "a"], key_limit=2)
        worker = owner.worker()
        leases = owner.lease(worker)
        assert [index_of(lease.task) for lease in leases] == [0, 1, 3, 4]
        owner.finish(worker, [leases[0]])
        assert leased(owner, worker) == [2]
        owner.finish(worker, [leases[1]])
        assert leased(owner, worker) == [5]

    def test_a_waiting_key_says_why(self, owner: Owner) -> None:
        job = owner.submit(2, keys=["a", "a"], key_limit=1)
        assert [task.hold for task in owner.store.tasks(job)] == [Hold.NONE, Hold.KEY]

    @pytest.mark.parametrize(
        "how", ["fail", "retry", "lose", "release", "cancel", "worker cancels"]
    )
    def test_however_a_task_leaves_its_key_the_next_one_gets_its_place(
        self, owner: Owner, how: str
    ) -> None:
        retries = Limits(max_attempts=2 if how == "retry" else 1)
        job = owner.submit(
            2, keys=["a", "a"], key_limit=1, limits=retries, backoff=Backoff(first_s=99.0)
        )
        worker = owner.worker()
        lease = owner.lease(worker)[0]
        owner.store.woken.clear()
        if how in ("fail", "retry"):
            owner.finish(worker, [lease], Ending.RAISED)
        elif how == "worker cancels":
            owner.finish(worker, [lease], Ending.CANCELLED)
        elif how == "lose":
            owner.do("lose", worker, owner.now)
        elif how == "release":
            owner.do("release", worker, [Held(lease.task, lease.token)], owner.now)
        else:
            owner.do("cancel", job, [0], only_queued=False, now=owner.now)
        assert owner.store.woken == set(owner.lanes())
        # What goes back into the line keeps its place there.
        assert leased(owner, worker) == ([0] if how in ("lose", "release") else [1])
        assert owner.lease(worker) == []

    def test_cancelling_or_expiring_the_ready_task_of_a_key_frees_its_place(
        self, owner: Owner
    ) -> None:
        job = owner.submit(2, keys=["a", "a"], key_limit=1)
        owner.do("cancel", job, [0], only_queued=True, now=owner.now)
        assert leased(owner, owner.worker()) == [1]
        owner.submit(1, keys=["b"], key_limit=1, ttl_s=5.0)
        owner.submit(1, keys=["b"], key_limit=1)
        owner.promote(5.0)
        assert leased(owner, owner.worker()) == [0]

    def test_within_a_key_the_best_goes_first(self, owner: Owner) -> None:
        jobs = [
            owner.submit(2, keys=["a", "a"], key_limit=1, priority=priority)
            for priority in (0, 2, 1)
        ]
        worker = owner.worker()
        order = []
        for _ in range(6):
            (lease,) = owner.lease(worker)
            order.append(job_of(lease.task))
            owner.finish(worker, [lease])
        assert order == [jobs[1]] * 2 + [jobs[2]] * 2 + [jobs[0]] * 2

    def test_keys_of_different_queues_are_different(self, owner: Owner) -> None:
        for queue in ("q", "r"):
            owner.submit(1, keys=["a"], key_limit=1, queue=queue)
        assert len(owner.lease(owner.worker())) == 2

    def test_the_latest_submit_sets_the_limits_of_a_key(self, owner: Owner) -> None:
        owner.submit(3, keys=["a"] * 3, key_limit=1)
        worker = owner.worker()
        assert leased(owner, worker) == [0]
        owner.submit(1, keys=["a"], key_limit=3)
        assert leased(owner, worker) == [1, 2]
        owner.submit(2, keys=["a"] * 2, key_limit=None)
        assert len(owner.lease(worker)) == 3

    def test_a_lower_limit_holds_for_what_is_ready_too(self, owner: Owner) -> None:
        owner.submit(3, keys=["a"] * 3, key_limit=None)
        owner.submit(1, keys=["a"], key_limit=1)
        worker = owner.worker()
        assert leased(owner, worker) == [0]
        owner.submit(0)
        assert owner.lease(worker) == []

    def test_keys_without_limits_hold_nothing_back(self, owner: Owner) -> None:
        owner.submit(3, keys=["a"] * 3)
        assert leased(owner, owner.worker()) == [0, 1, 2]

    def test_starts_of_a_key_keep_their_distance(self, owner: Owner) -> None:
        owner.submit(3, keys=["a"] * 3, key_delay_s=10.0)
        worker = owner.worker()
        (lease,) = owner.lease(worker)
        assert owner.store.wake_at == owner.now + 10.0
        owner.finish(worker, [lease])
        assert owner.lease(worker) == []
        owner.promote(9.0)
        assert owner.lease(worker) == []
        owner.promote(1.0)
        assert leased(owner, worker) == [1]
        owner.promote(10.0)
        assert leased(owner, worker) == [2]
        assert owner.promote(10.0).finals == []
        assert owner.store.wake_at is None

    def test_a_key_remembers_its_last_start_when_nothing_of_it_is_left(self, owner: Owner) -> None:
        client = owner.client()
        options: dict[str, Any] = {
            "key_delay_s": 10.0,
            "is_transient": True,
            "retention_s": 0.0,
            "owner": client,
        }
        worker = owner.worker()
        owner.submit(1, keys=["a"], **options)
        owner.finish(worker, owner.lease(worker))
        while owner.do("prune", owner.now + 1.0, 100):
            pass
        owner.reopen()
        owner.submit(1, keys=["a"], **options)
        assert owner.lease(worker) == []
        assert owner.store.wake_at == owner.now + 10.0
        owner.promote(10.0)
        assert len(owner.lease(worker)) == 1

    def test_limit_and_delay_hold_together(self, owner: Owner) -> None:
        owner.submit(3, keys=["a"] * 3, key_limit=1, key_delay_s=10.0)
        worker = owner.worker()
        (lease,) = owner.lease(worker)
        owner.promote(10.0)
        assert owner.lease(worker) == []
        owner.finish(worker, [lease])
        assert leased(owner, worker) == [1]

    def test_limits_of_keys_survive_a_restart(self, owner: Owner) -> None:
        owner.submit(3, keys=["a"] * 3, key_limit=1)
        worker = owner.worker()
        lease = owner.lease(worker)
        owner.reopen()
        assert owner.lease(worker) == []
        owner.finish(worker, lease)
        assert leased(owner, worker) == [1]

    def test_a_delayed_task_takes_no_place_in_its_key(self, owner: Owner) -> None:
        owner.submit(1, keys=["a"], key_limit=1, delay_s=10.0, priority=9)
        owner.submit(1, keys=["a"], key_limit=1)
        owner.submit(1, keys=["a"], key_limit=1)
        worker = owner.worker()
        (lease,) = owner.lease(worker)
        owner.promote(10.0)
        owner.finish(worker, [lease])
        assert [job_of(lease.task) for lease in owner.lease(worker)] == [1]

    # other jobs --------------------------------------------------------------------------

    def test_tasks_wait_until_the_needed_jobs_have_succeeded(self, owner: Owner) -> None:
        needed = [owner.submit(1), owner.submit(1)]
        job = owner.submit(2, after=tuple(needed))
        assert [task.state for task in owner.store.tasks(job)] == [TaskState.BLOCKED] * 2
        worker = owner.worker()
        first, second = owner.lease(worker)
        owner.finish(worker, [first])
        assert owner.lease(worker) == []
        owner.store.woken.clear()
        owner.finish(worker, [second])
        assert owner.store.woken == set(owner.lanes())
        assert leased(owner, worker) == [0, 1]

    def test_a_job_after_ended_ones_starts_at_once(self, owner: Owner) -> None:
        needed = owner.submit(1)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        owner.submit(1, after=(needed, needed))
        assert len(owner.lease(worker)) == 1

    def test_tasks_that_come_later_wait_too(self, owner: Owner) -> None:
        needed = owner.submit(1)
        job = owner.open(after=(needed,)).number
        worker = owner.worker()
        lease = owner.lease(worker)
        owner.add(job, 1)
        assert owner.lease(worker) == []
        owner.finish(worker, lease)
        assert len(owner.lease(worker)) == 1
        owner.add(job, 1, first=1)
        assert len(owner.lease(worker)) == 1

    @pytest.mark.parametrize("ending", [Ending.RAISED, Ending.CANCELLED])
    def test_a_failed_or_cancelled_need_cancels_all_that_waits(
        self, owner: Owner, ending: Ending
    ) -> None:
        needed = owner.submit(1)
        second = owner.submit(2, after=(needed,))
        third = owner.submit(1, after=(second,))
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), ending)
        finals = owner.changes.finals
        assert [final.ending for final in finals] == [Ending.BLOCKED] * 3
        assert str(needed) in failure_of(finals[0]).message
        ended = {row.number: row.state for row in owner.changes.ended}
        assert ended[second] is ended[third] is JobState.CANCELLED

    def test_a_job_after_a_failed_one_is_cancelled_as_its_tasks_come(self, owner: Owner) -> None:
        needed = owner.submit(1)
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker), Ending.RAISED)
        job = owner.open(after=(needed,)).number
        owner.add(job, 2)
        assert len(owner.changes.finals) == 2
        assert owner.changes.ended == []
        owner.seal(job, 2)
        assert [row.state for row in owner.changes.ended] == [JobState.CANCELLED]

    def test_a_need_of_many_is_enough_to_cancel(self, owner: Owner) -> None:
        good, bad = owner.submit(1), owner.submit(1)
        job = owner.submit(1, after=(good, bad))
        worker = owner.worker()
        first, second = owner.lease(worker)
        owner.finish(worker, [second], Ending.RAISED)
        assert [final.ending for final in owner.changes.finals] == [Ending.BLOCKED]
        owner.finish(worker, [first])
        row = owner.store.job(job)
        assert row is not None
        assert (row.state, row.cancelled) == (JobState.CANCELLED, 1)

    def test_a_need_that_ends_in_the_transaction_that_opens_the_job_counts(
        self, owner: Owner
    ) -> None:
        needed = owner.open().number
        with owner.transaction() as store:
            store.seal_job(needed, 0, owner.now)
            job = store.open_job(owner.uid(), make_spec(after=(needed,)), None, owner.now)
            assert isinstance(job, OpenedJob)
            store.add_tasks(job.number, 0, [b"x"], None, owner.now)
        assert len(owner.lease(owner.worker())) == 1

    def test_waits_survive_a_restart(self, owner: Owner) -> None:
        needed = owner.submit(1)
        owner.submit(1, after=(needed,))
        owner.reopen()
        worker = owner.worker()
        owner.finish(worker, owner.lease(worker))
        assert len(owner.lease(worker)) == 1

    def test_delay_and_key_hold_after_the_wait_for_others(self, owner: Owner) -> None:
        needed = owner.submit(1)
        owner.submit(2, keys=["a", "a"], key_limit=1, after=(needed,))
        later = owner.submit(1, delay_s=50.0, after=(needed,))
        worker = owner.worker()
        lease = owner.lease(worker)
        owner.promote(20.0)
        owner.finish(worker, lease)
        assert leased(owner, worker) == [0]
        assert owner.store.wake_at == owner.now + 30.0
        owner.promote(30.0)
        assert [job_of(lease.task) for lease in owner.lease(worker)] == [later]
