"""Processes beside the slots: which child they get, and what bounds them."""

import asyncio
import os

import pytest

from multihost.core.ids import task_id
from multihost.core.job import Style
from multihost.core.outcome import Ending
from multihost.wire import message as m
from multihost.worker import launch as launch_module
from multihost.worker.launch import ChildSetup
from multihost.worker.processes import Processes
from multihost.worker.slot import Death, Slot
from multihost.worker.work import Work

DEATH = Death(0, 0, 0.0)


class FakeSlot:
    """A child that does nothing."""

    def __init__(self):
        self.fed, self.signals = [], []
        self.tasks = self

    def feed(self, work, function):
        self.fed.append((work, function))

    def flush(self):
        pass

    def signal_alone(self, number):
        self.signals.append(number)


class FakeRoster:
    """Gives away children as long as the system has any."""

    def __init__(self):
        self.error = None

    def give_away(self):
        if self.error is not None:
            raise self.error
        return FakeSlot()


@pytest.fixture
def roster():
    return FakeRoster()


class FakeLeases:
    """Looks at no tokens."""

    def __init__(self):
        self.works = {}

    def find(self, task, token):
        return self.works.get(task)


class FakeOutcomes:
    """Takes down who failed why, and who exited how."""

    def __init__(self):
        self.failures, self.deaths = [], []

    def fail(self, work, failure):
        self.failures.append(failure)

    def exited(self, slot, work, death):
        self.deaths.append((slot, work, death))


@pytest.fixture
def outcomes():
    return FakeOutcomes()


@pytest.fixture
def leases():
    return FakeLeases()


@pytest.fixture
def processes(roster, leases, outcomes):
    loop = asyncio.new_event_loop()

    async def within():
        nothing = lambda *_: None  # noqa: E731
        return Processes(roster, leases, outcomes, limit=2, began=nothing, again=nothing)

    yield loop.run_until_complete(within())
    loop.close()


def work(index=0, style=Style.PROCESS):
    return Work(m.Grant(task_id(1, index), 1, b""), m.JobInfo(1, style), b"")


def test_only_works_of_their_style_are_processes():
    assert work().is_process
    assert not work(style=Style.COMMAND).is_process


def slot_of(processes, work):
    return dict(processes.works)[work]


def test_a_process_gets_a_child_of_its_own_until_that_is_gone(processes, leases, outcomes):
    mine = work()
    leases.works[mine.grant.task] = mine
    processes.start(mine)
    slot = slot_of(processes, mine)
    assert slot.fed == [(mine, None)]
    assert (len(processes), list(processes.works)) == (1, [(mine, slot)])
    processes.signal(*mine.lease, 15)
    assert slot.signals == [15]
    processes.died(slot, mine, DEATH)
    processes.signal(*mine.lease, 9)
    assert (len(processes), slot.signals) == (0, [15])
    assert outcomes.deaths == [(slot, mine, DEATH)]


def test_beyond_the_limit_none_is_started_and_the_reason_says_what_to_do(processes, outcomes):
    first = work(0)
    processes.start(first)
    processes.start(work(1))
    processes.start(work(2))
    (failure,) = outcomes.failures
    assert (failure.ending, failure.type_name) == (Ending.UNRUNNABLE, "LimitExceeded")
    assert "2 processes beside its slots" in failure.message
    assert "--processes" in failure.message
    processes.died(slot_of(processes, first), first, DEATH)
    another = work(3)
    processes.start(another)
    assert isinstance(slot_of(processes, another), FakeSlot)


def test_what_the_system_refuses_is_the_tasks_failure_not_the_workers(processes, roster, outcomes):
    roster.error = BlockingIOError(11, "Resource temporarily unavailable")
    processes.start(work())
    (failure,) = outcomes.failures
    assert (failure.ending, failure.type_name) == (Ending.UNRUNNABLE, "BlockingIOError")
    assert "can't start a process" in failure.message
    assert len(processes) == 0


@pytest.mark.parametrize("at", range(7))
def test_a_child_that_can_not_be_started_leaves_no_descriptor(monkeypatch, at):
    made, real = [], os.pipe

    def pipe():
        if len(made) == at:
            raise OSError(24, "Too many open files")
        made.append(real())
        return made[-1]

    def refuse(*args, **kwargs):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async def start():
        monkeypatch.setattr(os, "pipe", pipe)
        monkeypatch.setattr(launch_module.subprocess, "Popen", refuse)
        with pytest.raises(OSError, match=r"Too many open files|temporarily"):
            Slot(None, ChildSetup())

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    monkeypatch.undo()
    loop.close()
    assert len(made) == min(at, 6)
    for descriptor in [each for both in made for each in both]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
