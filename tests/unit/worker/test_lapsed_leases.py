"""Leases that could not be renewed: what runs under them ends, and who is told of it."""

import asyncio

import pytest

from multihost.core.ids import task_id
from multihost.core.job import Style
from multihost.core.lease import LEASE_S
from multihost.runtime import clock
from multihost.wire import message as m
from multihost.worker.leases import Leases
from multihost.worker.work import Work


class Line:
    """A connection on which nothing was heard for as long as a lease lasts."""

    welcome = None

    def __init__(self):
        self.renewed_at = clock.mono() - LEASE_S
        self.drops = 0

    def drop(self, reason):
        self.drops += 1


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def stopped():
    return []


@pytest.fixture
def leases(line, stopped):
    async def within():
        return Leases(line, None, stop=stopped.append, withdraw=lambda work: None)

    loop = asyncio.new_event_loop()
    yield loop.run_until_complete(within())
    loop.close()


def leased(leases, style, slot):
    work = Work(m.Grant(task_id(1, len(leases.works)), 1, b""), m.JobInfo(1, style), b"", slot)
    leases.works[work.grant.task] = work
    return work


def test_what_runs_is_stopped_and_what_waits_is_forgotten(leases, line, stopped):
    running = leased(leases, Style.CALL, "a child")
    leased(leases, Style.CALL, None)
    leases.check()
    assert stopped == [running]
    assert leases.kept == []
    assert line.drops == 1


def test_a_process_that_began_is_held_until_it_has_ended(leases, line, stopped):
    began = leased(leases, Style.PROCESS, "a child")
    leased(leases, Style.PROCESS, None)
    leases.check()
    assert stopped == [began]
    assert leases.kept == [began], "else it would be begun again"
    leases.check()
    assert stopped == [began]
    assert line.drops == 1


def test_a_process_of_another_store_is_forgotten(leases, stopped):
    began = leased(leases, Style.PROCESS, "a child")
    leases.lose()
    assert stopped == [began]
    assert leases.kept == []
