"""What Pool and Executor have in common: child processes of their own, and who submits to them."""

import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from multihost.client.client import Client
from multihost.client.latch import Latch
from multihost.client.packing import Bulk, archives_of, pack_initializer
from multihost.client.printer import is_shown
from multihost.client.stream import Stream
from multihost.client.submitter import Submitter
from multihost.core.job import Context, JobSpec, Style
from multihost.core.resources import Requirement
from multihost.errors import ConnectionLost
from multihost.wire.message import Blob

if TYPE_CHECKING:
    from multihost.client.pool_processes import PoolProcess
    from multihost.client.shipping import Ship


class Crew:
    """The jobs of one pool or executor, and how its child processes begin and end.

    ``width`` bounds how many tasks run at once over all workers; None leaves it
    to the workers' slots.
    """

    def __init__(
        self,
        client: Client,
        *,
        width: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        max_tasks: int | None = None,
        name: str | None = None,
        queue: str,
        wants_starts: bool = False,
        is_watched: bool = False,
        shows_output: bool = True,
        ship: "Ship | None" = None,
    ) -> None:
        """Say what the jobs share; raises PayloadError if the initializer can't be pickled."""
        uid = secrets.token_hex(8)
        shipped = archives_of(ship)
        blobs: list[Bulk] = [*shipped]
        context, python = None, None
        if initializer is not None or max_tasks is not None:
            digest = None
            if initializer is not None:
                packed = pack_initializer(initializer, initargs)
                digest, python = packed.digest, packed.python
                blobs.append(Bulk(Blob(digest, len(packed.data)), packed.data))
            context = Context(uid, digest, max_tasks)
        options = JobSpec(
            name=name,
            queue=queue,
            width=width,
            context=context,
            requires=Requirement(python=python, context=uid if width is not None else None),
            is_transient=name is None,
            wants_starts=wants_starts,
            wants_output=shows_output and is_shown(),
            ship=tuple(bulk.blob.digest for bulk in shipped),
        )
        session = client.session
        self._client = client
        self._uid = uid if context is not None else ""
        self._session = session
        self._is_lasting = name is not None
        self._submitter = Submitter(session, options, blobs, is_watched=is_watched)
        self.stream: Callable[..., Stream] = self._submitter.stream
        # Only an embedded server's worker heeds it, be it this program's or, in a task, another's.
        session.post(lambda: session.ask_slots(width or 1))

    def post(self, call: Callable[[], None]) -> None:
        """Call something on the event-loop thread."""
        self._session.post(call)

    def own_stream(self, function: Callable[..., Any], style: Style) -> Stream:
        """A job for one purpose."""
        return self._submitter.own_stream(function, style)

    def streams(self) -> list[Stream]:
        """Every open job."""
        return self._submitter.streams()

    def unfinished(self) -> int:
        """Tasks whose outcome has not come; an estimate."""
        return sum(stream.unfinished for stream in self._submitter.streams())

    def processes(self, count: int) -> "list[PoolProcess]":
        """The ``count`` child processes that serve the jobs, or would: see ``pool_processes``."""
        from multihost.client.pool_processes import serving

        return serving(self._client.listings, self._uid, count)

    def wait_idle(self) -> None:
        """Wait until every task has ended."""
        idle = Latch()
        try:
            self._submitter.when_idle(idle.open)
        except ConnectionLost:
            if self._session.failure is None:  # forked: the tasks are the parent's
                raise
            return  # the client was closed, and all who waited were told
        idle.wait_open()

    def close(self, reason: str, *, is_sealing: bool = False) -> None:
        """Be done with the jobs: what is unfinished is cancelled, unless it is lasting.

        In a forked process nothing happens: they are the parent's.
        """
        if self._session.failure is None and self._session.is_ours:
            self._submitter.close(reason, is_sealing=is_sealing)

    def abandon(self) -> None:
        """Its owner was garbage-collected: finish nothing more, wait for nothing."""
        self.close("its pool was dropped without being closed")
