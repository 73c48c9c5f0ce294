"""Leases: best first, under tokens that only rise, and back without a fault."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

from multihost.core.ids import index_of, job_of
from multihost.core.resources import Requirement
from multihost.core.state import TaskState
from multihost.testing.owner import Owner
from multihost.wire.message import Blob, Held, Role


def indices(leases: list) -> list[int]:  # type: ignore[type-arg]
    """Indices of the leased tasks, in the order they were handed out."""
    return [index_of(lease.task) for lease in leases]


class LeaseTests:
    """Lease, release, reinstate."""

    def test_leased_tasks_run_and_are_not_leased_again(self, owner: Owner) -> None:
        job = owner.submit([b"small", b"big" * 1000])
        worker = owner.worker()
        leases = owner.lease(worker)
        assert [(lease.payload, lease.attempt) for lease in leases] == [
            (b"small", 1),
            (b"big" * 1000, 1),
        ]
        assert owner.lease(worker) == []
        row = owner.store.job(job)
        assert row is not None
        assert (row.queued, row.running) == (0, 2)
        task = owner.store.task(leases[0].task)
        assert task is not None
        assert (task.state, task.session) == (TaskState.RUNNING, worker)

    def test_a_payload_may_be_a_blob(self, owner: Owner) -> None:
        blob = Blob(b"d" * 32, 100_000)
        owner.do("put_blob", blob, None, owner.now)
        owner.submit([blob])
        assert owner.lease(owner.worker())[0].payload == blob

    def test_first_come_first_served_over_all_jobs(self, owner: Owner) -> None:
        first = owner.open().number
        second = owner.open().number
        owner.add(second, 2)
        owner.add(first, 2)
        owner.add(second, 1, first=2)
        jobs = [job_of(lease.task) for lease in owner.lease(owner.worker())]
        assert jobs == [second, second, first, first, second]

    def test_the_larger_priority_goes_first(self, owner: Owner) -> None:
        jobs = [owner.submit(1, priority=priority) for priority in (0, 5, -5, 5)]
        worker = owner.worker()
        order = [job_of(owner.lease(worker, 1)[0].task) for _ in range(4)]
        assert order == [jobs[1], jobs[3], jobs[0], jobs[2]]

    def test_best_first_holds_across_lanes(self, owner: Owner) -> None:
        lanes = [Requirement(), Requirement(host="a"), Requirement(tags=("gpu",))]
        jobs = [
            owner.submit(2, requires=lanes[n % 3], priority=priority)
            for n, priority in enumerate((0, 1, 0, 1, 0, 2))
        ]
        worker = owner.worker()
        leased = [job_of(lease.task) for lease in owner.lease(worker, 3)]
        leased += [job_of(lease.task) for lease in owner.lease(worker)]
        assert leased == [jobs[n] for n in (5, 5, 1, 1, 3, 3, 0, 0, 2, 2, 4, 4)]

    def test_only_the_lanes_that_were_named_are_leased_from(self, owner: Owner) -> None:
        owner.submit(1, queue="a")
        job = owner.submit(1, queue="b")
        assert [job_of(x.task) for x in owner.lease(owner.worker(), queue="b")] == [job]
        assert owner.do("lease", [], 10, 1, owner.now) == []
        assert owner.do("lease", [12345], 10, 1, owner.now) == []

    def test_jobs_with_the_same_requirements_share_a_lane(self, owner: Owner) -> None:
        for _ in range(2):
            owner.open(requires=Requirement(tags=("x",)))
            owner.open(queue="other", requires=Requirement(tags=("x",)))
        found = {(lane.queue, lane.requires) for lane in owner.store.lanes()}
        assert len(owner.store.lanes()) == 2
        assert found == {
            ("default", Requirement(tags=("x",))),
            ("other", Requirement(tags=("x",))),
        }

    def test_no_more_than_the_limit_is_leased(self, owner: Owner) -> None:
        owner.submit(5)
        worker = owner.worker()
        assert indices(owner.lease(worker, 2)) == [0, 1]
        assert owner.lease(worker, 0) == []
        assert indices(owner.lease(worker, 9)) == [2, 3, 4]

    def test_tokens_rise_for_ever(self, owner: Owner) -> None:
        owner.submit(3)
        worker = owner.worker()
        tokens = [lease.token for lease in owner.lease(worker, 2)]
        owner.do("lose", worker, owner.now)
        tokens += [lease.token for lease in owner.lease(worker)]
        owner.do("lose", worker, owner.now)
        epoch = owner.store.epoch
        owner.reopen()
        assert owner.store.epoch > epoch
        tokens += [lease.token for lease in owner.lease(worker)]
        assert tokens == sorted(set(tokens))

    def test_a_token_of_a_rolled_back_lease_is_never_granted_again(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        owner.store.begin()
        lost = owner.store.lease(owner.lanes(), 1, worker, owner.now)
        owner.store.rollback()
        assert owner.lease(worker)[0].token > lost[0].token

    def test_released_tasks_run_again_without_a_fault(self, owner: Owner) -> None:
        owner.submit(3)
        worker = owner.worker()
        leases = owner.lease(worker)
        held = [Held(lease.task, lease.token) for lease in leases[1:]]
        assert owner.do("release", worker, held, owner.now) == held
        again = owner.lease(worker)
        assert [(index_of(lease.task), lease.attempt) for lease in again] == [(1, 1), (2, 1)]

    def test_what_is_released_keeps_its_place_in_the_line(self, owner: Owner) -> None:
        owner.submit(3)
        worker = owner.worker()
        first = owner.lease(worker, 1)[0]
        owner.do("release", worker, [Held(first.task, first.token)], owner.now)
        assert indices(owner.lease(worker)) == [0, 1, 2]

    def test_a_stale_release_changes_nothing(self, owner: Owner) -> None:
        owner.submit(1)
        worker = owner.worker()
        old = owner.lease(worker)[0]
        owner.do("lose", worker, owner.now)
        new = owner.lease(worker)[0]
        stale = [Held(old.task, old.token), Held(new.task, new.token + 1), Held(77 << 32, 1)]
        assert owner.do("release", worker, stale, owner.now) == []
        assert owner.lease(worker) == []

    def test_a_returning_worker_keeps_what_the_book_says_it_holds(self, owner: Owner) -> None:
        owner.submit(4)
        worker, other = owner.worker(), owner.worker("w-2")
        kept, never_got, other_s = (
            owner.lease(worker, 1)[0],
            owner.lease(worker, 1)[0],
            owner.lease(other, 1)[0],
        )
        believed = [
            Held(kept.task, kept.token),
            Held(kept.task, kept.token - 1),
            Held(other_s.task, other_s.token),
        ]
        result = owner.do("reinstate", worker, believed, owner.now)
        assert result.stale == believed[1:]
        assert len(result.released) == 1
        assert indices(owner.lease(other)) == [index_of(never_got.task), 3]
        assert owner.finish(worker, [kept]).stale == []

    def test_leases_survive_a_restart(self, owner: Owner) -> None:
        owner.submit(2)
        worker = owner.worker()
        leases = owner.lease(worker)
        owner.reopen()
        assert owner.lease(worker) == []
        held = [Held(lease.task, lease.token) for lease in leases]
        result = owner.do("reinstate", worker, held, owner.now)
        assert (result.stale, result.released) == ([], [])
        assert len(owner.finish(worker, leases).finals) == 2

    def test_a_session_shows_how_much_it_runs(self, owner: Owner) -> None:
        owner.submit(3)
        worker = owner.worker()
        owner.lease(worker, 2)
        assert [row.running for row in owner.store.sessions(Role.WORKER)] == [2]

    def test_a_paused_queue_hands_out_nothing(self, owner: Owner) -> None:
        owner.submit(1, queue="a")
        job = owner.submit(1, queue="b")
        worker = owner.worker()
        owner.do("set_queue", "a", is_paused=True, limit=None)
        assert owner.store.paused_queues() == {"a"}
        owner.reopen()
        assert owner.store.paused_queues() == {"a"}
        assert [job_of(lease.task) for lease in owner.lease(worker)] == [job]
        owner.store.woken.clear()
        owner.do("set_queue", "a", is_paused=False, limit=None)
        assert owner.store.woken >= set(owner.lanes("a"))
        assert len(owner.lease(worker)) == 1

    def test_a_lane_is_woken_whenever_a_task_in_it_becomes_ready(self, owner: Owner) -> None:
        worker = owner.worker()
        woken = owner.store.woken
        job = owner.submit(2)
        assert woken >= set(owner.lanes())
        leases = owner.lease(worker)
        woken.clear()
        owner.do("release", worker, [Held(leases[0].task, leases[0].token)], owner.now)
        assert woken == set(owner.lanes())
        woken.clear()
        owner.do("lose", worker, owner.now)
        assert woken == set(owner.lanes())
        owner.do("cancel", job, [0], only_queued=False, now=owner.now)
        woken.clear()
        owner.do("retry", job, [0], owner.now)
        assert woken == set(owner.lanes())
        owner.reopen()
        assert owner.store.woken == set(owner.lanes())
