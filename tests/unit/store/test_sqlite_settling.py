"""Big cancels and releases go on a little at a time, over restarts, and nobody is misled."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from multihost.core.ids import index_of, job_of
from multihost.core.outcome import Ending
from multihost.core.state import JobState, TaskState
from multihost.store.base import Final
from multihost.store.sqlite import open_store, prune, settling
from multihost.testing.owner import Owner
from multihost.wire.message import Held


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    monkeypatch.setattr(settling, "SETTLED_ROWS", 3)
    owner = Owner(lambda: open_store(tmp_path / "store"))
    yield owner
    owner.close()


def cancel(owner: Owner, job: int) -> list[Final]:
    return owner.do("cancel", job, None, only_queued=False, now=owner.now).finals


def settle(owner: Owner) -> list[Final]:
    """What happens until nothing is left to do at once."""
    finals: list[Final] = []
    while owner.store.wake_at == 0.0:
        finals += owner.promote().finals
    assert owner.store.wake_at is None
    return finals


def jobs_of(leases) -> list[int]:
    return [job_of(lease.task) for lease in leases]


def test_a_big_job_is_cancelled_a_little_at_a_time(owner: Owner) -> None:
    job = owner.submit(10)
    worker = owner.worker()
    running = owner.lease(worker, 2)
    finals = cancel(owner, job)
    assert [index_of(final.task) for final in finals] == [0, 1, 2, 3, 4]
    assert owner.finish(worker, running).finals == []
    assert owner.store.job(job).state is JobState.OPEN
    rest = settle(owner)
    assert [index_of(final.task) for final in rest] == [5, 6, 7, 8, 9]
    assert {final.ending for final in finals + rest} == {Ending.CANCELLED}
    assert [row.state for row in owner.changes.ended] == [JobState.CANCELLED]
    assert owner.store.job(job).cancelled == 10


def test_what_waits_to_be_cancelled_is_not_leased_and_hides_nobody(owner: Owner) -> None:
    job = owner.submit(20)
    other = owner.submit(2)
    worker = owner.worker()
    cancel(owner, job)
    assert jobs_of(owner.lease(worker, 5)) == [other, other]
    settle(owner)
    assert owner.lease(worker) == []


def test_a_restart_goes_on_with_it(owner: Owner) -> None:
    job = owner.submit(10)
    cancel(owner, job)
    owner.reopen()
    assert owner.store.wake_at == 0.0
    assert owner.lease(owner.worker()) == []
    settle(owner)
    assert owner.store.job(job).state is JobState.CANCELLED


def test_a_rollback_takes_it_back(owner: Owner) -> None:
    job = owner.submit(10)
    owner.store.begin()
    owner.store.cancel(job, None, only_queued=False, now=owner.now)
    owner.store.rollback()
    assert owner.store.wake_at is None
    assert len(owner.lease(owner.worker())) == 10


def test_several_are_settled_one_after_the_other(owner: Owner) -> None:
    jobs = [owner.submit(5) for _ in range(4)]
    finals = [final for job in jobs for final in cancel(owner, job)]
    finals += settle(owner)
    assert sorted(final.task for final in finals) == [
        task.task for job in jobs for task in owner.store.tasks(job)
    ]
    assert all(owner.store.job(job).state is JobState.CANCELLED for job in jobs)


def test_dependents_are_let_go_a_little_at_a_time(owner: Owner) -> None:
    needed = owner.submit(1)
    job = owner.submit(8, after=(needed,))
    later = owner.submit(1, after=(needed,), delay_s=5.0)
    worker = owner.worker()
    owner.finish(worker, owner.lease(worker))
    assert len(owner.store.tasks(job, state=TaskState.QUEUED)) == 3
    owner.reopen()
    while owner.store.wake_at == 0.0:
        owner.promote()
    assert jobs_of(owner.lease(worker)) == [job] * 8
    owner.promote(5.0)
    assert jobs_of(owner.lease(worker)) == [later]


def test_dependents_of_a_failure_are_given_up_whenever_they_come(owner: Owner) -> None:
    needed = owner.submit(1)
    job = owner.open(after=(needed,)).number
    owner.add(job, 6, first=2)
    worker = owner.worker()
    owner.finish(worker, owner.lease(worker), Ending.RAISED)
    finals = list(owner.changes.finals)
    assert len(finals) == 3
    # These come before the place that was reached, and after it.
    owner.add(job, 2)
    finals += owner.changes.finals
    owner.add(job, 2, first=8)
    finals += owner.changes.finals
    while owner.store.wake_at == 0.0:
        finals += owner.promote().finals
        finals += owner.changes.finals
    assert [index_of(final.task) for final in sorted(finals)] == list(range(10))
    assert {final.ending for final in finals} == {Ending.BLOCKED}
    owner.seal(job, 10)
    assert owner.store.job(job).state is JobState.CANCELLED


def test_a_cancel_overtakes_a_release(owner: Owner) -> None:
    needed = owner.submit(1)
    job = owner.submit(9, after=(needed,))
    worker = owner.worker()
    owner.finish(worker, owner.lease(worker))
    leases = owner.lease(worker)
    assert len(leases) == 3
    finals = cancel(owner, job) + settle(owner)
    assert sorted(index_of(final.task) for final in finals) == list(range(9))
    assert owner.finish(worker, leases).stale == [Held(x.task, x.token) for x in leases]


def test_a_need_that_ends_changes_nothing_for_a_cancelled_job(owner: Owner) -> None:
    needed = owner.submit(1)
    job = owner.submit(9, after=(needed,))
    cancel(owner, job)
    worker = owner.worker()
    owner.finish(worker, owner.lease(worker))
    settle(owner)
    assert owner.lease(worker) == []
    assert owner.store.job(job).cancelled == 9


def test_a_retry_of_the_whole_job_calls_the_cancel_off(owner: Owner) -> None:
    job = owner.submit(10)
    cancel(owner, job)
    owner.store.woken.clear()
    assert owner.do("retry", job, None, owner.now) == 3
    assert owner.store.woken
    owner.promote()
    assert owner.store.wake_at is None
    assert len(owner.lease(owner.worker())) == 10


def test_a_retry_of_what_was_cancelled_is_not_cancelled_again(owner: Owner) -> None:
    job = owner.submit(10)
    cancel(owner, job)
    owner.do("retry", job, [1], owner.now)
    settle(owner)
    assert [index_of(lease.task) for lease in owner.lease(owner.worker())] == [1]


def test_a_clients_many_tasks_go_a_little_at_a_time_too(owner: Owner) -> None:
    client = owner.client()
    jobs = [owner.submit(5, owner=client, is_transient=True) for _ in range(3)]
    finals = owner.do("disown", client, owner.now).finals
    finals += settle(owner)
    assert len(finals) == 15
    assert all(owner.store.job(job).state is JobState.CANCELLED for job in jobs)


def test_many_outcomes_are_taken_a_little_at_a_time(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "TAKEN_ROWS", 4)
    job = owner.submit(10, owner=owner.client(), is_transient=True)
    worker = owner.worker()
    owner.finish(worker, owner.lease(worker))
    assert [owner.do("take", job, 10) for _ in range(4)] == [4, 4, 2, 0]
    assert owner.store.tasks(job) == []
