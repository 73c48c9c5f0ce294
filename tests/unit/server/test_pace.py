"""Claims about how much is deleted at once."""

from multihost.runtime import clock
from multihost.server.pace import LEAST_ROWS, MOST_ROWS, STALL_S, Pace


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(clock, "mono", lambda: self.now)

    def delete(self, pace, took_s):
        rows = pace.begin()
        self.now += took_s
        pace.end()
        return rows


def test_rows_that_take_long_are_deleted_a_few_at_a_time(monkeypatch):
    time, pace = Clock(monkeypatch), Pace()
    assert time.delete(pace, 10 * STALL_S) == MOST_ROWS
    assert time.delete(pace, 10 * STALL_S) == MOST_ROWS // 2
    for _ in range(20):
        time.delete(pace, 10 * STALL_S)
    assert pace.rows == LEAST_ROWS


def test_quick_ones_are_soon_deleted_many_at_a_time_again(monkeypatch):
    time, pace = Clock(monkeypatch), Pace()
    for _ in range(20):
        time.delete(pace, 10 * STALL_S)
    time.delete(pace, STALL_S / 2)
    assert pace.rows == LEAST_ROWS
    for _ in range(20):
        time.delete(pace, STALL_S / 10)
    assert pace.rows == MOST_ROWS
