"""The seal in a slot's process: what is not signed for this very task is not touched.

Loaded only where the worker has a seal. It checks before anything of a task, its
function, its pool's initializer or the code it ships is loaded, and signs what
the task leaves behind. The agent is trusted to have compared blobs with their digests.
"""

from collections import OrderedDict

import msgspec

from multihost.core.digest import DIGEST_BYTES, digest_of
from multihost.core.ids import index_of, task_name
from multihost.core.outcome import Ending, Failure, decode_failure, encode_failure
from multihost.errors import SealError
from multihost.wire.seal import (
    JOB_MARK_BYTES,
    PREFIX_BYTES,
    JobSeal,
    Seal,
    mark_of,
    open_job,
    seal_outcome,
)
from multihost.worker.frames import STYLE_NUMBERS, Filed, split

JOBS = 64
"""Jobs whose marks were checked and need not be again."""
_FUNCTION = 1
_INITIALIZER = _FUNCTION + DIGEST_BYTES
_SHIP = _INITIALIZER + DIGEST_BYTES

Entry = tuple[int, int, str, bytes | Filed, bytes | None]


class Checker:
    """What of the tasks that come may be run, and marks for what they return.

    Invariant: ``sign`` signs only for the task that ``refusal`` found good last.
    """

    def __init__(self, secret: bytes) -> None:
        """Check with the worker's seal."""
        self._seal = Seal(secret)
        self._jobs: OrderedDict[bytes, JobSeal | None] = OrderedDict()
        self._mark: bytes | None = None

    def refusal(self, entry: Entry, paths: bytes | None, context: bytes | None) -> str | None:
        """Why a task must not be run, or None; this child is to begin with the other two."""
        task, _, style, payload, text = entry
        self._mark = None
        digest, _, data = split(payload)
        job = None if text is None else self._open(text)
        if text is None or job is None:
            return _refusal(task, "the job's function or options are not what was signed")
        told = text[JOB_MARK_BYTES:]
        if told[0] != STYLE_NUMBERS[style] or told[_FUNCTION:_INITIALIZER] != digest:
            return _refusal(task, "its function is not the one that was signed")
        if context is not None and not _is_call(context, told[_INITIALIZER:_SHIP]):
            return _refusal(task, "its pool's initializer is not the one that was signed")
        if paths is not None and not _are_shipped(paths, told[_SHIP:]):
            return _refusal(task, "the code it ships is not what was signed")
        if not job.is_task(index_of(task), data):
            return _refusal(task, "its arguments are not what was signed for it")
        self._mark = mark_of(data)
        return None

    @staticmethod
    def bare(data: memoryview) -> memoryview:
        """A payload without its mark."""
        return data[PREFIX_BYTES:]

    @staticmethod
    def failure(refusal: str) -> bytes:
        """A refusal as the outcome of its task."""
        return encode_failure(Failure(Ending.UNRUNNABLE, SealError.__name__, refusal))

    def sign(self, ending: int, data: bytes) -> bytes:
        """An outcome as it leaves the machine."""
        if self._mark is None or not data:
            return data
        if ending == Ending.OK:
            return seal_outcome(self._seal, self._mark, data, is_error=False)
        failure = decode_failure(data)
        if failure.exception is None:
            return data
        exception = seal_outcome(self._seal, self._mark, failure.exception, is_error=True)
        return encode_failure(msgspec.structs.replace(failure, exception=exception))

    def _open(self, text: bytes) -> JobSeal | None:
        if text not in self._jobs:
            job = open_job(self._seal, text[:JOB_MARK_BYTES], text[JOB_MARK_BYTES:])
            self._jobs[text] = job
            if len(self._jobs) > JOBS:
                self._jobs.popitem(last=False)
        return self._jobs[text]


def _is_call(context: bytes, digest: bytes) -> bool:
    _, _, call = context.partition(b"\0")
    return digest == (digest_of(call) if call else bytes(DIGEST_BYTES))


def _are_shipped(paths: bytes, digests: bytes) -> bool:
    """Whether the directories are those of these archives, which are named by their digests."""
    names = [path.rpartition(b"/")[2] for path in paths.split(b"\0")]
    wanted = [
        digests[at : at + DIGEST_BYTES].hex().encode()
        for at in range(0, len(digests), DIGEST_BYTES)
    ]
    return names == wanted


def _refusal(task: int, why: str) -> str:
    return (
        f"task {task_name(task)} was refused, and nothing of it was unpickled: {why}. Somebody "
        "between submitter and worker has altered it, or put it in another's place; look at the "
        "server's machine and its store before submitting it again"
    )
