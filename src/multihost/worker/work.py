"""A leased task at a worker."""

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from multihost.core.digest import digest_of
from multihost.core.job import Style
from multihost.wire import message as m
from multihost.wire.seal import job_text

if TYPE_CHECKING:
    from multihost.worker.fetch import Copy
    from multihost.worker.slot import Slot


@dataclass(slots=True, eq=False)
class Work:
    """A lease, from its grant until its outcome is reported or it is given back."""

    grant: m.Grant
    job: m.JobInfo
    payload: bytes | Path | None
    """None while its blob is on the way; a path when it is too large for memory."""
    slot: "Slot | None" = None
    """Where it was fed; None while it waits."""
    timer: asyncio.TimerHandle | None = None
    is_timed_out: bool = False
    is_revoked: bool = False
    is_lapsed: bool = False
    """Whether it is being ended because nobody could renew its lease in time."""
    output_bytes: int = 0
    copies: "tuple[Copy, ...]" = ()
    """Blobs that are kept for it."""

    @property
    def held(self) -> m.Held:
        """The lease's name."""
        return m.Held(self.grant.task, self.grant.token)

    @property
    def lease(self) -> tuple[int, int]:
        """Task and token."""
        return self.grant.task, self.grant.token

    @property
    def is_process(self) -> bool:
        """Whether it is a process of its own, not something for a slot."""
        return self.job.style is Style.PROCESS

    @property
    def size_bytes(self) -> int:
        """Of its payload, as far as that is in memory."""
        payload = self.payload
        return len(payload) if isinstance(payload, bytes) else 0

    @property
    def signed_text(self) -> bytes:
        """The job's mark, and what that covers."""
        job = self.job
        initializer = job.context.initializer if job.context is not None else None
        return (job.mark or b"") + job_text(job.style, job.function, initializer, job.ship)

    @property
    def is_choosy(self) -> bool:
        """Whether a child that has served others won't do."""
        return self.job.context is not None or bool(self.job.ship)

    @property
    def context(self) -> str | None:
        """Which children it needs: a pool's own, or such as import just what its job ships."""
        pool, ship = self.job.context, self.job.ship
        if ship:
            return children_of(pool.uid if pool is not None else "", ship)
        return pool.uid if pool is not None else None


@lru_cache(256)
def children_of(pool: str, ship: tuple[bytes, ...]) -> str:
    """The name of the children that serve a pool, or none, and import what was shipped."""
    return f"{pool}+{digest_of(b''.join(ship)).hex()[:32]}"
