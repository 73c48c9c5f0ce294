"""The children of a worker's slots: that there are as many as there should be.

One that dies is replaced, one that can't be started is tried again, one too many is put
aside or goes. A task that waits for results of others lends its slot: one more child
may run meanwhile. What they are given to do is not its business.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable

from multihost.worker.forks import Forks
from multihost.worker.launch import ChildSetup
from multihost.worker.options import (
    CLOSE_S,
    LENT_PER_SLOT,
    MAX_RESPAWN_S,
    QUICK_RESPAWNS,
    REFILL_S,
    RESPAWN_S,
    RESTART_S,
    SPARE_S,
)
from multihost.worker.slot import Slot, SlotOwner

_log = logging.getLogger("multihost")


class Children:
    """A worker's child processes.

    Invariant: each that lives is one of ``children``, a spare, retired or given away.
    """

    def __init__(self, owner: SlotOwner, slots: int, setup: ChildSetup, forks: Forks) -> None:
        """Have ``slots`` children that report to ``owner``; ``begin`` starts them."""
        self.owner = owner
        self.slots = slots
        self.children: list[Slot] = []
        self.changes = 0
        """Rises whenever ``children``, or whom they serve, have changed."""
        self._setup = setup
        self._forks = forks
        self._lenders: set[Slot] = set()
        """Slots whose work waits for results of others."""
        self._spares: list[Slot] = []
        """Idle children of slots that were lent; for a moment, since tasks often lend again."""
        self._retired: set[Slot] = set()
        self._given: set[Slot] = set()
        """Given away; only to be killed, and waited for, when the worker leaves."""
        self._deaths_in_a_row = 0
        self._refill: asyncio.TimerHandle | None = None
        """Set while a child is missing that could not be started."""
        self._is_short = False
        """Whether that has been said."""
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._emptied: asyncio.Future[None] = self._loop.create_future()

    def begin(self) -> None:
        """Start them all; raises OSError if that is impossible: a worker that can't begin says so.

        Those that were started are closed like any others.
        """
        while len(self.children) < self.slots:
            self.children.append(Slot(self.owner, self._setup))
            self.changes += 1

    # lending ---------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """How many children may run works at once: slots, and those that are lent."""
        return self.slots + len(self._lenders)

    def lend(self, slot: Slot) -> bool:
        """Have one more child while the work of ``slot`` waits; False if too many do."""
        if len(self._lenders) >= LENT_PER_SLOT * self.slots:
            return False
        self._lenders.add(slot)
        self.fill_lent()
        return True

    @property
    def has_too_many(self) -> bool:
        """Whether a child has to go as soon as one is idle: its slot was taken back."""
        return len(self.children) > self.width

    @property
    def is_lending(self) -> bool:
        """Whether a slot is lent."""
        return bool(self._lenders)

    def fill_lent(self) -> None:
        """Start a child for a slot that is lent, unless there is an idle one."""
        if self._lenders and all(slot.fed for slot in self.children):
            self._fill(self.width)

    def take_back(self, slot: Slot) -> None:
        """The work of ``slot`` goes on or is over: a child is too many, until one is idle."""
        if slot not in self._lenders:
            return
        self._lenders.discard(slot)
        self.trim()

    def _spare(self, slot: Slot) -> None:
        self.children.remove(slot)
        self.changes += 1
        self._spares.append(slot)
        self._loop.call_later(SPARE_S, self._drop_spare, slot)

    def _drop_spare(self, slot: Slot) -> None:
        if slot in self._spares:
            self._spares.remove(slot)
            self._retired.add(slot)
            slot.retire()

    # children ------------------------------------------------------------------------------

    def replace(self, slot: Slot) -> Slot | None:
        """Retire a child, if it is not already, and start a fresh one in its place."""
        if slot not in self.children:
            return None
        self._let_go(slot)
        fresh = self._new()
        if fresh is not None:
            self.children.append(fresh)
        return fresh

    def give_away(self) -> Slot | None:
        """A child that has served nobody, warm if there is one; it holds no slot any more.

        None if it is quicker to ask again ``when_prepared``.
        """
        self._setup.is_for_processes = True  # where there is one process there are often more
        self._forks.start()
        for slot in self.children:
            if not slot.served:
                self.children.remove(slot)
                self.changes += 1
                self._given.add(slot)
                self._loop.call_later(REFILL_S, self.when_prepared, self.fill)
                return slot
        if self._forks.is_starting:
            return None
        slot = Slot(self.owner, self._setup)
        self._given.add(slot)
        return slot

    def when_prepared(self, call: Callable[[], None]) -> None:
        """Call it when children are had quickly, or never will be."""
        self._forks.when_settled(call)

    def died(self, slot: Slot) -> None:
        """A child is gone: start another, after a pause if they die as soon as they start."""
        self._retired.discard(slot)
        self._lenders.discard(slot)
        if slot in self._spares:
            self._spares.remove(slot)
        self._given.discard(slot)
        if slot in self.children:
            self.children.remove(slot)
            self.changes += 1
            self._replace_dead(slot)
        self._forks.reap_orphans()
        if self._is_closed and self._is_empty() and not self._emptied.done():
            self._emptied.set_result(None)

    def _replace_dead(self, slot: Slot) -> None:
        self._deaths_in_a_row = 0 if slot.served else self._deaths_in_a_row + 1
        if self._deaths_in_a_row > QUICK_RESPAWNS:
            pause_s = min(MAX_RESPAWN_S, RESPAWN_S * self._deaths_in_a_row)
            self._loop.call_later(pause_s, self.fill)
        else:
            self.fill()
            self._forks.start()

    def resize(self, slots: int) -> None:
        """Have so many slots; of too many, idle ones go now and busy ones once they are idle."""
        self.slots = slots
        for slot in [slot for slot in self.children if not slot.fed]:
            if self.has_too_many:
                self._let_go(slot)
        self.fill()

    def trim(self) -> None:
        """Put idle children aside that are too many."""
        for slot in [slot for slot in self.children if not slot.fed]:
            if self.has_too_many:
                self._spare(slot)

    def _let_go(self, slot: Slot) -> None:
        """Have a child finish what it has and go; none takes its place."""
        slot.retire()
        self.children.remove(slot)
        self.changes += 1
        self._retired.add(slot)

    def fill(self) -> None:
        """Start the children that are missing."""
        self._fill(self.slots)
        self.fill_lent()

    def _fill(self, count: int) -> None:
        while not self._is_closed and len(self.children) < count:
            slot = self._spares.pop() if self._spares else self._new()
            if slot is None:
                return
            self.children.append(slot)
            self.changes += 1

    def _new(self) -> Slot | None:
        """A fresh child; None if memory, processes or descriptors have run out: then later."""
        try:
            slot = Slot(self.owner, self._setup)
        except OSError as error:
            if not self._is_short:
                self._is_short = True
                text = "a slot's process can't be started: %s; it is tried again every %g s"
                _log.warning(text, error, RESTART_S)
            if self._refill is None:
                self._refill = self._loop.call_later(RESTART_S, self._fill_again)
            return None
        self._is_short = False
        return slot

    def _fill_again(self) -> None:
        self._refill = None
        self.fill()

    def close(self) -> None:
        """Kill every child."""
        self._is_closed = True
        self._forks.close()
        for slot in (*self._everyone(), *self._given):
            slot.signal(signal.SIGKILL)
        if self._is_empty() and not self._emptied.done():
            self._emptied.set_result(None)

    async def wait_until_empty(self) -> None:
        """Wait, after ``close``, until no child is left."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._emptied), CLOSE_S)

    def _is_empty(self) -> bool:
        return not self._everyone() and not self._given

    def _everyone(self) -> list[Slot]:
        return [*self.children, *self._spares, *self._retired]
