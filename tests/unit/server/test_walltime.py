"""Claims about a wall clock that somebody sets while tasks wait for a time."""

import pytest

from multihost.server import walltime
from multihost.server.walltime import WallTime

NOON = 1_800_000_000.0


class Clock:
    """Two clocks, of which one can be set."""

    def __init__(self):
        self.passed_s = 0.0
        self.set_s = 0.0

    def mono(self):
        return self.passed_s

    def wall(self):
        return NOON + self.passed_s + self.set_s


class Store:
    def __init__(self):
        self.turned_back = []

    def turn_back(self, by_s):
        self.turned_back.append(by_s)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(walltime, "clock", clock)
    return clock


@pytest.fixture
def store():
    return Store()


def test_a_clock_that_is_set_back_takes_what_waits_with_it_once(clock, store):
    time = WallTime()
    clock.passed_s, clock.set_s = 10.0, -3600.0
    assert time.read(store) == NOON - 3590.0
    time.keep()
    clock.passed_s = 20.0
    assert time.read(store) == NOON - 3580.0
    assert store.turned_back == [3600.0]


def test_a_transaction_that_was_undone_is_followed_by_one_that_moves_all_again(clock, store):
    time = WallTime()
    clock.set_s = -3600.0
    time.read(store)
    time.undo()
    time.read(store)
    assert store.turned_back == [3600.0, 3600.0]


def test_several_batches_of_one_transaction_move_all_once(clock, store):
    time = WallTime()
    clock.set_s = -3600.0
    time.read(store)
    time.read(store)
    assert store.turned_back == [3600.0]


@pytest.mark.parametrize("set_s", [3600.0, -1.0])
def test_neither_a_step_forward_nor_a_small_one_moves_anything(clock, store, set_s):
    time = WallTime()
    clock.set_s = set_s
    assert time.read(store) == NOON + set_s
    assert store.turned_back == []


def test_it_is_told_that_the_clock_was_set_back(clock, store, caplog):
    time = WallTime()
    clock.set_s = -3600.0
    time.read(store)
    assert "this machine's clock was set back by 3600 s" in caplog.text
