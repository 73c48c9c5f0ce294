"""How attempts ended: what the server is told of each, and by which way."""

import signal
from collections.abc import Callable

import msgspec

from multihost.core.outcome import Ending, Failure, encode_failure
from multihost.wire import message as m
from multihost.worker import reports
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.frames import InFile
from multihost.worker.leases import Leases
from multihost.worker.oom import OutOfMemoryWatch
from multihost.worker.outbox import Outbox
from multihost.worker.slot import Death, Slot
from multihost.worker.work import Work


class Outcomes:
    """Takes down how works ended, one after the other.

    Invariant: an outcome whose lease is still held goes into the outbox, once; a large
    result when the server has it as a blob, and until then its lease is held on.
    """

    def __init__(
        self,
        leases: Leases,
        outbox: Outbox,
        blobs: WorkerBlobs,
        *,
        worker: str,
        stored: Callable[[], None],
    ) -> None:
        """Failures name ``worker``; ``stored`` is told of each large result that arrived."""
        self._leases = leases
        self._outbox = outbox
        self._blobs = blobs
        self._worker = worker
        self._stored = stored
        self._oom = OutOfMemoryWatch()

    def report(self, work: Work, ending: Ending, data: bytes | InFile, run_s: float) -> None:
        """A work that was forgotten has ended like this."""
        grant = work.grant
        if isinstance(data, bytes) and (ending is not Ending.OK or len(data) <= m.INLINE_BYTES):
            self._outbox.add(m.Attempt(grant.task, grant.token, ending, data, run_s))
            return
        # Held like an unfinished task until the server has the result.
        self._leases.works[grant.task] = work

        def stored(blob: m.Blob, error: str | None) -> None:
            self._leases.forget(work)
            if work.is_revoked:
                return
            if error is not None:
                self.fail(work, reports.unstored_result(error))
            else:
                self._outbox.add(m.Attempt(grant.task, grant.token, ending, blob, run_s))
            self._stored()

        if isinstance(data, InFile):
            self._blobs.put_file(data, stored)
        else:
            self._blobs.put(data, stored)

    def fail(self, work: Work, failure: Failure) -> None:
        """A work has failed, whether it began or not."""
        self._leases.forget(work)
        failure = msgspec.structs.replace(failure, worker=self._worker)
        self.report(work, failure.ending, encode_failure(failure), 0.0)

    def fail_by_timeout(self, work: Work) -> None:
        """A work ran too long, and was ended."""
        self.fail(work, reports.timeout(work))

    def died(self, slot: Slot, work: Work, death: Death) -> None:
        """A child is gone, and the work that it ran with it."""
        if work.is_revoked:
            self._leases.forget(work)
        elif work.is_timed_out:
            self.fail_by_timeout(work)
        else:
            is_oom = death.exit_code == -signal.SIGKILL and self._oom.has_struck()
            failure = reports.crash(work, slot, death, self._worker, is_out_of_memory=is_oom)
            self.fail(work, failure)

    def exited(self, slot: Slot, work: Work, death: Death) -> None:
        """A process has ended, or is being killed: that is its outcome."""
        if not self._leases.holds(work):
            return
        self._leases.forget(work)
        if not work.is_revoked:
            ending, data = reports.exit(
                work, slot, death, self._worker, has_oom=self._oom.has_struck
            )
            self._outbox.add(m.Attempt(*work.lease, ending, data, death.run_s))
