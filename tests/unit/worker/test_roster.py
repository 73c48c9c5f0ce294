"""Which work goes into which slot; the slots are fakes, the loop's clock is not needed."""

import asyncio
import signal
from collections import deque

import pytest

from multihost.core.ids import task_id
from multihost.core.job import Context, Style
from multihost.wire import message as m
from multihost.worker import children, feed
from multihost.worker.launch import ChildSetup
from multihost.worker.options import LENT_PER_SLOT
from multihost.worker.roster import Roster
from multihost.worker.work import Work


class FakeSlot:
    """A child that does nothing by itself."""

    def __init__(self, owner, setup):
        self.fed = deque()
        self.tasks = self
        self.context = None
        self.served = 0
        self.run_s = 0.0
        self.is_ready = True
        self.is_asked_back = self.is_retiring = False
        self.waits_since = None
        self.interrupted, self.signals = [], []

    def runs_s(self, now):
        return self.run_s if self.fed else 0.0

    def feed(self, work, function):
        work.slot = self
        self.fed.append(work)
        self.served += 1

    def flush(self):
        pass

    def knows(self, digest):
        return True

    def serve(self, work, paths, initializer):
        assert self.served == 0
        self.context, self.paths = work.context, paths

    def ask_back(self):
        self.is_asked_back = True

    def catch_up(self):
        self.heard()

    def heard(self):
        """What the child has said and nobody has read yet."""

    def interrupt(self, work):
        self.interrupted.append(work)

    def signal(self, number):
        self.signals.append(number)

    def retire(self):
        self.is_retiring = True


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(children, "Slot", FakeSlot)
    loop = asyncio.new_event_loop()

    def make(slots, run_s=None):
        async def within():
            made = Roster(None, slots, None, lambda work, digest: b"")
            made.begin()
            return made

        made = loop.run_until_complete(within())
        if run_s is not None:
            made.pace.note(run_s)
        return made

    yield make
    loop.close()


def work(index=0, *, job=1, context=None, width=None, crew=None, max_tasks=None, **more):
    pool = Context(context, None, max_tasks) if context is not None else None
    info = m.JobInfo(job, Style.CALL, b"digest", context=pool, width=width, pool=crew, **more)
    return Work(m.Grant(task_id(job, index), 1, b""), info, b"")


def test_a_child_that_cannot_be_started_is_started_later(make, monkeypatch):
    def fail(*_):
        raise BlockingIOError("no more processes")

    made, later = make(3), []
    monkeypatch.setattr(made._loop, "call_later", lambda _, call: later.append(call) or call)
    monkeypatch.setattr(children, "Slot", fail)
    made.died(made.children[0])
    assert made.replace(made.children[0]) is None
    assert len(made.children) == 1
    later.pop()()
    assert len(made.children) == 1
    monkeypatch.setattr(children, "Slot", FakeSlot)
    later.pop()()
    assert len(made.children) == 3
    assert not later


def put(made, *works):
    made.backlog.extend(works)
    made.feed()


def loads(made):
    return [len(slot.fed) for slot in made.children]


TINY_S = feed.AHEAD_S / 4
"""So tiny that four are kept in hand beyond the one that runs."""


def test_idle_slots_come_first_and_nothing_is_fed_ahead_before_tasks_are_known_to_be_tiny(make):
    made = make(3)
    put(made, *map(work, range(5)))
    assert loads(made) == [1, 1, 1]
    assert len(made.backlog) == 2


def test_tiny_tasks_are_fed_ahead_evenly_and_no_more_than_the_pace_says(make):
    made = make(2, TINY_S)
    put(made, *map(work, range(20)))
    assert loads(made) == [5, 5]
    assert len(made.backlog) == 10


def test_a_job_without_a_slot_is_looked_at_once_however_many_of_its_works_wait(make, monkeypatch):
    made = make(2)
    first = work(0, width=1, crew="p")
    others = [Work(m.Grant(task_id(1, n), 1, b""), first.job, b"") for n in range(1, 50)]
    put(made, first)
    asked = []
    choose = made._slot_for
    monkeypatch.setattr(made, "_slot_for", lambda *args: asked.append(args) or choose(*args))
    put(made, *others)
    assert list(made.backlog) == others
    assert len(asked) == 1
    put(made, another := work(0, job=2))
    assert made.children[1].fed[0] is another
    assert list(made.backlog) == others


def test_works_keep_their_order(make):
    made = make(1, TINY_S)
    put(made, *(works := [work(n) for n in range(8)]))
    assert [*made.children[0].fed, *made.backlog] == works


def test_a_task_with_a_timeout_is_never_fed_behind_another(make):
    made = make(1, TINY_S)
    put(made, work(0), work(1, timeout_s=1.0))
    assert loads(made) == [1]


def waits(made, slot):
    slot.waits_since = 1.0
    return made.lend(slot)


def goes_on(made, slot):
    slot.waits_since = None
    made.take_back(slot)


def test_a_task_that_waits_for_others_lends_its_slot(make):
    made = make(1)
    put(made, work(0), work(1), work(2))
    assert waits(made, made.children[0])
    made.feed()
    assert loads(made) == [1, 1]
    assert len(made.backlog) == 1


def test_no_child_is_started_for_a_lent_slot_while_another_is_idle(make):
    made = make(2)
    put(made, work(0))
    assert waits(made, made.children[0])
    assert loads(made) == [1, 0]
    put(made, work(1))
    made.fill_lent()
    assert loads(made) == [1, 1, 0]


def test_a_slot_that_is_taken_back_costs_an_idle_child_or_the_next_that_is_idle(make):
    made = make(1)
    put(made, work(0))
    (first,) = made.children
    waits(made, first)
    spare = made.children[1]
    goes_on(made, first)
    assert made.children == [first]
    waits(made, first)
    put(made, work(1), work(2))
    second = made.children[1]
    assert second is spare
    goes_on(made, first)
    assert made.children == [first, second]
    first.fed.clear()
    made.feed()
    assert not first.fed
    second.fed.clear()
    made.trim()
    made.feed()
    assert len(made.children) == 1
    assert loads(made) == [1]


def test_so_many_may_lend_at_once_and_no_more(make):
    made = make(1)
    for number in range(LENT_PER_SLOT + 1):
        put(made, work(number))
        lent = waits(made, made.children[-1])
    assert not lent
    assert len(made.children) == LENT_PER_SLOT + 1


def test_with_slots_lent_tasks_are_here_ahead_of_need_only_while_what_was_waited_for_runs(make):
    made = make(1, TINY_S)
    put(made, work(0))
    assert made.may_hurry
    waits(made, made.children[0])
    assert not made.may_hurry
    put(made, nested := work(0, job=2, priority=1))
    assert nested.slot is made.children[1]
    assert made.may_hurry
    goes_on(made, made.children[0])
    assert not made.may_hurry


def test_a_slot_that_died_lends_no_more(make):
    made = make(1)
    put(made, work(0))
    (first,) = made.children
    waits(made, first)
    first.fed.clear()
    made.died(first)
    assert made.width == 1
    assert len(made.children) == 1


def test_nothing_is_fed_ahead_to_a_slot_whose_task_waits(make):
    made = make(2, TINY_S)
    put(made, work(0))
    made.children[0].waits_since = 1.0
    put(made, *(work(n) for n in range(1, 20)))
    assert loads(made) == [1, 5]


def test_a_child_that_was_asked_back_is_neither_fed_nor_replaced_before_it_has_answered(make):
    made = make(1, TINY_S)
    (slot,) = made.children
    slot.ask_back()
    put(made, work(0))
    assert (made.children, len(made.backlog)) == ([slot], 1)
    slot.is_asked_back = False
    made.feed()
    assert loads(made) == [1]


def test_a_child_that_served_a_pool_serves_no_other_and_nothing_else(make):
    made = make(1)
    put(made, work(0, context="a"))
    (first,) = made.children
    first.fed.clear()
    put(made, work(1, context="a"))
    assert made.children == [first]
    first.fed.clear()
    put(made, work(2, job=2, context="b"))
    (second,) = made.children
    assert (first.is_retiring, second.context) == (True, "b")
    second.fed.clear()
    put(made, work(3, job=3))
    assert made.children != [second]
    assert made.children[0].context is None


def test_a_child_that_ran_plain_tasks_is_not_used_for_a_pool(make):
    made = make(1)
    put(made, work(0))
    (first,) = made.children
    first.fed.clear()
    put(made, work(1, job=2, context="a"))
    assert first.is_retiring
    assert made.children[0].context == "a"


def test_a_pool_has_no_more_slots_than_its_width_and_others_get_the_rest(make):
    made = make(3)
    pool = [work(n, job=job, width=1, crew="p") for n in range(2) for job in (1, 2)]
    put(made, *pool, work(0, job=3), work(1, job=3))
    running = [slot.fed[0].job.number for slot in made.children if slot.fed]
    assert sorted(running) == [1, 3, 3]
    assert [*made.backlog] == pool[1:]


def test_a_pool_s_task_that_was_fed_behind_another_counts_for_its_width(make):
    made = make(2, TINY_S)
    put(made, work(0, width=1, crew="p"), work(1, width=1, crew="p"))
    assert loads(made) == [2, 0]
    (slot, _) = made.children
    slot.fed.rotate()
    slot.fed.appendleft(work(0, job=2))
    put(made, work(2, job=3, width=1, crew="p"))
    assert loads(made) == [4, 0]


def test_a_child_at_its_last_task_holds_its_slot_to_the_end(make):
    made = make(1)
    put(made, work(0, context="a", max_tasks=1), work(1, context="a", max_tasks=1))
    assert [len(slot.fed) for slot in made._everyone()].count(1) == 1
    assert len(made.backlog) == 1


def test_what_is_stuck_behind_a_long_task_is_asked_back_and_the_pace_slows_down(make):
    made = make(2, TINY_S)
    put(made, *map(work, range(6)))
    made.children[0].run_s = feed.STUCK_S * 1.1
    assert made.look() == []
    assert [slot.is_asked_back for slot in made.children] == [True, False]
    assert made.pace.ahead == 0


def test_what_nobody_gets_to_soon_is_given_up(make):
    made = make(2)
    put(made, *(works := [work(n) for n in range(5)]))
    made.children[0].run_s = made.children[1].run_s = feed.HOARD_S / 2
    assert made.look() == []
    made.children[0].run_s = feed.HOARD_S * 2
    assert made.look() == []
    made.children[1].run_s = feed.HOARD_S * 2
    assert made.look() == works[2:]


def test_a_far_server_has_to_be_asked_earlier_and_gets_nothing_back_sooner():
    pace = feed.Pace()
    pace.note(0.05)
    assert (pace.ahead, pace.fetched) == (0, 0)
    pace.round_trip_s = 0.4
    assert (pace.ahead, pace.fetched) == (0, 16)
    assert pace.hoard_s > 2 * pace.round_trip_s


def test_ending_a_work_interrupts_it_if_it_runs_and_takes_it_back_if_it_does_not(make):
    made = make(1, TINY_S)
    running, behind = work(0), work(1)
    put(made, running, behind)
    (slot,) = made.children
    made.end(behind)
    assert (slot.interrupted, slot.is_asked_back) == ([], True)
    made.end(running)
    assert slot.interrupted == [running]


def test_who_insists_signals_only_while_the_same_work_runs(make):
    made = make(1)
    put(made, first := work(0))
    (slot,) = made.children
    made._insist(slot, first, signal.SIGTERM)
    slot.fed.clear()
    put(made, work(1))
    made._insist(slot, first, signal.SIGKILL)
    assert slot.signals == [signal.SIGTERM]


def test_children_that_die_before_they_have_done_anything_are_not_replaced_in_a_rush(make):
    made = make(1)
    for _ in range(children.QUICK_RESPAWNS):
        made.died(made.children[0])
        assert len(made.children) == 1
    made.died(made.children[0])
    assert made.children == []
    made.fill()
    assert len(made.children) == 1


def test_of_too_many_children_the_idle_ones_go(make):
    made = make(3)
    put(made, work(0))
    (busy,) = (slot for slot in made.children if slot.fed)
    made.resize(1)
    assert made.children == [busy]
    made.resize(2)
    assert len(made.children) == 2


def test_closing_kills_every_child_and_starts_no_other(make):
    made = make(2)
    put(made, work(0, context="a", max_tasks=1))
    everyone = made._everyone()
    made.close()
    assert all(slot.signals == [signal.SIGKILL] for slot in everyone)
    for slot in everyone:
        made.died(slot)
    made.fill()
    assert made._everyone() == []


def test_a_child_that_is_given_away_has_served_nobody(make):
    roster = make(2)
    roster._setup = ChildSetup()
    busy, fresh = roster.children
    roster.backlog.append(work())
    roster.feed()
    assert busy.fed
    assert roster.give_away() is fresh
    assert roster.children == [busy]
    another = roster.give_away()
    assert another not in (busy, fresh)
    assert roster.children == [busy]


def test_children_given_away_are_killed_with_the_others(make):
    roster = make(1)
    roster._setup = ChildSetup()
    given = roster.give_away()
    roster.close()
    assert given.signals == [signal.SIGKILL]
    assert not roster._emptied.done()
    roster.died(given)
    assert roster._emptied.done()


def shipping(index, ship, *, job=1):
    info = m.JobInfo(job, Style.CALL, b"digest", ship=ship)
    return Work(m.Grant(task_id(job, index), 1, b""), info, b"")


def test_jobs_that_ship_different_code_share_no_child(make):
    made = make(2, run_s=0.00001)
    made._find_shipped = lambda work: [work.job.ship[0].decode()]
    put(
        made,
        *(shipping(n, (b"old",)) for n in range(2)),
        *(shipping(n, (b"new",), job=2) for n in range(2)),
    )
    by_code = {slot.paths[0]: [work.job.number for work in slot.fed] for slot in made.children}
    assert by_code == {"old": [1, 1], "new": [2, 2]} or by_code.keys() == {"old"}


def test_a_child_that_has_served_others_is_replaced_for_shipped_code(make):
    made = make(1)
    made._find_shipped = lambda work: ["code"]
    plain = work()
    put(made, plain)
    (warm,) = made.children
    warm.fed.clear()
    put(made, shipping(1, (b"new",)))
    (fresh,) = made.children
    assert fresh is not warm
    assert warm.is_retiring
    assert fresh.paths == ["code"]


def test_work_waits_outside_the_backlog_until_its_code_is_unpacked(make):
    made = make(1)
    made._find_shipped = lambda work: None
    put(made, shipping(0, (b"new",)))
    assert not made.backlog
    assert not made.children[0].fed


def test_a_child_whose_work_ended_unheard_is_left_for_the_next(make):
    roster = make(1)
    (slot,) = roster.children
    unwanted = work()
    put(roster, unwanted)
    slot.heard = slot.fed.clear
    roster._insist(slot, unwanted, signal.SIGTERM)
    assert slot.signals == []
