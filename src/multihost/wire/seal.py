"""Seals: marks on what is pickled, by which the ends know that nobody between has made it.

Submitters and workers share a secret that the server never sees, and sign with
it (keyed BLAKE3, 16 bytes) what the other end will unpickle or run:

- A *job's* mark covers its identity, its style, and the digests of its function,
  its initializer and the code it ships. So no function can be put in another's place.
- A *task's* mark covers the identity of its job, its index and its payload.
- An *outcome's* mark covers the task's mark and the result or the exception. So it is the
  outcome of this very input, whenever it is fetched.
- An *item's* mark covers the name of its queue and its payload.

A job that has a name or a unique key is identified by that and by its function's
code, so that it is the same job when it is run again; any other by its uid.

Marked bytes are still a pickle: the mark is a constant in it that is dropped when
it is loaded. Who has no seal reads them as they are. Checking never loads anything.
"""

from collections.abc import Sequence
from hmac import compare_digest

from multihost.core.digest import DIGEST_BYTES, Digester
from multihost.core.job import JobSpec, Style

SECRET_BYTES = 32
MARK_BYTES = 16
ID_BYTES = 4
"""Tell two seals apart, for error messages; says nothing of the secret."""
IDENTITY_BYTES = 16
JOB_MARK_BYTES = ID_BYTES + IDENTITY_BYTES + MARK_BYTES
_HEAD = b"\x80\x05C\x10"
"""Protocol 5; a constant of 16 bytes follows."""
_TAIL = b"0"
"""Drop it."""
PREFIX_BYTES = len(_HEAD) + MARK_BYTES + len(_TAIL)
_BODY = len(_HEAD) + MARK_BYTES
_NONE = bytes(DIGEST_BYTES)
_STYLES = {style: bytes([number]) for number, style in enumerate(Style)}
_INDEX_BYTES = 8

Bytes = bytes | bytearray | memoryview


class Seal:
    """The secret, and what is signed with it directly."""

    def __init__(self, secret: bytes) -> None:
        """Sign with ``secret``; raises ValueError if it has not the right size."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a seal has {SECRET_BYTES} bytes, not {len(secret)}")
        self.secret = secret
        self._bases = {
            kind: _based(secret, kind)
            for kind in (b"id", b"name", b"job", b"task", b"outcome", b"error", b"item")
        }
        self.id: bytes = self._bases[b"id"].digest(length=ID_BYTES)

    def __repr__(self) -> str:
        return f"Seal({self.id.hex()})"

    def mark(self, kind: bytes, *parts: Bytes) -> bytes:
        """Mark over parts of which at most the last is of variable size."""
        state = self._bases[kind].copy()
        for part in parts:
            state.update(part)
        mark: bytes = state.digest(length=MARK_BYTES)
        return mark

    def identity(self, spec: JobSpec, uid: bytes) -> bytes:
        """What a job's tasks are bound to: the same when a named job is run again."""
        if spec.name is None and spec.unique_key is None:
            return uid
        fields = [spec.name, spec.unique_key]
        texts = [b"-" if text is None else b"+" + text.encode() for text in fields]
        sizes = b"".join(len(text).to_bytes(4, "little") for text in texts)
        fingerprint = (spec.fingerprint or b"").ljust(DIGEST_BYTES, b"\0")
        return self.mark(b"name", sizes, fingerprint, _STYLES[spec.style], b"".join(texts))

    def item(self, queue: str, payload: Bytes) -> bytes:
        """An item for a queue, marked."""
        return marked(self._item_mark(queue, payload), payload)

    def is_item(self, queue: str, data: Bytes) -> bool:
        """Whether it was put into this queue by somebody with this seal."""
        mark = mark_of(data)
        return mark is not None and compare_digest(
            mark, self._item_mark(queue, data[PREFIX_BYTES:])
        )

    def _item_mark(self, queue: str, payload: Bytes) -> bytes:
        name = queue.encode()
        return self.mark(b"item", len(name).to_bytes(4, "little"), name, payload)


class JobSeal:
    """What is signed for one job: on the client, which makes marks, and where its tasks run."""

    def __init__(self, seal: Seal, identity: bytes) -> None:
        """Bind to the job's identity."""
        self.seal = seal
        self.identity = identity
        self._task_base = seal._bases[b"task"].copy()
        self._task_base.update(identity)

    def job_mark(self, text: bytes) -> bytes:
        """What the job itself carries; ``text`` is what ``job_text`` makes of it."""
        return self.seal.id + self.identity + self.seal.mark(b"job", self.identity, text)

    def task_mark(self, index: int, payload: Bytes) -> bytes:
        """Mark of the task at ``index``."""
        state = self._task_base.copy()
        state.update(index.to_bytes(_INDEX_BYTES, "little"))
        state.update(payload)
        mark: bytes = state.digest(length=MARK_BYTES)
        return mark

    def is_task(self, index: int, data: Bytes) -> bool:
        """Whether these bytes were signed as the payload of this very task."""
        mark = mark_of(data)
        body = memoryview(data)[PREFIX_BYTES:]
        return mark is not None and compare_digest(mark, self.task_mark(index, body))


def job_text(
    style: Style, function: bytes | None, initializer: bytes | None, ship: Sequence[bytes]
) -> bytes:
    """What is signed of a job besides its identity; a digest of a wrong size fits nothing."""
    return b"".join([_STYLES[style], function or _NONE, initializer or _NONE, *ship])


def open_job(seal: Seal, mark: bytes, text: bytes) -> JobSeal | None:
    """The job that ``mark`` and ``text`` describe, if they were signed with this seal."""
    if len(mark) != JOB_MARK_BYTES or mark[:ID_BYTES] != seal.id:
        return None
    job = JobSeal(seal, mark[ID_BYTES : ID_BYTES + IDENTITY_BYTES])
    return job if compare_digest(mark, job.job_mark(text)) else None


def seal_outcome(seal: Seal, task_mark: bytes, pickled: Bytes, *, is_error: bool) -> bytes:
    """A result or an exception of a task, marked."""
    kind = b"error" if is_error else b"outcome"
    return marked(seal.mark(kind, task_mark, pickled), pickled)


def is_outcome(seal: Seal, task_mark: bytes, data: Bytes, *, is_error: bool) -> bool:
    """Whether it was signed as the result, or the exception, of this very task."""
    mark = mark_of(data)
    kind = b"error" if is_error else b"outcome"
    body = memoryview(data)[PREFIX_BYTES:]
    return mark is not None and compare_digest(mark, seal.mark(kind, task_mark, body))


def marked(mark: bytes, payload: Bytes) -> bytes:
    """A payload with its mark before it."""
    return b"".join((_HEAD, mark, _TAIL, payload))


def mark_of(data: Bytes) -> bytes | None:
    """The mark before a payload, if there is one; good or not."""
    if data[: len(_HEAD)] != _HEAD or data[_BODY:PREFIX_BYTES] != _TAIL:
        return None
    return bytes(data[len(_HEAD) : _BODY])


def _based(secret: bytes, kind: bytes) -> Digester:
    state = Digester(key=secret)
    state.update(kind.ljust(8, b"\0"))
    return state
