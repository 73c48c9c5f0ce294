"""The processes that a worker runs beside its slots: one for each task of style PROCESS.

Each starts at once, in a child that has served nobody (a warm one, if a slot
has such), and is its task: the task ends with it, with its exit code. It is
never started twice; one that can't be started here has ended.
"""

import asyncio
import signal
from collections.abc import Iterable
from functools import partial

from multihost.core.job import Style
from multihost.core.outcome import Ending, Failure
from multihost.worker.options import TERMINATE_S
from multihost.worker.roster import Roster
from multihost.worker.slot import Slot
from multihost.worker.work import Work


def is_process(work: Work) -> bool:
    """Whether a work is a process of its own, not something for a slot."""
    return work.job.style is Style.PROCESS


class Processes:
    """The running processes.

    Invariant: a work is here from its start until its child is gone.
    """

    def __init__(self, roster: Roster, limit: int) -> None:
        """Run at most ``limit`` at a time, in children that ``roster`` starts."""
        self._roster = roster
        self._limit = limit
        self._slots: dict[Work, Slot] = {}
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        """How many run."""
        return len(self._slots)

    @property
    def works(self) -> Iterable[tuple[Work, Slot]]:
        """What runs, and where."""
        return self._slots.items()

    def start(self, work: Work) -> Slot | Failure | None:
        """Start a process; or why it can't be; or None: when children are had quickly."""
        if len(self._slots) >= self._limit:
            text = (
                f"the worker runs {self._limit} processes beside its slots, which is its limit: "
                "join some first, start more workers, or start them with a larger --processes"
            )
            return Failure(Ending.UNRUNNABLE, "LimitExceeded", text)
        try:
            slot = self._roster.give_away()
        except OSError as error:  # no more processes or descriptors are to be had
            text = f"the worker can't start a process: {error}"
            return Failure(Ending.UNRUNNABLE, type(error).__name__, text)
        if slot is None:
            return None
        self._slots[work] = slot
        slot.feed(work, None)
        slot.tasks.flush()
        return slot

    def signal(self, work: Work, number: int) -> None:
        """Send a signal to a process, if it still runs."""
        slot = self._slots.get(work)
        if slot is not None:
            slot.signal_alone(number)

    def miss_starter(self, work: Work) -> None:
        """Whoever started it is gone."""
        slot = self._slots.get(work)
        if slot is not None:
            slot.tell_parent_gone()

    def end(self, work: Work) -> None:
        """Nobody wants it any more: SIGTERM, then SIGKILL."""
        self.signal(work, signal.SIGTERM)
        self._loop.call_later(TERMINATE_S, partial(self.signal, work, signal.SIGKILL))

    def died(self, slot: Slot, work: Work) -> None:
        """Its child is gone."""
        if self._slots.get(work) is slot:
            del self._slots[work]
