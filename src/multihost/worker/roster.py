"""Which work goes into which slot.

Works wait in the backlog until a slot is free for them. Tiny ones are fed
ahead, into the pipe of a busy slot; what then sits behind a long one is taken
back. A child that has served one pool is never used for another. How many children
there are is ``children``'s business.
"""

import heapq
import signal
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from multihost.runtime import clock
from multihost.wire.message import JobInfo
from multihost.worker import feed
from multihost.worker.children import Children
from multihost.worker.fetch import Where
from multihost.worker.forks import Forks
from multihost.worker.launch import ChildSetup
from multihost.worker.options import INTERRUPT_S, TERMINATE_S
from multihost.worker.slot import Slot, SlotOwner
from multihost.worker.work import Work

FindFunction = Callable[[Work, bytes], Where | None]
"""A blob if it is here; else None, and the work was told to wait for it."""
FindShipped = Callable[[Work], Sequence[str] | None]
"""Directories of what its job ships, held from now on; else None, and it was told to wait."""


class _Line:
    """Slots that works of one job are fed behind, the least laden first.

    Made for one job and one ``feed``: most works come with many like them.
    """

    def __init__(self, job: JobInfo | None, slots: Iterable[Slot]) -> None:
        self.job = job
        self._slots = [(len(slot.fed), number, slot) for number, slot in enumerate(slots)]
        heapq.heapify(self._slots)

    def shortest(self, ahead: int) -> Slot | None:
        """The slot for the next work; None if all are full, or others have fed them."""
        load, number, slot = self._slots[0]
        if load > ahead or load != len(slot.fed):
            return None
        heapq.heapreplace(self._slots, (load + 1, number, slot))
        return slot


_NO_LINE = _Line(None, ())


def _load(slot: Slot) -> int:
    return len(slot.fed)


class Roster(Children):
    """The slots' children and the backlog.

    Invariant: a work is in the backlog, or fed to exactly one slot, or neither
    because its owner waits for a blob of it.
    """

    def __init__(
        self,
        owner: SlotOwner,
        slots: int,
        setup: ChildSetup,
        find: FindFunction,
        find_shipped: FindShipped = lambda _: (),
        *,
        forks: Forks | None = None,
    ) -> None:
        """Have ``slots`` children that report to ``owner``."""
        super().__init__(owner, slots, setup, forks or Forks())
        self.pace = feed.Pace()
        self.backlog: deque[Work] = deque()
        self._find = find
        self._find_shipped = find_shipped

    # feeding ---------------------------------------------------------------------------

    @property
    def may_hurry(self) -> bool:
        """Whether works should be here ahead of need.

        With slots lent those may be of the kind that waits, unless what was waited for runs.
        """
        if self.has_too_many:
            return False
        if not self._lenders:
            return True
        lowest = min((slot.fed[0].job.priority for slot in self._lenders if slot.fed), default=0)
        running = [slot for slot in self.children if slot.fed and not self._waits(slot)]
        return any(slot.fed[0].job.priority > lowest for slot in running)

    def feed(self) -> None:
        """Give the backlog to idle slots, then feed tiny tasks ahead."""
        ahead = self.pace.ahead if self.may_hurry else 0
        backlog = self.backlog
        skipped: list[Work] = []
        refused: set[int] = set()
        """Jobs, by their identity, that there is no slot for: many works may be of one."""
        line = _NO_LINE
        takes_more = self._takes_more(ahead)
        while backlog and takes_more:
            work = backlog.popleft()
            job = work.job
            if id(job) in refused:
                skipped.append(work)
                continue
            slot = line.shortest(ahead) if line.job is job else None
            if slot is not None:
                self._start(slot, work)
                continue
            slot = self._slot_for(work, ahead)
            if slot is not None:
                is_ahead = bool(slot.fed)
                self._start(slot, work)
                line = _Line(job, self._busy_for(work)) if is_ahead else _NO_LINE
                continue
            skipped.append(work)
            if not work.is_choosy and job.width is None:
                break  # nor is there a slot for the others like it
            refused.add(id(job))
            takes_more = self._takes_more(ahead)
        backlog.extendleft(reversed(skipped))
        for slot in self._everyone():
            slot.tasks.flush()

    def _takes_more(self, ahead: int) -> bool:
        """Whether there is a child, for whatever works, that is idle or may be fed ahead."""
        return any(len(slot.fed) <= ahead for slot in self.children)

    def _slot_for(self, work: Work, ahead: int) -> Slot | None:
        """An idle slot, or the least laden one of those that it may be fed behind."""
        slot = self._idle_for(work)
        if slot is not None or not ahead:
            return slot
        slot = min(self._busy_for(work), key=_load, default=None)
        return slot if slot is not None and len(slot.fed) <= ahead else None

    def _idle_for(self, work: Work) -> Slot | None:
        if not self._may_begin():
            return None
        if work.is_choosy or work.job.width is not None:
            return self._idle_choice_for(work)
        for slot in self.children:
            if not slot.fed and slot.context is None and not slot.is_asked_back:
                return slot
        return self._make_way()

    def _idle_choice_for(self, work: Work) -> Slot | None:
        """A slot for a task that needs children of its own kind, or of a pool of limited width."""
        context, width = work.context, work.job.width
        if width is not None and len(self._serving(work)) >= width:
            return None
        for slot in self.children:
            if not slot.fed and slot.context == context:
                return slot
        for slot in self.children:
            if slot.served == 0 and slot.context is None:
                return slot
        return self._make_way()

    def _busy_for(self, work: Work) -> list[Slot]:
        """Busy slots that a work may be fed behind."""
        job = work.job
        if job.timeout_s is not None or job.context is not None:
            return []
        slots = self._serving(work) if job.ship or job.width is not None else self.children
        return [
            slot
            for slot in slots
            if slot.fed
            and slot.context == work.context
            and not slot.is_asked_back
            and not slot.is_retiring
            and not self._waits(slot)
        ]

    def _serving(self, work: Work) -> list[Slot]:
        """Busy slots of the work's pool, or of its kind if it is of none."""
        context, pool, is_own = work.context, work.job.pool, work.job.context is not None
        return [
            slot
            for slot in self._everyone()
            if slot.fed
            and slot.context == context
            and (is_own or any(fed.job.pool == pool for fed in slot.fed))
        ]

    def _may_begin(self) -> bool:
        """Whether an idle child may be fed: one that retires holds its slot to the end."""
        if not self._retired and not self.has_too_many:
            return True
        return sum(1 for slot in self._everyone() if slot.fed) < self.width

    def _make_way(self) -> Slot | None:
        """A fresh child in place of an idle one that has served another pool."""
        for slot in self.children:
            if not slot.fed and not slot.is_asked_back:
                return self.replace(slot)
        return None

    def _start(self, slot: Slot, work: Work) -> None:
        function = work.job.function
        data = None
        if function is not None and not slot.tasks.knows(function):
            data = self._find(work, function)
            if data is None:
                return
        if work.is_choosy and slot.context is None and not self._devote(slot, work):
            return
        slot.feed(work, data)
        context = work.job.context
        if context is not None and context.max_tasks and slot.served >= context.max_tasks:
            self.replace(slot)
            self._forks.start()

    def _devote(self, slot: Slot, work: Work) -> bool:
        """Make a fresh child one for works like this; False if something for that is not here."""
        context = work.job.context
        initializer: Where | None = b""
        if context is not None and context.initializer is not None:
            initializer = self._find(work, context.initializer)
        if initializer is None:
            return False
        paths = self._find_shipped(work) if work.job.ship else ()
        if paths is None:
            return False
        slot.serve(work, paths, initializer)
        self.changes += 1
        return True

    def look(self) -> list[Work]:
        """Take back what sits behind long tasks; return what nobody here gets to soon.

        Called every ``feed.STUCK_S`` while something waits, or may be sent here to wait.
        """
        now = clock.mono()
        for slot in self._everyone():
            runs_s = slot.runs_s(now)
            if runs_s > feed.STUCK_S and slot.is_ready and not self._waits(slot):
                self.pace.slow_down(runs_s)
            if len(slot.fed) > 1 and runs_s > feed.STUCK_S:
                slot.ask_back()
        busy = [slot.runs_s(now) for slot in self._everyone() if slot.fed]
        # With slots idle, what waits is of pools that have their width here already.
        if not self.backlog or not busy or min(busy) <= self.pace.hoard_s:
            return []
        self.pace.slow_down(min(busy))
        return list(self.backlog)

    @property
    def has_waiting(self) -> bool:
        """Whether ``look`` may have something to do."""
        return bool(self.backlog) or any(len(slot.fed) > 1 for slot in self.children)

    def put_back(self, works: Iterable[Work]) -> None:
        """Works that were fed come first again."""
        self.backlog.extendleft(reversed(list(works)))

    def ask_back(self) -> None:
        """Ask every child for what it has not begun."""
        for slot in self._everyone():
            if len(slot.fed) > 1:
                slot.ask_back()

    def _waits(self, slot: Slot) -> bool:
        return slot.waits_since is not None

    # ending works ------------------------------------------------------------------------

    def end(self, work: Work) -> None:
        """End a work that was fed: raise in its code, then SIGTERM, then SIGKILL."""
        slot = work.slot
        if slot is None or work not in slot.fed:
            return
        if slot.fed[0] is not work:
            slot.ask_back()
            return
        slot.interrupt(work)
        self._loop.call_later(INTERRUPT_S, self._insist, slot, work, signal.SIGTERM)
        self._loop.call_later(INTERRUPT_S + TERMINATE_S, self._insist, slot, work, signal.SIGKILL)

    def _insist(self, slot: Slot, work: Work, number: signal.Signals) -> None:
        slot.catch_up()
        if slot.fed and slot.fed[0] is work:
            slot.signal(number)
