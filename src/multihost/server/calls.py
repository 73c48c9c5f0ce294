"""What takers ask of queues and synchronizers: done once, answered once.

A call is run in the committer's next transaction. If what it asks for is not
there yet, it is parked in memory, in the order of arrival, and the transaction
that brings what it waits for does and answers it too; nothing here polls. A
call that comes again after a broken connection is not done again: the store
has its answer, or it goes on waiting in its place.
"""

from collections.abc import Callable

from multihost.server.committer import Committer
from multihost.wire.act import AnyAct, AnyResult

Reply = Callable[[AnyResult], None]


class Calls:
    """The service that does the calls of all takers.

    Takers are named by their full number (``core.ids.taker_id``). A reply is called at most
    once, on the loop, after the commit that did the call; a withdrawn or ended taker's is not.
    """

    def __init__(self, committer: Committer) -> None:
        """Serve the queues and synchronizers in the store of ``committer``."""
        self._committer = committer

    def open_taker(self, session: int) -> int:
        """Full number of a taker that ``session`` has not had since this server began."""
        raise NotImplementedError

    def call(
        self, taker: int, number: int, act: AnyAct, wait_s: float | None, reply: Reply
    ) -> None:
        """Do an act for a taker, waiting at most ``wait_s`` (None: as long as it takes).

        The number rises with each call of the taker; one that comes again takes the place
        of the first, whose reply is forgotten.
        """
        raise NotImplementedError

    def withdraw(self, taker: int, number: int) -> None:
        """Answer a call now, as if its time were over; nothing if it is answered."""
        raise NotImplementedError

    def end_taker(self, taker: int, *, is_clean: bool = True) -> None:
        """The taker is no more: what it holds goes to others; what it waits for is not answered.

        Clean: it ended in good order, and as in the standard library what it took from
        semaphores stays taken. Not clean: that is given back too.
        """
        raise NotImplementedError

    def end_session(self, session: int, *, is_clean: bool = False) -> None:
        """All takers of a session are no more."""
        raise NotImplementedError
