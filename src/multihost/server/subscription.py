"""What a client is told of a job: outcomes, output, starts, its end.

An outcome is pushed as soon as it is committed, while the connection takes
it. A client that reads slowly costs no memory: what does not fit is left in
the store and replayed from there, page by page, as the connection drains.
"""

import asyncio
from collections.abc import Sequence

from multihost.core.ids import index_of
from multihost.core.job import JobSpec
from multihost.runtime.link import Link
from multihost.server.committer import Committer
from multihost.server.hub import by_job
from multihost.server.operation import Operation
from multihost.server.printing import HeldOutput, Piece, Unheard
from multihost.server.processes import Process
from multihost.store.base import Final, JobRow, Store
from multihost.wire import message as m

REPLAY_PAGE = 500
"""Outcomes read from the store at a time."""
OUTCOMES_BYTES = 4 << 20
"""Of payloads in one message, or a single one that is larger."""


class Subscription:
    """A client's interest in one job, under the client's own alias.

    Invariant: the job's end is told after its last outcome.
    """

    def __init__(self, alias: int, spec: JobSpec, link: Link, committer: Committer) -> None:
        """Tell of a job by ``link``; what was missed is read through ``committer``."""
        self.alias = alias
        self.spec = spec
        self.number: int | None = None
        """The server's number, once the job is open."""
        self.session = 0
        """The client's, once the job is open."""
        self.refused: str | None = None
        """Why it is not."""
        self.told = ""
        """The last reason for waiting that the client was told."""
        self.has_progress = False
        """Whether anything has become of the job since that was looked at."""
        self._link = link
        self._committer = committer
        self._output = HeldOutput()
        """What was printed and could not be sent yet."""
        self._is_replaying = False
        self._cursor = -1
        """Outcomes up to this index have been replayed."""
        self._missed: int | None = None
        """Smallest index whose outcome could not be pushed."""
        self._ended: m.Ended | None = None
        self._is_closed = False

    def close(self) -> None:
        """Tell nothing any more."""
        self._is_closed = True

    def writable(self) -> None:
        """Go on with what did not fit."""
        self.send_output()
        self._catch_up()

    # outcomes --------------------------------------------------------------------------

    def push(self, outcomes: list[m.Outcome]) -> None:
        """Send outcomes, or note that they have to be replayed."""
        self.has_progress = True
        if self._is_replaying:
            # The replay comes by later indices by itself.
            outcomes = [outcome for outcome in outcomes if outcome.index <= self._cursor]
            if not outcomes:
                return
        if self._link.is_writable:
            self._send_outcomes(outcomes)
        else:
            self._miss(min(outcome.index for outcome in outcomes))

    def replay(self, first: int) -> None:
        """Send the outcomes from this index on that the store has."""
        self._cursor = first - 1
        self._is_replaying = True
        number, after = self.number, self._cursor
        assert number is not None

        def read(store: Store, _: float) -> tuple[list[Final], JobRow | None]:
            page = store.outcomes(number, after, REPLAY_PAGE)
            return page, None if len(page) == REPLAY_PAGE else store.job(number)

        self._committer.submit(Operation(read, lambda result: self._replayed(*result), False))

    def end(self, row: JobRow) -> None:
        """Tell that the job has ended, after its last outcome."""
        self._ended = m.Ended(self.alias, row.count, row.succeeded, row.failed, row.cancelled)
        self._catch_up()

    def _send_outcomes(self, outcomes: list[m.Outcome]) -> None:
        """Send outcomes in messages that fit into a frame, whatever was in them."""
        first, size_bytes = 0, 0
        for position, outcome in enumerate(outcomes):
            size_bytes += len(outcome.payload) if isinstance(outcome.payload, bytes) else 0
            if size_bytes > OUTCOMES_BYTES and position > first:
                self._link.send(m.Outcomes(self.alias, outcomes[first:position]))
                first, size_bytes = position, 0
        self._link.send(m.Outcomes(self.alias, outcomes[first:]))

    def _miss(self, index: int) -> None:
        if self._missed is None or index < self._missed:
            self._missed = index

    def _catch_up(self) -> None:
        """Replay what was missed; when nothing is, tell of the job's end."""
        if self._is_replaying or self._is_closed or not self._link.is_writable:
            return
        if self._missed is not None:
            first, self._missed = self._missed, None
            self.replay(first)
        elif self._ended is not None:
            self._link.send(self._ended)
            self._ended = None

    def _replayed(self, page: list[Final], row: JobRow | None) -> None:
        if self._is_closed:
            return
        if page:
            outcomes = [
                m.Outcome(index_of(final.task), final.ending, final.payload) for final in page
            ]
            self._cursor = outcomes[-1].index
            self._send_outcomes(outcomes)
        self._is_replaying = False
        if row is None:
            # Another page; if the connection is full, when it has drained.
            self._miss(self._cursor + 1)
            asyncio.get_running_loop().call_soon(self._catch_up)
        elif row.state.is_final:
            self.end(row)
        else:
            self._catch_up()

    # starts and output -----------------------------------------------------------------

    def started(self, indices: list[int]) -> None:
        """Tell that tasks were leased."""
        self.has_progress = True
        if self.spec.wants_starts:
            self._link.send(m.Started(self.alias, indices))

    def process_began(self, index: int, process: Process) -> None:
        """Tell that a process runs, and where."""
        self.has_progress = True
        process.starter = self.session
        if process.pid is not None:
            self._link.send(
                m.ProcessBegan(self.alias, index, process.pid, process.host, process.worker)
            )

    def printed(self, piece: Piece) -> None:
        """Pass on what a task wrote; later to a client that does not keep up."""
        if self.spec.wants_output:
            self._output.add(piece)
            self.send_output()

    def resume_output(self, pieces: list[Piece]) -> None:
        """Send what was printed while nobody watched."""
        for piece in pieces:
            self._output.add(piece)
        self.send_output()

    def send_output(self) -> None:
        """Send what was printed, if the connection takes it."""
        if self._output and self._link.is_writable:
            for index, stream, data in self._output.take():
                self._link.send(m.Printed(self.alias, index, stream, data))


class Watchers:
    """Who is to be told of which job."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.by_job: dict[int, list[Subscription]] = {}
        self.unheard = Unheard()

    def add(self, number: int, subscription: Subscription) -> None:
        """Tell of this job."""
        self.by_job.setdefault(number, []).append(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Don't tell any more."""
        subscription.close()
        number = subscription.number
        if number is None:
            return
        left = [each for each in self.by_job.get(number, ()) if each is not subscription]
        if left:
            self.by_job[number] = left
        else:
            self.by_job.pop(number, None)

    def push(self, finals: Sequence[Final]) -> None:
        """Send committed outcomes to those who wait for them."""
        if not finals or not self.by_job:
            return
        for number, outcomes in by_job(finals).items():
            for subscription in self.by_job.get(number, ()):
                subscription.push(outcomes)

    def ended(self, row: JobRow) -> None:
        """Tell that a job has ended."""
        for subscription in self.by_job.get(row.number, ()):
            subscription.end(row)

    def started(self, number: int, indices: list[int]) -> None:
        """Tell that tasks of a job were leased."""
        for subscription in self.by_job.get(number, ()):
            subscription.started(indices)

    def process_began(self, number: int, index: int, process: Process) -> None:
        """Tell that a process runs, and where."""
        for subscription in self.by_job.get(number, ()):
            subscription.process_began(index, process)

    def printed(self, number: int, index: int, stream: int, data: bytes) -> None:
        """Pass on what a task wrote; later to a client that is away or does not keep up."""
        piece = Piece(index, stream, data)
        watching = self.by_job.get(number)
        if not watching:
            self.unheard.add(number, piece)
            return
        for subscription in watching:
            subscription.printed(piece)
