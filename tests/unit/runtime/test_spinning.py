"""Claims about loops that look again before they sleep, with a clock that is turned by hand."""

import asyncio
import time

import pytest

from multihost.runtime import spinning
from multihost.runtime.spinning import (
    CONTENDED_S,
    FIRST_REST_S,
    GLANCE_S,
    LONGEST_S,
    REST_S,
    SLICE_S,
    Glance,
    Spin,
    spin_of,
    spin_on,
)

SOON_S = LONGEST_S / 4
LATE_S = 2 * LONGEST_S


class Bench:
    """A loop whose turns are counted; each look takes as long as somebody else keeps the core."""

    def __init__(self):
        self.now = 0.0
        self.look_s = 1e-6
        self.due = []
        self.looks = 0
        self.spin = Spin(self, lambda: self.now, self._give_way)

    def call_soon(self, call):
        self.due.append(call)

    def _give_way(self):
        self.looks += 1
        self.now += self.look_s

    def sleep(self):
        """Run turns until the loop would sleep; how long it looked for more."""
        self.looks, began = 0, self.now
        while self.due:
            self.due.pop(0)()
        return round(self.now - began, 6)

    def come_after(self, pause_s):
        """Something comes so long after the loop went to sleep."""
        self.now += pause_s
        self.spin.noticed()
        return self.sleep()


def eager():
    bench = Bench()
    for _ in range(10):
        bench.come_after(SOON_S)
    return bench


def test_the_first_thing_after_a_long_sleep_is_not_waited_after():
    assert Bench().come_after(60) == 0


def test_the_more_comes_soon_the_longer_it_is_looked_for():
    bench = Bench()
    lengths = [bench.come_after(SOON_S) for _ in range(10)]
    assert lengths == sorted(lengths)
    assert lengths[0] > 0
    assert lengths[-1] == pytest.approx(LONGEST_S, rel=0.01)


def test_what_comes_while_looked_for_is_looked_for_as_long_again():
    bench = eager()
    bench.now += SOON_S
    bench.spin.noticed()
    for _ in range(20):
        bench.due.pop(0)()
    bench.spin.noticed()
    assert bench.sleep() == pytest.approx(LONGEST_S, rel=0.01)


def test_when_nothing_comes_soon_any_more_it_is_looked_for_less_and_then_not_at_all():
    bench = eager()
    lengths = [bench.come_after(LATE_S) for _ in range(10)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 0


def contended():
    """Somebody has just kept the core of an eager loop."""
    bench = eager()
    bench.look_s = 2 * CONTENDED_S
    bench.come_after(SOON_S)
    assert bench.looks == 1
    return bench


def test_who_keeps_the_core_for_long_is_left_alone_for_a_while():
    bench = contended()
    bench.look_s = 1e-6
    assert bench.come_after(FIRST_REST_S / 2) == 0
    assert bench.come_after(FIRST_REST_S) > 0


def test_who_keeps_the_core_again_and_again_is_left_alone_for_longer_and_longer():
    bench = contended()
    for _ in range(1000):
        bench.come_after(SOON_S)
    bench.look_s = 1e-6
    rested = 0
    while bench.come_after(SOON_S) == 0:
        rested += 1
    assert rested * SOON_S <= REST_S
    bench.look_s = 2 * CONTENDED_S
    while bench.come_after(SOON_S) == 0:
        pass
    bench.look_s, began = 1e-6, bench.now
    while bench.come_after(SOON_S) == 0:
        pass
    assert bench.now - began == pytest.approx(REST_S, rel=0.02)


def test_nothing_is_looked_for_while_a_condition_does_not_hold():
    bench = eager()
    holds = False
    bench.spin.only_while(lambda: holds)
    assert bench.come_after(SOON_S) == 0
    holds = True
    assert bench.come_after(SOON_S) > 0


def test_where_waking_is_quick_everybody_sleeps_at_once():
    bench = eager()
    bench.spin.is_worth_it = False
    assert bench.come_after(SOON_S) == 0


@pytest.mark.parametrize(("value", "spins"), [("on", True), ("off", False)])
def test_the_environment_decides_where_it_says_so(monkeypatch, value, spins):
    monkeypatch.setenv(spinning.SPIN_VARIABLE, value)
    monkeypatch.setattr(spinning, "usable_cores", lambda: 2)
    loop = asyncio.new_event_loop()
    spin_on(loop)
    loop.close()
    assert (spin_of(loop) is not None) is spins


def test_one_core_is_never_kept_awake(monkeypatch):
    monkeypatch.setenv(spinning.SPIN_VARIABLE, "on")
    monkeypatch.setattr(spinning, "usable_cores", lambda: 1)
    loop = asyncio.new_event_loop()
    spin_on(loop)
    loop.close()
    assert spin_of(loop) is None


@pytest.mark.parametrize(("measured_s", "is_worth_it"), [(1.0, True), (1e-6, False)])
def test_it_is_measured_whether_waking_is_slow(monkeypatch, measured_s, is_worth_it):
    monkeypatch.setattr(spinning, "quota_cores", lambda: None)
    monkeypatch.delenv(spinning.SPIN_VARIABLE, raising=False)
    monkeypatch.setattr(spinning, "usable_cores", lambda: 2)
    monkeypatch.setattr(spinning, "MEASURE_AFTER_S", 0)
    measured = []
    monkeypatch.setattr(spinning, "wake_s", lambda: measured.append(1) or measured_s)

    async def main():
        loop = asyncio.get_running_loop()
        spin_on(loop)
        spin = spin_of(loop)
        assert not spin.is_worth_it
        deadline = time.monotonic() + 10
        while spin.is_worth_it is not is_worth_it or not measured:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(main())


def decided(monkeypatch, cores):
    """Whether a loop looks for more in a container that is left so many cores."""
    monkeypatch.setattr(spinning, "quota_cores", lambda: cores)
    monkeypatch.setattr(spinning, "wake_s", lambda: 1.0)
    spin = Bench().spin
    spin.is_worth_it = False
    monkeypatch.setattr(spinning.threading, "Thread", AtOnce)
    spinning._measure(spin)
    return spin.is_worth_it


class AtOnce:
    """A thread that has ended when it has started."""

    def __init__(self, target, **_):
        self.start = target


@pytest.mark.parametrize(
    ("cores", "looks"), [(None, True), (2.0, True), (1.0, False), (1.5, False)]
)
def test_a_container_that_is_left_less_than_two_cores_spends_none_on_looking(
    monkeypatch, cores, looks
):
    assert decided(monkeypatch, cores) is looks


@pytest.mark.parametrize("fails_at", [1, 2])
def test_where_no_more_threads_may_be_started_all_sleep_at_once(monkeypatch, fails_at):
    begun = []

    class Refused(AtOnce):
        def __init__(self, target, **_):
            begun.append(1)
            self.start = self.refuse if len(begun) == fails_at else target

        def refuse(self):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(spinning, "quota_cores", lambda: None)
    monkeypatch.setattr(spinning.threading, "Thread", Refused)
    spin = Bench().spin
    spin.is_worth_it = False
    spinning._measure(spin)
    assert not spin.is_worth_it
    assert len(begun) == fails_at


def test_a_waking_is_measured():
    assert 0 < spinning.wake_s() < 1


@pytest.mark.parametrize(
    ("value", "is_slow", "cores", "is_worth_it"),
    [
        ("", True, 2, True),
        ("", False, 2, False),
        ("", True, 1, False),
        ("off", True, 2, False),
        ("on", False, 2, True),
        ("on", True, 1, False),
    ],
)
def test_looking_is_worth_it_where_it_may_be_done_and_waking_is_slow(
    monkeypatch, value, is_slow, cores, is_worth_it
):
    monkeypatch.setenv(spinning.SPIN_VARIABLE, value)
    monkeypatch.setattr(spinning, "usable_cores", lambda: cores)
    monkeypatch.setattr(spinning, "quota_cores", lambda: None)
    assert spinning.is_worth_it(lambda: is_slow) is is_worth_it


def test_a_loop_knows_how_slow_waking_is_when_it_has_measured_it(monkeypatch):
    monkeypatch.setattr(spinning, "usable_cores", lambda: 2)
    monkeypatch.delenv(spinning.SPIN_VARIABLE, raising=False)

    async def main():
        spin_on(asyncio.get_running_loop())
        assert spinning.known_slow() is None
        spin = spin_of(asyncio.get_running_loop())
        spin.is_measured = spin.is_worth_it = True
        assert spinning.known_slow() is True

    asyncio.run(main())


class Waiter:
    """A thread that waits for answers; each look takes as long as somebody else keeps the core."""

    def __init__(self):
        self.now = 0.0
        self.look_s = 1e-6
        self.looks = self.sleeps = 0
        self.glance = Glance(self._poll, lambda: self.now, self._give_way)
        self.glance.is_worth_it = True

    def _give_way(self):
        self.looks += 1
        self.now += self.look_s

    def _poll(self, wait_ms):
        if wait_ms:
            self.sleeps += 1
            self.now = max(self.now, min(self.comes_at, self.now + wait_ms / 1e3))
        return self.comes_at <= self.now

    def ask(self, takes_s, wait_ms=1000):
        """Wait for an answer that takes so long; whether it was slept for, and looked for."""
        self.looks = self.sleeps = 0
        self.comes_at = self.now + takes_s
        assert self.glance.wait(wait_ms) is (takes_s <= wait_ms / 1e3)
        return bool(self.looks), bool(self.sleeps)


LOOKED, SLEPT = (True, False), (False, True)


def practised():
    """A thread whose answers have come soon."""
    waiter = Waiter()
    for _ in range(10):
        waiter.ask(GLANCE_S / 4)
    return waiter


def test_answers_that_come_soon_are_looked_for_and_not_slept_for():
    waiter = Waiter()
    assert waiter.ask(GLANCE_S / 4) == SLEPT
    assert practised().ask(GLANCE_S / 4) == LOOKED


def test_answers_that_take_long_are_soon_slept_for_at_once():
    waiter = practised()
    assert waiter.ask(2 * GLANCE_S) == (True, True)
    for _ in range(5):
        waiter.ask(2 * GLANCE_S)
    assert waiter.ask(2 * GLANCE_S) == SLEPT
    waiter.ask(GLANCE_S / 4)
    assert waiter.ask(GLANCE_S / 20) == LOOKED


def test_an_answer_that_does_not_come_in_time_is_not_found():
    practised().ask(3, wait_ms=1000)


def test_a_thread_sleeps_for_a_while_when_its_core_is_wanted_for_long():
    waiter = practised()
    waiter.look_s = 2 * SLICE_S
    waiter.ask(GLANCE_S / 4)
    assert waiter.looks == 1
    assert waiter.ask(GLANCE_S / 4) == SLEPT
    waiter.look_s = 1e-6
    waiter.now += REST_S
    waiter.ask(GLANCE_S / 4)
    assert waiter.ask(GLANCE_S / 20) == LOOKED


def test_threads_that_look_in_turn_on_one_core_go_on_looking():
    waiter = practised()
    waiter.look_s = SLICE_S / 4
    waiter.ask(SLICE_S / 8)
    assert waiter.ask(SLICE_S / 8) == LOOKED


def test_where_waking_is_quick_a_thread_sleeps_at_once():
    waiter = practised()
    waiter.glance.is_worth_it = False
    assert waiter.ask(GLANCE_S / 4) == SLEPT
