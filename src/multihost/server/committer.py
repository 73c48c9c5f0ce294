"""Group commit: whatever arrived while the last commit was under way goes into the next.

The committer is the one owner of the store. Everybody else hands it
operations; it runs them in order within one transaction and answers each only
after the commit has returned; only leases leave a moment earlier. The
statements run on the event loop, a few microseconds each; a commit that waits
for the disk runs in a thread, so that meanwhile the loop reads the next frames
and the next batch grows. Only where the disk has been quick lately, and there is
little to do, is it waited for on the loop: a lone task pays for nothing but the
disk.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from multihost.errors import StoreError, StoreFull
from multihost.runtime import clock
from multihost.server.disk import Disk
from multihost.server.operation import Operation, Step, Written
from multihost.server.walltime import WallTime
from multihost.store.base import NO_CHANGES, Changes, Store

MAX_BATCH = 512
"""Operations in one transaction, by weight: bounds how long the event loop is busy with one."""
BEHIND = 20_000
"""Operations that may wait before who sends more is not read any more."""
FEW = 4
"""Operations of a commit that is waited for on the loop, at most."""
LINGER_S = 0.002
"""So long at most a lone task's transaction stays open for its outcome, to be written only
once; the event loop counts whole milliseconds and may end it up to one early."""
TOLD_LINGER_S = 0.05
"""So long what nobody waits for is kept from the disk, to pay for it once."""
FULL_RETRY_S = 1.0
"""Pause before what has to be written is tried again on a full disk."""


class CommitListener(Protocol):
    """Who takes part in every transaction: the hub."""

    def assign(self, store: Store, now: float) -> bool:
        """Lease what is ready to who waits, in this transaction; whether it has leases now."""
        ...

    def grant(self) -> None:
        """Send the leases of the transaction, before any answer."""
        ...

    def published(self) -> None:
        """The transaction is written: what was sent of it stands."""
        ...

    def committed(self, changes: Changes) -> None:
        """Everyone is answered; tell the rest of what has changed."""
        ...

    def rolled_back(self) -> None:
        """The transaction did not happen; forget what it promised, revoke what was sent."""
        ...


class Participant(Protocol):
    """Who keeps in memory what transactions change."""

    def finish(self, store: Store) -> None:
        """Every operation has run; write what is written once a transaction."""
        ...

    def published(self) -> None:
        """The transaction is written, and not undone any more; answer whom that is enough."""
        ...

    def committed(self) -> None:
        """All that was published is kept; answer."""
        ...

    def rolled_back(self) -> None:
        """The transaction did not happen; go back to what was published."""
        ...


class Committer:
    """The queue of operations and the turn that commits them.

    Invariant: at most one transaction is open or committing at any time, and
    no answer leaves before its commit has returned. Several may be written and
    wait for the same commit.
    """

    def __init__(
        self, store: Store, *, is_durable: bool, on_fatal: Callable[[Exception], None]
    ) -> None:
        """Own ``store``; ``is_durable``: acknowledged means on the disk, not just in its cache."""
        self.store = store
        self.listener: CommitListener | None = None
        self.participants: list[Participant] = []
        self.is_durable = is_durable
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._time = WallTime()
        self._pending: deque[Step] = deque()
        self._open: list[Step] = []
        """What has run in the transaction that is kept open for a lone task's outcome."""
        self._written = Written()
        self._closing: asyncio.TimerHandle | None = None
        """Sees to it that the open transaction is written in time; outlives it if it is."""
        self._opened_at = 0.0
        """When the transaction was kept open, on the loop's clock."""
        self._changes: list[Changes] = []
        """What was committed, and the listener was not told of."""
        self._lingering: asyncio.TimerHandle | None = None
        """When what is written is committed at the latest."""
        self._has_leases = False
        """Whether the listener has leases of what is not written yet."""
        self._keeps_leases = False
        """Whether leases of what is written wait for the commit."""
        self._is_busy = False
        self._is_due = False
        self._is_wanted = False
        """Whether somebody asked for a transaction since the last one was run."""
        self._is_broken = False
        self._idle: asyncio.Future[None] | None = None
        self._disk = Disk()

    def submit(self, operation: Step) -> None:
        """Run an operation in the next transaction."""
        self._pending.append(operation)
        if not self._is_due:
            self.kick()

    def submit_now(self, operation: Step) -> None:
        """Run a short operation at once, if nothing else is under way; never from within one."""
        if self._is_due or self._is_busy or self._is_broken or self._open or self._pending:
            self.submit(operation)
        else:
            self._attempt([operation])

    def kick(self) -> None:
        """Have a transaction soon, even without operations: somebody wants work."""
        self._is_wanted = True
        if not self._is_due and not self._is_busy and not self._is_broken:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def ask(
        self,
        run: Callable[[Store, float], Any],
        *,
        is_durable: bool = False,
        waits_for_room: bool = False,
        only_reads: bool = False,
    ) -> "asyncio.Future[Any]":
        """Run one operation and await its result; for everything off the hot path.

        ``waits_for_room``: do it when there is room again rather than raise StoreFull.
        ``only_reads``: needs no room.
        """
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: object) -> None:
            if not future.done():
                future.set_result(result)

        def failed(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        def refused(text: str) -> None:
            failed(StoreFull(text))

        refuse = None if waits_for_room else refused
        self.submit(Operation(run, done, is_durable, refuse, failed, only_reads=only_reads))
        return future

    @property
    def is_behind(self) -> bool:
        """Whether so much waits that nobody should bring more."""
        return len(self._pending) > BEHIND

    async def drain(self) -> None:
        """Wait until everything handed over so far is committed."""
        while self._has_work and not self._is_broken:
            self._idle = self._loop.create_future()
            await self._idle

    def stop(self) -> None:
        """Let the disk thread end; the store is closed by who opened it."""
        self._is_broken = True
        self._disk.stop()

    # the turn -------------------------------------------------------------------------

    def _turn(self) -> None:
        self._is_due = False
        if self._is_busy or self._is_broken:
            return
        pending, batch, room = self._pending, [], MAX_BATCH
        while pending and room > 0:
            operation = pending.popleft()
            room -= operation.weight
            batch.append(operation)
        self._attempt(batch)

    def _attempt(self, batch: list[Step], *, closes: bool = False) -> None:
        """Run a batch, write its transaction unless that stays open, and go on from there."""
        try:
            has_leases = self._run(batch)
            stays_open = has_leases and not closes and self._is_lone(batch)
            if stays_open:
                self._keep_open(batch)
            else:
                is_waited_for = self._write(batch)
        except StoreFull as error:
            self._store_is_full(self._take_open() + batch, error)
        except StoreError as error:
            self._break(error)
        except Exception:
            self._roll_back()
            self._run_alone(self._take_open() + batch)
        else:
            if stays_open:
                self._go_on()
            elif is_waited_for or not self.is_durable:
                self._settle()
            else:
                self._linger()

    def _run(self, batch: list[Step]) -> bool:
        """Do what is asked, in a new transaction or in the open one; whether that made leases."""
        store = self.store
        self._is_wanted = False
        if not self._open:
            store.begin()
        now = self._time.read(store)
        for operation in batch:
            operation.result = operation.run(store, now)
        assert self.listener is not None
        if not self.listener.assign(store, now):
            return False
        self._has_leases = True
        return True

    def _is_lone(self, batch: list[Step]) -> bool:
        """Whether a slot that got work got all there is: its outcome is here in a moment."""
        is_little = 0 < len(batch) <= FEW - len(self._open)
        return is_little and all(operation.may_linger for operation in batch)

    def _keep_open(self, batch: list[Step]) -> None:
        """Send the leases and wait for what comes of them, to write it all at once.

        The worker is told of what is not written yet: if the server dies now,
        the submit is lost with its lease, was not acknowledged, and is sent again;
        the outcome comes under a token that the next epoch never grants.
        """
        if not self._open:
            self._opened_at = self._loop.time()
        self._open += batch
        if self._closing is None:
            self._closing = self._loop.call_later(LINGER_S, self._look_after_open)
        assert self.listener is not None
        self.listener.grant()

    def _look_after_open(self) -> None:
        """Close what is open, or come back when it is time: setting a timer for each costs more."""
        self._closing = None
        left_s = self._opened_at + LINGER_S - self._loop.time()
        if self._open and left_s > LINGER_S / 4:
            self._closing = self._loop.call_later(left_s, self._look_after_open)
        else:
            self._close()

    def _close(self) -> None:
        """The outcome has not come in time."""
        if self._open and not self._is_broken:
            self._attempt([], closes=True)

    def _take_open(self) -> list[Step]:
        operations, self._open = self._open, []
        return operations

    def _write(self, batch: list[Step]) -> bool:
        """Write the transaction; whether somebody waits for its commit."""
        changes = self._prepare()
        self._publish(batch)
        if self._open:
            batch = self._take_open() + batch
        return self._written.add(batch, changes)

    def _linger(self) -> None:
        if self._lingering is None:
            self._lingering = self._loop.call_later(TOLD_LINGER_S, self._settle)
        self._go_on()

    def _prepare(self) -> Changes:
        for participant in self.participants:
            participant.finish(self.store)
        return self.store.prepare(clock.wall())

    def _publish(self, batch: list[Step]) -> None:
        """Write the transaction and send its leases.

        They need not wait for the disk: if the power fails before it has it
        all, they are lost with the rest, and nobody was told of anything else.
        So a task is on its way to its slot while its submit is made durable.
        """
        self.store.publish()
        self._time.keep()
        for participant in self.participants:
            participant.published()
        if not self._has_leases:
            return
        assert self.listener is not None
        self._has_leases = False
        if any(operation.comes_first for operation in batch):
            self._keeps_leases = True
        else:
            self.listener.grant()
        self.listener.published()

    def _settle(self) -> None:
        """Commit what is written, and answer."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._open:
            self._attempt([], closes=True)
            return
        if self._is_broken:
            return
        written, self._is_busy = self._written, True
        if not self.is_durable or not written.must_last:
            self._settle_here(is_durable=False)
        elif len(written.askers) > 2 * FEW or not self._disk.is_quick:
            self._disk.run(self._settle_in_thread)
        else:
            # In the loop's next round, when the leases have really left.
            self._loop.call_soon(lambda: self._settle_here(is_durable=True))

    def _settle_here(self, *, is_durable: bool) -> None:
        try:
            self._commit_store(is_durable=is_durable)
        except StoreError as error:
            self._break(error)
        else:
            self._settled()

    def _settle_in_thread(self) -> None:
        try:
            self._commit_store(is_durable=True)
        except Exception as error:
            self._loop.call_soon_threadsafe(self._break, error)
        else:
            self._loop.call_soon_threadsafe(self._settled)

    def _settled(self) -> None:
        self._is_busy = False
        written, self._written = self._written, Written()
        for participant in self.participants:
            participant.committed()
        for operation in written.askers:
            if operation.done is not None:
                operation.done(operation.result)
            operation.forget()
        assert self.listener is not None
        if self._keeps_leases:
            self._keeps_leases = False
            self.listener.grant()
            self.listener.published()
        # Answers leave first, in this turn of the loop.
        if not self._changes:
            self._loop.call_soon(self._tell)
        self._changes += written.changes or [NO_CHANGES]
        self._go_on()

    def _tell(self) -> None:
        """Have the listener tell what has changed."""
        told, self._changes = self._changes, []
        assert self.listener is not None
        for changes in told:
            self.listener.committed(changes)

    def _commit_store(self, *, is_durable: bool) -> None:
        began = clock.mono()
        self.store.commit(is_durable=is_durable)
        if is_durable:
            self._disk.took(clock.mono() - began)

    @property
    def _has_work(self) -> bool:
        waiting = self._pending or self._open or not self._written.is_empty
        return bool(waiting or self._is_busy or self._is_due or self._is_wanted)

    def _go_on(self) -> None:
        if self._pending or self._is_wanted:
            self.kick()
        elif self._idle is not None and not self._has_work:
            idle, self._idle = self._idle, None
            if not idle.done():
                idle.set_result(None)

    # when it goes wrong ------------------------------------------------------------------

    def _roll_back(self) -> None:
        self.store.rollback()
        self._time.undo()
        self._has_leases = False
        assert self.listener is not None
        self.listener.rolled_back()
        for participant in self.participants:
            participant.rolled_back()

    def _run_alone(self, batch: list[Step]) -> None:
        """Commit each operation of a batch by itself; slow, and only after a bug."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        for operation in batch:
            try:
                self._run([operation])
                changes = self._prepare()
                self._publish([operation])
                self._commit_store(is_durable=self.is_durable)
            except StoreError as error:
                self._break(error)
                return
            except Exception as error:
                self._roll_back()
                if operation.failed is None:
                    self._break(error)
                    return
                operation.failed(error)
            else:
                self._written.add([operation], changes)
                self._settled()
        if self._written.is_empty:
            self._go_on()
        else:
            self._settle()

    def _store_is_full(self, batch: list[Step], error: StoreFull) -> None:
        """Refuse what may be refused; keep the rest until there is room."""
        self._is_busy = False
        self._roll_back()
        kept = [op for op in batch if op.refused is None and not op.only_reads]
        for operation in reversed(kept):
            self._pending.appendleft(operation)
        for operation in batch:
            if operation.only_reads:
                self._answer(operation)
            elif operation.refused is not None:
                operation.refused(str(error))
        self._is_due = True
        self._loop.call_later(FULL_RETRY_S, self._turn)

    def _answer(self, operation: Step) -> None:
        """Answer what only reads, outside of any transaction."""
        try:
            result = operation.run(self.store, clock.wall())
        except Exception as error:  # a bug, told to whoever asked
            assert operation.failed is not None
            operation.failed(error)
        else:
            assert operation.done is not None
            operation.done(result)

    def _break(self, error: Exception) -> None:
        """The store can't be trusted any more: acknowledge nothing and stop the server."""
        self._is_busy = False
        self._is_broken = True
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._on_fatal(error)
