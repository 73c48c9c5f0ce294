"""Lends the slots of tasks that wait for results of others, which may need just these slots."""

import asyncio
from collections.abc import Callable

from multihost.core.ids import task_name
from multihost.wire import message as m
from multihost.worker.children import Children
from multihost.worker.options import LEND_S, LENT_PER_SLOT
from multihost.worker.outputbox import OutputBox
from multihost.worker.slot import Slot
from multihost.worker.work import Work


class Lending:
    """Decides when a slot is lent.

    Invariant: only while its work waits, and after the longer a wait the more are lent.
    """

    def __init__(
        self, children: Children, output: OutputBox, *, lent: Callable[[], None], worker: str
    ) -> None:
        """``lent`` is told of each; a task that waits in vain is told by ``output``."""
        self._children = children
        self._output = output
        self._lent = lent
        self._worker = worker
        self._loop = asyncio.get_running_loop()

    def begin(self, slot: Slot, work: Work) -> None:
        """The slot's work has begun to wait: lend the slot, unless that is over soon."""
        # Where many wait what they wait for is mostly there, and goes first: it needs no more.
        wait_s = LEND_S * (1 + self._children.width - self._children.slots)
        self._loop.call_later(wait_s, self._lend, slot, work, slot.waits_since)

    def _lend(self, slot: Slot, work: Work, since: float | None) -> None:
        if slot.waits_since != since or slot.work is not work:
            return
        if self._children.lend(slot):
            self._lent()
        else:
            self._output.add(m.Output(*work.lease, m.Stream.STDERR, self._why_not(work)))

    def _why_not(self, work: Work) -> bytes:
        return (
            f"multihost: task {task_name(work.grant.task)} waits for results of others, and so do "
            f"{LENT_PER_SLOT * self._children.slots} tasks more on worker {self._worker}: no slot "
            "is lent to what they wait for. Unless other workers run that, nothing goes on: start "
            "one, or have fewer tasks wait at once\n"
        ).encode()
