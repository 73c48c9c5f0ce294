"""Claims about how ready tasks meet waiting slots."""

from dataclasses import dataclass, field

import pytest

from multihost.core.ids import job_of, task_id
from multihost.core.job import JobSpec
from multihost.core.resources import Offer, Requirement
from multihost.server import hub as hub_module
from multihost.server.hub import Hub
from multihost.store.base import Changes, Lane, Lease
from multihost.wire.message import Held


@dataclass
class Worker:
    session: int
    slots: int = 2
    room: int = 2
    queues: tuple = ()
    offer: Offer = field(default_factory=lambda: Offer(python="3.11"))
    held: int = 0
    got: list = field(default_factory=list)
    widths: list = field(default_factory=list)

    revoked: list = field(default_factory=list)

    def flush(self):
        pass

    def revoke(self, leases):
        self.revoked += [lease.task for lease in leases]

    def grant(self, message):
        self.got += [grant.task for grant in message.tasks]
        self.widths += [job.width for job in message.jobs]


class Store:
    """Lanes of ready tasks, in order."""

    def __init__(self):
        self.woken = set()
        self._lanes = {}
        self._ready = {}
        self.specs = {}

    def put(self, job, count, queue="default", requires=None, width=None):
        requires = requires or Requirement()
        self.specs[job] = JobSpec(function=b"f", queue=queue, requires=requires, width=width)
        self._lanes[job] = Lane(job, queue, requires)
        self._ready.setdefault(job, []).extend(task_id(job, index) for index in range(count))
        self.woken.add(job)

    def lanes(self):
        return list(self._lanes.values())

    def lease(self, lanes, limit, session, now):
        leases = []
        for lane in sorted(lanes):
            while self._ready[lane] and len(leases) < limit:
                leases.append(Lease(self._ready[lane].pop(0), 1, b"", 1))
        return leases

    def job(self, number):
        return type("Row", (), {"spec": self.specs[number]})


@pytest.fixture
def hub():
    return Hub(lambda job, indices: None)


def leases(tasks):
    return [Held(task, 1) for task in tasks]


def turn(hub, store):
    hub.assign(store, 0.0)
    hub.grant()
    hub.published()
    hub.committed(Changes([], []))


def test_idle_slots_of_every_worker_come_before_tasks_kept_in_hand(hub):
    store, one, two = Store(), Worker(1, room=500), Worker(2, room=500)
    hub.add_taker(one)
    hub.add_taker(two)
    store.put(1, 4)
    turn(hub, store)
    assert (len(one.got), len(two.got)) == (2, 2)


def test_a_worker_gets_no_more_than_it_has_room_for(hub):
    store, worker = Store(), Worker(1, room=3)
    hub.add_taker(worker)
    store.put(1, 10)
    turn(hub, store)
    assert (len(worker.got), worker.room, worker.held) == (3, 0, 3)


def test_a_worker_is_not_given_what_it_can_not_run(hub):
    store, old = Store(), Worker(1, offer=Offer(python="3.9"))
    hub.add_taker(old)
    store.put(1, 2, requires=Requirement(python="3.11"))
    turn(hub, store)
    assert old.got == []
    reason = hub.why_waiting("default", Requirement(python="3.11"), frozenset())
    assert "Python 3.11" in reason
    assert "3.9" in reason


def test_a_worker_serves_only_the_queues_it_names(hub):
    store, worker = Store(), Worker(1, queues=("images",))
    hub.add_taker(worker)
    store.put(1, 2, queue="default")
    store.put(2, 2, queue="images")
    turn(hub, store)
    assert worker.got == [task_id(2, 0), task_id(2, 1)]


def test_a_pool_of_width_two_never_gets_a_third_slot(hub):
    store, one, two = Store(), Worker(1, slots=2, room=9), Worker(2, slots=2, room=9)
    hub.add_taker(one)
    hub.add_taker(two)
    store.put(1, 9, requires=Requirement(context="pool"), width=2)
    turn(hub, store)
    served = [worker for worker in (one, two) if worker.got]
    assert sum(worker.widths[-1] for worker in served) <= 2


def test_a_pool_of_width_one_leaves_a_worker_s_other_slot_to_others(hub):
    # Else tasks that wait for tasks of theirs keep those away from the slot that is free.
    store, worker = Store(), Worker(1, slots=2, room=2)
    hub.add_taker(worker)
    store.put(1, 9, requires=Requirement(context="pool"), width=1)
    turn(hub, store)
    assert (worker.got, worker.room) == ([task_id(1, 0)], 1)
    store.put(2, 9)
    turn(hub, store)
    assert worker.got == [task_id(1, 0), task_id(2, 0)]


def test_a_pool_is_sent_ahead_as_many_tasks_as_its_slots_get_to(hub):
    store, worker = Store(), Worker(1, slots=2, room=20)
    hub.add_taker(worker)
    store.put(1, 99, requires=Requirement(context="pool"), width=1)
    store.put(2, 99)
    turn(hub, store)
    jobs = [job_of(task) for task in worker.got]
    assert (jobs.count(1), jobs.count(2)) == (10, 10)


def test_a_pool_s_slots_are_free_again_when_its_tasks_are_done(hub):
    store, one, two = Store(), Worker(1, room=1, slots=1), Worker(2, room=0, slots=1)
    hub.add_taker(one)
    hub.add_taker(two)
    store.put(1, 2, requires=Requirement(context="pool"), width=1)
    turn(hub, store)
    assert one.got == [task_id(1, 0)]
    two.room = 1
    turn(hub, store)
    assert two.got == []
    hub.let_go(one, 1, leases(one.got))
    turn(hub, store)
    assert two.got == [task_id(1, 1)]


def test_a_pool_s_slots_are_free_again_though_many_jobs_were_opened_since(hub, monkeypatch):
    monkeypatch.setattr(hub_module, "JOB_CACHE", 3)
    store, worker = Store(), Worker(1, room=1, slots=1)
    hub.add_taker(worker)
    store.put(1, 2, requires=Requirement(context="pool"), width=1)
    turn(hub, store)
    for job in range(2, 10):
        hub.remember(job, JobSpec(function=b"f"))
    worker.room = 1
    hub.let_go(worker, 1, leases(worker.got))
    turn(hub, store)
    assert worker.got == [task_id(1, 0), task_id(1, 1)]


def test_a_pool_goes_back_to_the_worker_that_served_it_while_it_has_a_slot_free(hub):
    store, one, two = Store(), Worker(1, room=1, slots=1), Worker(2, room=1, slots=1)
    hub.add_taker(one)
    hub.add_taker(two)
    for job in range(1, 9):
        store.put(job, 1, requires=Requirement(context="pool"), width=1)
        turn(hub, store)
        served = one if one.got else two
        assert served.got[-1:] == [task_id(job, 0)]
        hub.let_go(served, served.session, leases(served.got[-1:]))
        served.room = 1
    other = two if served is one else one
    assert other.got == []
    served.room = 0
    store.put(9, 1, requires=Requirement(context="pool"), width=1)
    turn(hub, store)
    assert other.got == [task_id(9, 0)]


def test_a_rolled_back_transaction_grants_nothing_and_leaves_the_room(hub):
    store, worker = Store(), Worker(1, room=2)
    hub.add_taker(worker)
    store.put(1, 2)
    hub.assign(store, 0.0)
    hub.rolled_back()
    hub.grant()
    hub.committed(Changes([], []))
    assert (worker.got, worker.room, worker.held) == ([], 2, 0)


def test_leases_that_were_sent_are_revoked_when_their_transaction_is_rolled_back(hub):
    store, worker = Store(), Worker(1, room=2)
    hub.add_taker(worker)
    store.put(1, 1)
    hub.assign(store, 0.0)
    hub.grant()
    hub.rolled_back()
    assert worker.got == worker.revoked == [task_id(1, 0)]
    assert worker.held == 0


def test_leases_of_a_transaction_that_was_written_are_not_revoked_with_the_next(hub):
    store, worker = Store(), Worker(1, room=2)
    hub.add_taker(worker)
    store.put(1, 1)
    hub.assign(store, 0.0)
    hub.grant()
    hub.published()
    hub.rolled_back()
    assert worker.revoked == []
    assert worker.held == 1


@pytest.mark.parametrize(
    ("queue", "paused", "expected"),
    [("images", frozenset(), "serves queue 'images'"), ("default", {"default"}, "is paused")],
)
def test_the_hub_says_why_tasks_wait(hub, queue, paused, expected):
    hub.add_taker(Worker(1, queues=("default",)))
    assert expected in hub.why_waiting(queue, Requirement(), frozenset(paused))


def test_with_no_worker_at_all_the_hub_says_how_to_start_one(hub):
    assert "multihost worker" in hub.why_waiting("default", Requirement(), frozenset())


def beside(**requires):
    return Requirement(is_beside=True, **requires)


def test_a_process_is_leased_at_once_though_every_slot_is_busy(hub):
    store = Store()
    worker = Worker(1, slots=1, room=0, held=1, offer=Offer(python="3.11", processes=10))
    hub.add_taker(worker)
    store.put(1, 3, requires=beside())
    turn(hub, store)
    assert len(worker.got) == 3
    assert (worker.room, worker.held) == (0, 1)


def test_processes_are_spread_and_take_no_room_of_tasks(hub):
    store = Store()
    workers = [Worker(n, offer=Offer(python="3.11", processes=10)) for n in (1, 2)]
    for worker in workers:
        hub.add_taker(worker)
    store.put(1, 4, requires=beside())
    store.put(2, 4)
    turn(hub, store)
    assert [len(worker.got) for worker in workers] == [4, 4]
    assert [worker.held for worker in workers] == [2, 2]
    hub.let_go(workers[0], 1, leases(task for task in workers[0].got if job_of(task) == 1))
    assert workers[0].held == 2


def test_a_worker_that_knows_nothing_of_processes_gets_none(hub):
    store, old = Store(), Worker(1)
    hub.add_taker(old)
    store.put(1, 1, requires=beside())
    turn(hub, store)
    assert old.got == []
    assert "runs no processes" in hub.why_waiting("default", beside(), frozenset())


def test_a_process_whose_lease_was_rolled_back_is_leased_again(hub):
    store = Store()
    worker = Worker(1, room=0, offer=Offer(python="3.11", processes=10))
    hub.add_taker(worker)
    store.put(1, 1, requires=beside())
    hub.assign(store, 0.0)
    hub.rolled_back()
    assert worker.room == 0
    assert task_id(1, 0) not in hub.processes
    store.put(1, 1, requires=beside())
    turn(hub, store)
    assert len(worker.got) == 1


def test_an_idle_slot_is_seen_but_not_looked_for_at_every_one_of_many_workers(hub):
    assert hub.has_idle_slot()
    for session in range(1, hub_module.ASKED + 1):
        hub.add_taker(Worker(session, held=2))
    assert not hub.has_idle_slot()
    hub.takers[5].held = 1
    assert hub.has_idle_slot()
    hub.takers[5].held = 2
    hub.add_taker(Worker(1000))
    assert not hub.has_idle_slot()
