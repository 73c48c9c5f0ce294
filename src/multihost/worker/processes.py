"""The processes that a worker runs beside its slots: one for each task of style PROCESS.

Each starts at once, in a child that has served nobody (a warm one, if a slot
has such), and is its task: the task ends with it, with its exit code. It is
never started twice; one that can't be started here has ended.
"""

import asyncio
import signal
from collections.abc import Callable, Iterable
from functools import partial

from multihost.runtime import clock
from multihost.wire import message as m
from multihost.worker import reports
from multihost.worker.leases import Leases
from multihost.worker.options import TERMINATE_S
from multihost.worker.outcomes import Outcomes
from multihost.worker.roster import Roster
from multihost.worker.slot import Death, Slot
from multihost.worker.work import Work


class Processes:
    """The running processes.

    Invariant: a work is here from its start until its child is gone.
    """

    def __init__(
        self,
        roster: Roster,
        leases: Leases,
        outcomes: Outcomes,
        *,
        limit: int,
        began: Callable[[Work, Slot], None],
        again: Callable[[Work], None],
    ) -> None:
        """Run at most ``limit`` at a time, in children that ``roster`` starts.

        ``began`` is told of each; ``again`` of one that is better started a little later.
        """
        self._roster = roster
        self._leases = leases
        self._outcomes = outcomes
        self._limit = limit
        self._began = began
        self._again = again
        self._slots: dict[Work, Slot] = {}
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many run."""
        return len(self._slots)

    @property
    def works(self) -> Iterable[tuple[Work, Slot]]:
        """What runs, and where."""
        return self._slots.items()

    def start(self, work: Work) -> None:
        """Start a process, now or when children are had quickly; or fail it, if it can't be."""
        if len(self._slots) >= self._limit:
            self._outcomes.fail(work, reports.too_many_processes(self._limit))
            return
        try:
            slot = self._roster.give_away()
        except OSError as error:  # no more processes or descriptors are to be had
            self._outcomes.fail(work, reports.unstarted_process(error))
            return
        if slot is None:
            self._roster.when_prepared(partial(self._start_again, work))
            return
        self._slots[work] = slot
        slot.feed(work, None)
        slot.tasks.flush()
        self._began(work, slot)

    def _start_again(self, work: Work) -> None:
        if self._leases.holds(work):
            self._again(work)

    def signal(self, task: int, token: int, number: int) -> None:
        """Send a signal to the process of a task, if it still runs."""
        slot = self._slot_of(task, token)
        if slot is not None:
            slot.signal_alone(number)

    def miss_starters(self, leases: Iterable[m.Held]) -> None:
        """Whoever started them is gone."""
        for held in leases:
            slot = self._slot_of(held.task, held.token)
            if slot is not None:
                slot.tell_parent_gone()

    def _slot_of(self, task: int, token: int) -> Slot | None:
        work = self._leases.find(task, token)
        return None if work is None else self._slots.get(work)

    def end(self, work: Work) -> None:
        """Nobody wants it any more: SIGTERM, then SIGKILL."""
        self._signal(work, signal.SIGTERM)
        self._loop.call_later(TERMINATE_S, self._signal, work, signal.SIGKILL)

    def _signal(self, work: Work, number: int) -> None:
        slot = self._slots.get(work)
        if slot is not None:
            slot.signal_alone(number)

    def report_killed(self) -> None:
        """All are being killed with the worker: say so while it can."""
        for work, slot in self._slots.items():
            death = Death(-signal.SIGKILL, 0, slot.runs_s(clock.mono()))
            self._outcomes.exited(slot, work, death)

    def died(self, slot: Slot, work: Work, death: Death) -> None:
        """Its child is gone."""
        if self._slots.get(work) is slot:
            del self._slots[work]
        self._outcomes.exited(slot, work, death)
