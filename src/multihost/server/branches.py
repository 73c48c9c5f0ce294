"""Branches of a client's session: connections that each carry one thread's calls.

A branch spares a thread that blocks the way over its client's event loop. It
holds nothing of the session, and its end means nothing: what was not answered
on it comes again over the connection that the session is open on, and is done
once in any case. All branches end with that connection.
"""

import hmac
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multihost.core.ids import taker_id
from multihost.runtime.spinning import known_slow
from multihost.server.gateway import Connection
from multihost.server.services import Services
from multihost.wire import message as m

if TYPE_CHECKING:
    from multihost.server.clients import ClientPeer

MAX_BRANCHES = 64
"""Of one session."""
SHARE = 0.5
"""Of the connections that a server takes: with more than these it makes no branches."""
TICKET_BYTES = 32


class Branches:
    """The branches of one session on one connection, and the ticket that makes them."""

    def __init__(self, main: "ClientPeer") -> None:
        """Begin with none."""
        self.main = main
        self.ticket = secrets.token_bytes(TICKET_BYTES)
        """Known to the session's client alone; not taken again once its connection is gone."""
        self._open: set[BranchPeer] = set()
        self._is_closed = False

    def admits(self, connection: Connection, ticket: bytes) -> bool:
        """Whether it is the session's own client that shows this ticket."""
        is_right = hmac.compare_digest(ticket, self.ticket)
        return is_right and not self._is_closed and connection.key.id == self.main.connection.key.id

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._open) >= MAX_BRANCHES

    def add(self, branch: "BranchPeer") -> None:
        """One more."""
        self._open.add(branch)

    def discard(self, branch: "BranchPeer") -> None:
        """One less."""
        self._open.discard(branch)

    def close(self) -> None:
        """The session's connection is gone, and nothing goes on without it."""
        self._is_closed = True
        for branch in list(self._open):
            branch.hang_up("the session's connection is gone")


class BranchPeer:
    """One branch.

    Invariant: it takes a call only if that is the next of a taker known here. A late one, which
    has come again over the session's connection meanwhile, would take its answer along.
    """

    def __init__(self, branches: Branches, connection: Connection) -> None:
        """Serve the calls that come by ``connection``."""
        self._branches = branches
        self._main = branches.main
        self._link = connection.link
        self._is_over = False
        branches.add(self)
        self._link.send(m.Branched(known_slow()))

    def received(self, messages: Sequence[Any]) -> None:
        """Do calls."""
        main = self._main
        for message in messages:
            if self._is_over:
                return
            if main.services.calls.is_next(taker_id(main.session, message.taker), message.number):
                # At once: who waits there goes on while the rest of the turn is done here.
                main.call(message, self._link, self._link.send_at_once)
            else:
                self.hang_up("a call that is not its taker's next")

    def writable(self) -> None:
        """Nothing waits for that: a thread has one call under way."""

    def closed(self, reason: str) -> None:
        """The connection is gone."""
        self._is_over = True
        self._branches.discard(self)

    def hang_up(self, reason: str) -> None:
        """Take nothing more; the client goes on over the session's connection."""
        self._is_over = True
        self._link.abort(reason)


def open_branch(
    services: Services, connection: Connection, message: m.Branch
) -> BranchPeer | m.Denied:
    """Make a connection a branch of the session that it has the ticket of, if there is room."""
    main = services.client_peers.get(message.session)
    if main is None or not main.branches.admits(connection, message.ticket):
        return m.Denied(m.DenialCode.SESSION, "no open session has this ticket")
    if main.branches.is_full:
        text = f"a session has at most {MAX_BRANCHES} branches (max_branches)"
        return m.Denied(m.DenialCode.LIMIT, text)
    admission = connection.gateway.admission
    if len(admission.proved) > SHARE * admission.max_connections:
        text = f"the server has over {SHARE:.0%} of its {admission.max_connections} connections"
        return m.Denied(m.DenialCode.LIMIT, f"{text} (max_connections), and branches none")
    return BranchPeer(main.branches, connection)
