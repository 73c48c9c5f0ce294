"""Brings what a work needs before a slot can have it: arguments, function, shipped code."""

from collections.abc import Callable
from functools import partial

from multihost.core.outcome import Failure
from multihost.wire import message as m
from multihost.worker import reports
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.fetch import Copy, Where
from multihost.worker.leases import Leases
from multihost.worker.shelf import Shelf
from multihost.worker.work import Work


class Supplies:
    """What works wait for.

    Invariant: a work waits for one thing at a time. When that has come ``ready`` is told, or
    ``fail`` when it never will; neither if the work was forgotten meanwhile.
    """

    def __init__(
        self,
        blobs: WorkerBlobs,
        shelf: Shelf,
        leases: Leases,
        *,
        ready: Callable[[Work], None],
        fail: Callable[[Work, Failure], None],
    ) -> None:
        """Bring it from ``blobs`` and ``shelf``."""
        self._blobs = blobs
        self._shelf = shelf
        self._leases = leases
        self._ready = ready
        self._fail = fail

    def bring_payload(self, work: Work, blob: m.Blob) -> None:
        """Get the arguments; perhaps they are ready at once."""
        self._blobs.get(blob.digest, partial(self._payload_came, work), blob.size_bytes)

    def _payload_came(self, work: Work, copy: Copy | str) -> None:
        if self._has_come(work, copy, "an argument of the task") and isinstance(copy, Copy):
            work.payload = copy.where
            self._ready(work)

    def function(self, work: Work, digest: bytes) -> Where | None:
        """The blob if it is here; else the work waits for it."""
        found = self._blobs.cached(digest)
        if found is None:
            self._blobs.get(digest, partial(self._function_came, work))
            return None
        if not found.is_in_memory and found not in work.copies:
            self._keep(work, found)
        return found.where

    def _function_came(self, work: Work, copy: Copy | str) -> None:
        if self._has_come(work, copy, "the function of the job"):
            self._ready(work)

    def _has_come(self, work: Work, copy: Copy | str, what: str) -> bool:
        """Whether the work goes on; then it keeps the blob until it is forgotten."""
        if not self._leases.holds(work):
            return False
        if isinstance(copy, str):
            self._fail(work, reports.lost_blob(f"{what} {copy}"))
            return False
        self._keep(work, copy)
        return True

    def _keep(self, work: Work, copy: Copy) -> None:
        work.copies = (*work.copies, copy)
        self._blobs.use(copy)

    def shipped(self, work: Work) -> list[str] | None:
        """Where to import from what the job ships; else the work waits until it is unpacked."""
        paths = self._shelf.take(work.job.ship)
        if paths is None:
            self._shelf.bring(work.job.ship, partial(self._unpacked, work))
        return paths

    def _unpacked(self, work: Work, error: str | None) -> None:
        if not self._leases.holds(work):
            return
        if error is not None:
            self._fail(work, reports.unpacked_nothing(error))
        else:
            self._ready(work)
