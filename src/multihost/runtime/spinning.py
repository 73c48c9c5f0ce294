"""Looking again for a moment before going to sleep, where waking is slow.

A core that sleeps takes its time to wake: a few microseconds where it was barely
asleep, fifty and more in a virtual machine or from a deep state. A lone task
crosses four processes and wakes one at each step, so most of its time would go
there. Where that is measured, an event loop that was woken soon after it had gone
to sleep looks for more a little while before it sleeps again, as long as that
has been worth it: the length doubles when the next thing came soon after all,
and halves when it did not, as kernels poll before they halt a virtual core. An
idle process does nothing at all.

Nobody looks while every slot is busy: the cores have better things to do. Each
look gives way to whatever else wants the core; when something keeps it for long,
looking stops for a while. A thread that blocks for the answer to one of its many
calls does the same, for a shorter time.
"""

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable

from multihost.runtime.quota import quota_cores, usable_cores

SPIN_VARIABLE = "MULTIHOST_SPIN"
"""Set to ``off``, every process sleeps at once; ``on``: none measures whether that is slow."""
LONGEST_S = 0.002
"""A pause that lasts longer is slept through, and so are those after it."""
SHORTEST_S = 0.00005
"""Where the length of looking begins; below it there is none."""
CONTENDED_S = 0.0003
"""Whoever else got the core and kept it as long has something to compute."""
REST_S = 0.1
"""So long nothing is looked for then, at most."""
FIRST_REST_S = 0.001
"""So long at first: who keeps the core may be done with it, as others that look are."""
GLANCE_S = 0.0005
"""An answer that takes a thread longer is slept for, and so are those after it."""
SLICE_S = 0.002
"""Of threads that look, several may have a core to share, each in its turn: only who keeps it
for so long, most of what the scheduler gives anybody at a time, has something to compute."""
SLOW_WAKE_S = 0.000025
"""Where waking a thread takes less, all sleep at once."""
ENOUGH_CORES = 2
"""Where a container is left less, all sleep at once, too."""
MEASURE_AFTER_S = 0.5
"""When a process has started, and is idle for the first time."""
MEASURE_ROUNDS = 20
MEASURE_PAUSE_S = 0.002


def _stay() -> None:
    """Where no way can be given nobody looks, either."""


_give_way: Callable[[], None] = getattr(os, "sched_yield", _stay)


class Rest:
    """When not to look, because others want the core: longer each time, until a look pays."""

    __slots__ = ("_length_s", "until")

    def __init__(self) -> None:
        """Begin rested."""
        self.until = 0.0
        self._length_s = 0.0

    def begin(self, now: float) -> None:
        """Somebody kept the core."""
        self._length_s = min(REST_S, max(FIRST_REST_S, 2 * self._length_s))
        self.until = now + self._length_s

    def shorten(self) -> None:
        """A look has paid."""
        self._length_s /= 2


class Spin:
    """How long one event loop looks for more after something has come."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] | None = None,
    ) -> None:
        """Keep ``loop`` awake; ``give_way`` lets others have the core (default: sched_yield)."""
        self.is_worth_it = True
        """Whether waking takes long here."""
        self.is_measured = True
        """Whether that is known."""
        self._loop = loop
        self._clock = clock
        self._give_way = give_way or _give_way
        self._length_s = 0.0
        self._until = 0.0
        self._since = 0.0
        """When the loop, for all that is known here, went to sleep last."""
        self._rest = Rest()
        self._is_looking = False
        self._has_come = False
        self._conditions: list[Callable[[], bool]] = []

    def only_while(self, condition: Callable[[], bool]) -> None:
        """Look for more only as long as this holds, beside what was said before."""
        self._conditions.append(condition)

    def noticed(self) -> None:
        """Something came that is likely to be followed by more."""
        if not self.is_worth_it:
            return
        now = self._clock()
        if not self._is_looking:
            self._adapt(now)
            self._since = now
            if not self._length_s:
                return
            self._is_looking = True
            self._loop.call_soon(self._look)
        elif not self._has_come:
            self._rest.shorten()
        self._until = now + self._length_s
        self._has_come = True

    def _adapt(self, now: float) -> None:
        if now - self._since > LONGEST_S:
            self._length_s /= 2
            if self._length_s < SHORTEST_S:
                self._length_s = 0.0
        elif now >= self._rest.until:
            self._length_s = min(LONGEST_S, max(SHORTEST_S, 2 * self._length_s))

    def _look(self) -> None:
        """One turn of the loop, which does not sleep while this is due in the next."""
        now = self._clock()
        if self._has_come:  # there may be more at once: the loop is busy
            self._has_come = False
            if all(condition() for condition in self._conditions):
                self._loop.call_soon(self._look)
                return
        elif now < self._until:
            self._give_way()
            before, now = now, self._clock()
            if now - before < CONTENDED_S:
                self._loop.call_soon(self._look)
                return
            self._length_s = 0.0
            self._rest.begin(now)
        self._since = now
        self._is_looking = False


class Glance:
    """How long a thread looks for bytes before it sleeps until they come."""

    __slots__ = ("_clock", "_give_way", "_length_s", "_poll", "_rest", "is_worth_it")

    def __init__(
        self,
        poll: Callable[[float], object],
        clock: Callable[[], float] = time.perf_counter,
        give_way: Callable[[], None] | None = None,
    ) -> None:
        """Ask ``poll``, which waits so many milliseconds for bytes and says whether there are."""
        self.is_worth_it = False
        """Whether waking takes long here."""
        self._poll = poll
        self._clock = clock
        self._give_way = give_way or _give_way
        self._length_s = 0.0
        self._rest = Rest()

    def wait(self, wait_ms: float) -> object:
        """Whether there are bytes, for which to wait so many milliseconds."""
        if not self.is_worth_it:
            return self._poll(wait_ms)
        began = now = self._clock()
        found: object = False
        if self._length_s:
            found, now = self._look(began)
        if not found:
            found = self._poll(wait_ms)
            now = self._clock()
        if now - began > GLANCE_S:
            self._length_s = self._length_s / 2 if self._length_s > SHORTEST_S else 0.0
        elif now >= self._rest.until:
            self._length_s = min(GLANCE_S, max(SHORTEST_S, 2 * self._length_s))
        return found

    def _look(self, began: float) -> tuple[object, float]:
        """What is found without sleeping, and when that was known."""
        poll, clock, give_way = self._poll, self._clock, self._give_way
        now, end = began, began + self._length_s
        while now < end:
            give_way()
            found = poll(0)
            before, now = now, clock()
            if now - before > SLICE_S:
                self._length_s = 0.0
                self._rest.begin(now)
                return found, now
            if found:
                self._rest.shorten()
                return found, now
        return False, now


_spins: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Spin]" = weakref.WeakKeyDictionary()


def spin_on(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop look for more before it sleeps, if that turns out to be worth it here."""
    if not _may_look():
        return
    spin = _spins[loop] = Spin(loop)
    if os.environ.get(SPIN_VARIABLE) != "on":
        spin.is_worth_it = spin.is_measured = False
        loop.call_later(MEASURE_AFTER_S, _measure, spin)


def spin_of(loop: asyncio.AbstractEventLoop) -> Spin | None:
    """Whom to tell of what comes to a loop; None where it just sleeps, as in users' programs."""
    return _spins.get(loop)


def known_slow() -> bool | None:
    """Whether waking is slow here, if the running loop has found out."""
    spin = spin_of(asyncio.get_running_loop())
    return spin.is_worth_it if spin is not None and spin.is_measured else None


def only_spin_while(condition: Callable[[], bool]) -> None:
    """Have the running loop sleep at once whenever this does not hold."""
    spin = spin_of(asyncio.get_running_loop())
    if spin is not None:
        spin.only_while(condition)


def wake_s() -> float:
    """How long a sleeping thread takes to run once it is woken: three times of four, no longer."""
    bell, times_s = threading.Semaphore(0), list[float]()
    rung_at = 0.0

    def sleep() -> None:
        for _ in range(MEASURE_ROUNDS):
            bell.acquire()
            times_s.append(time.perf_counter() - rung_at)

    sleeper = threading.Thread(target=sleep, name="multihost-wake", daemon=True)
    sleeper.start()
    for _ in range(MEASURE_ROUNDS):
        time.sleep(MEASURE_PAUSE_S)
        rung_at = time.perf_counter()
        bell.release()
    sleeper.join()
    return sorted(times_s)[MEASURE_ROUNDS * 3 // 4]


def is_worth_it(is_waking_slow: Callable[[], bool]) -> bool:
    """Whether to look before sleeping: where it may be done, and waking is slow."""
    if not _may_look() or os.environ.get(SPIN_VARIABLE) == "on":
        return _may_look()
    cores = quota_cores()
    # What is spent on looking is missing for the tasks where less than two are left to all.
    return (cores is None or cores >= ENOUGH_CORES) and is_waking_slow()


def is_waking_slow() -> bool:
    """Measure it; takes a twentieth of a second."""
    return wake_s() > SLOW_WAKE_S


def _may_look() -> bool:
    is_off = os.environ.get(SPIN_VARIABLE) == "off"
    return not is_off and hasattr(os, "sched_yield") and usable_cores() > 1


def _measure(spin: Spin) -> None:
    def work() -> None:
        with contextlib.suppress(RuntimeError):  # as below
            spin.is_worth_it = is_worth_it(is_waking_slow)
            spin.is_measured = True

    with contextlib.suppress(RuntimeError):  # no more threads may be started: it sleeps at once
        threading.Thread(target=work, name="multihost-measure", daemon=True).start()
