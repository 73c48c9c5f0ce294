"""Calls: what the takers of a session ask of the server, each answered once.

A taker's calls are sent one after the other; what a call asks for is decided
when it is sent, so that it builds on the answers to all that came before. What
is unanswered when a connection breaks is sent again under the same numbers.
Everything here runs on the event-loop thread, except ``post`` and the
registering of takers.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from multihost.client.asyncio_taker import LoopTaker
from multihost.client.blobs import BlobExchange
from multihost.client.branches import FRAME_BYTES, Branch, Branches
from multihost.client.taker import Pending, Taker
from multihost.client.takers import TaskTakers, ThreadTakers
from multihost.client.thread_taker import ThreadTaker
from multihost.errors import MultihostError
from multihost.runtime import clock
from multihost.wire import message as m
from multihost.wire.codec import encode
from multihost.wire.taking import LINGER_S

if TYPE_CHECKING:
    from multihost.client.session import Session

ENDED_TAKERS = 1000
"""How many ended takers are named again after a reconnect."""
FINISH_S = 5.0
"""How long a session that ends waits for its last confirmations."""


class Calls:
    """All takers of one session, and what they wait for.

    Invariant: ``_pending`` has the current call of every taker that has one; each
    leaves with its answer or with the session's failure.
    """

    def __init__(self, session: "Session") -> None:
        """Serve the takers of ``session``."""
        self.session = session
        self.seal = session.seal
        """What items are signed with."""
        self.threads = ThreadTakers(self)
        self.tasks = TaskTakers(self)
        self._numbers = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._ended: deque[int] = deque(maxlen=ENDED_TAKERS)
        self._ending: set[asyncio.Future[None]] = set()
        self._staged: set[Taker] = set()
        self._swept: set[Taker] = set()
        """Takers for which what they have staged is being sent."""
        self._is_sweep_due = False
        self._keeper: LoopTaker | None = None
        self.branches = Branches(session)
        self.is_exiting = False
        """Only daemon threads are left: they are not woken to fail, but stop where they are."""
        self._number = 0
        """The server's number of the session, once it is known."""

    @property
    def are_waiting(self) -> bool:
        """Whether a taker waits for an answer."""
        return bool(self._pending)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that everything runs on."""
        return self.session.loop

    @property
    def blobs(self) -> BlobExchange:
        """How large payloads travel."""
        return self.session.blobs

    # any thread ----------------------------------------------------------------------

    def new_number(self) -> int:
        """Number for one more taker."""
        return next(self._numbers)

    def post(self, call: Callable[[], None]) -> None:
        """Call something on the loop's thread; raises ConnectionLost when the client is closed."""
        self.session.post(call)

    def post_end(self, taker: Taker, *, is_clean: bool) -> None:
        """A taker is no more; see ``end``."""
        with contextlib.suppress(MultihostError):  # closed: its session has ended, too
            self.session.post(lambda: self.end(taker, is_clean=is_clean))

    def note_staged(self, taker: Taker) -> None:
        """Have what ``taker`` staged sent soon, whatever it does meanwhile."""
        self._staged.add(taker)
        if not self._is_sweep_due:
            self._is_sweep_due = True
            self.session.post(self._arm)

    def forget_queue(self, queue: int) -> None:
        """A queue is about to be dropped: no taker is to confirm what it took from there.

        Called before that is asked for: a confirmation behind it would be void, and with it
        what is put along.
        """
        for taker in self._takers():
            taker.forget_queue(queue)

    def spawn(self, work: Callable[[Taker], Coroutine[Any, Any, None]]) -> None:
        """Have something done that nobody waits for: dropping what is no longer used."""
        with contextlib.suppress(MultihostError):  # closed: transients go with the session
            self.session.post(lambda: self._spawn(work))

    def start_here(self, pending: Pending) -> bool:
        """Send a call from the thread that makes it, if its turn has come.

        True: it is answered already. Raises ConnectionLost when the client has been closed.
        """
        taker = pending.taker
        assert isinstance(taker, ThreadTaker)
        if not taker.enter_here(pending, self._pending):
            return False
        failure = self.session.failure
        if failure is not None:
            # Whoever told the others that the session is lost may have missed this one.
            taker.drop_branch(pending)
            taker.leave(self._pending)
            raise failure
        if pending.act is None:
            self.session.post(lambda: self._send(pending))
            return False
        call = m.Call(taker.number, pending.number, pending.act, pending.wait_s)
        if pending.branch is not None:
            frame = encode((call,))
            if len(frame) <= FRAME_BYTES:
                return self._ask(pending.branch, frame, pending, taker)
            pending.branch = None
        if not self.session.send_here(call):
            self.session.post(lambda: self.session.send(call))
        return False

    def line_up(self, pending: Pending) -> None:
        """Make a call that nobody waits for before all that its taker asks for from now on."""
        taker = pending.taker
        if not taker.enter(pending, self._pending):
            return
        with contextlib.suppress(MultihostError):  # closed: what it held is others' anyway
            if self.session.failure is None:
                self.session.post(lambda: self._send(pending))
                return
        taker.leave(self._pending)

    def resend(self, pending: Pending) -> None:
        """Have a call go on over the session's connection, unless it is answered by then."""

        def resend() -> None:
            if pending.taker.current is pending:
                self._transmit(pending)

        self.session.post(resend)

    # the loop's thread ---------------------------------------------------------------

    def start(self, pending: Pending) -> None:
        """Send a call, or let it wait for those of its taker that came before."""
        failure = self.session.failure
        if failure is not None:
            self._over(pending, failure)
        elif pending.taker.enter(pending, self._pending):
            self._send(pending)

    def abandon(self, pending: Pending) -> None:
        """Withdraw a call; what it is granted nevertheless is given back.

        One that gives something up is made all the same: somebody may wait for that.
        """
        has_answer = pending.result is not None and not pending.is_abandoned
        pending.is_abandoned = True
        taker = pending.taker
        if taker.current is pending and pending.act is None:
            # Whoever was interrupted had not come to say what it asks for.
            if pending.is_owed:
                taker.decide_again(pending)
            self._send(pending)
        elif taker.current is pending:
            # Whoever was interrupted may not have come to send it.
            self._transmit(pending)
            self.session.send(m.Withdraw(taker.number, pending.number))
        elif has_answer and pending.act is not None:
            assert pending.result is not None
            act = taker.undo(pending.act, pending.result)
            if act is not None:
                self.start(Pending(taker, lambda: act, 0.0, _nobody))
        elif not pending.is_owed:
            taker.cancel(pending)

    def end(self, taker: Taker, *, is_clean: bool) -> None:
        """A taker is no more. In good order: what it held is done with, else it is for others."""
        over: asyncio.Future[None] = self.session.loop.create_future()
        self._ending.add(over)
        over.add_done_callback(self._ending.discard)

        def gone() -> None:
            # A lock that it left held stays so: any thread may release it.
            if not (is_clean and taker.tokens):
                self._ended.append(taker.number)
                self.session.send(m.EndTaker(taker.number))
            over.set_result(None)

        self._staged.discard(taker)
        if isinstance(taker, ThreadTaker):
            taker.retire()
        self.start(Pending(taker, taker.last_act if is_clean else _nothing, 0.0, gone))

    def answered(self, answer: m.Answer) -> None:
        """Take the answer to a call; one that came before, again, is ignored."""
        pending = self._pending.get(answer.taker)
        if pending is None or pending.number != answer.number:
            return
        following = pending.taker.answered(pending, answer.result, self._pending)
        if following is not None:
            self._send(following)
        pending.wake()

    def disconnected(self) -> None:
        """The connection broke, and with it the branches."""
        self.branches.cut()

    def connected(self, welcome: m.Welcome, error: MultihostError | None) -> None:
        """The connection stands (again). ``error``: what calls asked for is not there any more."""
        if self._number not in (0, welcome.session) or error is not None:
            for taker in self._takers():
                taker.lose()
        self._number = welcome.session
        self.branches.connected(welcome.ticket)
        if error is not None:
            self.fail(error)
        for number in self._ended:
            self.session.send(m.EndTaker(number))
        for pending in list(self._pending.values()):
            self._transmit(pending)
            if pending.is_abandoned:
                self.session.send(m.Withdraw(pending.taker.number, pending.number))

    def fail(self, error: MultihostError) -> None:
        """The session is lost: every call ends with ``error``."""
        self.branches.cut()
        for first in list(self._pending.values()):
            for pending in first.taker.leave(self._pending):
                if not (self.is_exiting and isinstance(pending.taker, ThreadTaker)):
                    self._over(pending, error)

    async def finish(self, keeper: Taker | None) -> None:
        """Before the session ends: have done with what ``keeper`` and ended takers held.

        What others still hold is for others.
        """
        if keeper is not None:
            self.end(keeper, is_clean=True)
        if self._ending and self.session.is_connected:
            await asyncio.wait(set(self._ending), timeout=FINISH_S)

    # within --------------------------------------------------------------------------

    def _send(self, pending: Pending) -> None:
        """Send a call whose turn it is; one that turns out to be void is over at once."""
        act, taker = pending.act, pending.taker
        if act is not None:
            self.session.send(m.Call(taker.number, pending.number, act, pending.wait_s))
            return
        following = taker.advance(self._pending)
        if following is not None:
            self._send(following)
        pending.wake()

    def _ask(self, branch: Branch, frame: bytes, pending: Pending, taker: ThreadTaker) -> bool:
        """Make a call on a branch; whether it was answered there."""
        result = branch.ask(frame, pending.number)
        if result is not None:
            counts, following = taker.answered_on_branch(pending, result, self._pending)
            if following is not None:
                # Something else is asked for the taker: nobody waits for that here.
                self.session.post(lambda: self._send(following))
            if counts:
                return True
        taker.drop_branch(pending)
        if taker.current is pending:
            self.resend(pending)
        return False

    def _transmit(self, pending: Pending) -> None:
        """Send a call again."""
        wait_s = pending.wait_s
        if wait_s is not None:
            wait_s = max(0.0, wait_s - (clock.mono() - pending.began))
        if pending.act is not None:
            call = m.Call(pending.taker.number, pending.number, pending.act, wait_s)
            self.session.send(call)

    def _over(self, pending: Pending, error: MultihostError) -> None:
        pending.error = error
        pending.wake()

    def _spawn(self, work: Callable[[Taker], Coroutine[Any, Any, None]]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(MultihostError):  # gone already, or the session is over
                await work(self._housekeeper())

        task = self.session.loop.create_task(quietly())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _housekeeper(self) -> Taker:
        if self._keeper is None:
            self._keeper = LoopTaker(self, self.new_number())
        return self._keeper

    def _takers(self) -> Iterable[Taker]:
        return [*self.threads, *self.tasks]

    # what is staged ------------------------------------------------------------------

    def _arm(self) -> None:
        self.session.loop.call_later(LINGER_S, self._sweep)

    def _sweep(self) -> None:
        """Send what has been staged, and not gone along with a call of its taker's meanwhile."""
        takers, self._staged = self._staged, set()
        self._is_sweep_due = False
        for taker in takers:
            if taker.taking.staged and taker not in self._swept:
                # It waits its turn if a call is under way, which was decided before.
                self._swept.add(taker)
                self.start(Pending(taker, taker.staged_act, 0.0, partial(self._was_swept, taker)))
        if self._staged and not self._is_sweep_due:
            self._is_sweep_due = True
            self._arm()

    def _was_swept(self, taker: Taker) -> None:
        self._swept.discard(taker)
        taking = taker.taking
        if taking.staged and not taking.kept and self.session.failure is None:
            self.note_staged(taker)  # while the other was on its way


def _nobody() -> None:
    """Nobody waits."""


def _nothing() -> None:
    """Nothing is asked."""
