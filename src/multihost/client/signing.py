"""The seal at a client: what it submits is signed, what comes back is checked.

Made only where a seal is configured. A task is signed when its index is known,
an outcome is checked before its receiver hears of it, and so before anything
could unpickle it. A mark is remembered for each task under way.
"""

from typing import TYPE_CHECKING

import msgspec

from multihost.client.blobs import Bytes
from multihost.client.outcomes import failure_of
from multihost.client.packing import Bulk
from multihost.core.digest import digest_of
from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending
from multihost.errors import SealError
from multihost.wire.blob import Blob, Payload
from multihost.wire.seal import PREFIX_BYTES, JobSeal, Seal, is_outcome, job_text, marked

if TYPE_CHECKING:
    from collections.abc import Sequence


class Signer:
    """Signs the tasks of one job and checks their outcomes."""

    def __init__(self, seal: Seal, spec: JobSpec, uid: bytes) -> None:
        """Sign for the job ``uid``; ``spec`` is then the job with its mark."""
        self._seal = seal
        self._job = JobSeal(seal, seal.identity(spec, uid))
        self._marks: dict[int, bytes] = {}
        """Of the tasks whose outcomes have not come, by index."""
        initializer = spec.context.initializer if spec.context is not None else None
        text = job_text(spec.style, spec.function, initializer, spec.ship)
        self.spec = msgspec.structs.replace(spec, mark=self._job.job_mark(text))

    def tasks(self, first: int, payloads: "Sequence[Payload]") -> list[Payload]:
        """Payloads of the tasks from ``first`` on, signed; blobs were signed before."""
        return [
            self._task(index, payload) if type(payload) is bytes else payload
            for index, payload in enumerate(payloads, first)
        ]

    def bulk(self, index: int, bulk: Bulk) -> Bulk:
        """A large payload, signed."""
        data = self._task(index, bulk.data)
        return Bulk(Blob(digest_of(data), len(data)), data)

    @staticmethod
    def unsigned(payload: Payload) -> bytes | None:
        """A payload as it was before it was signed; None when only its digest is known."""
        return payload[PREFIX_BYTES:] if isinstance(payload, bytes) else None

    def _task(self, index: int, payload: bytes) -> bytes:
        mark = self._marks[index] = self._job.task_mark(index, payload)
        return marked(mark, payload)

    def error_of(self, index: int, ending: Ending, payload: Bytes) -> SealError | None:
        """Why an outcome must not be unpickled, or None if it may be."""
        mark = self._marks.pop(index, None)
        is_error = ending is not Ending.OK
        if is_error:
            exception = failure_of(ending, bytes(payload)).exception
            if exception is None:
                return None
            payload = exception
        elif self.spec.style is Style.PROCESS:
            return None  # it succeeded; what came with that is nobody's to unpickle
        if mark is not None and is_outcome(self._seal, mark, payload, is_error=is_error):
            return None
        what = "exception" if is_error else "result"
        return SealError(
            f"the {what} of task {index} of {self.spec.label or 'a job'} is not signed with this "
            f"client's seal ({self._seal.id.hex()}), and was not unpickled: it was altered on its "
            "way, or is of a worker without the seal. Look at the server's machine and its store; "
            "give workers the seal with a join string, MULTIHOST_SEAL or the file 'seal'"
        )
