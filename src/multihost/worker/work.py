"""A leased task at a worker."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multihost.wire import message as m

if TYPE_CHECKING:
    from multihost.worker.slot import Slot


@dataclass(slots=True, eq=False)
class Work:
    """A lease, from its grant until its outcome is reported or it is given back."""

    grant: m.Grant
    job: m.JobInfo
    payload: bytes | None
    """None while its blob is on the way."""
    slot: "Slot | None" = None
    """Where it was fed; None while it waits."""
    timer: asyncio.TimerHandle | None = None
    is_timed_out: bool = False
    is_revoked: bool = False
    output_bytes: int = 0

    @property
    def held(self) -> m.Held:
        """The lease's name."""
        return m.Held(self.grant.task, self.grant.token)

    @property
    def lease(self) -> tuple[int, int]:
        """Task and token."""
        return self.grant.task, self.grant.token

    @property
    def context(self) -> str | None:
        """The pool whose own children it needs."""
        return self.job.context.uid if self.job.context is not None else None
