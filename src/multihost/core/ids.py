"""How things are numbered.

A task's number is its job's number and its index in one 64-bit integer, so
that a job's tasks lie side by side in the store and need no second index.
People read and write it as ``42/7``: task 7 of job 42.
"""

INDEX_BITS = 32
MAX_INDEX = (1 << INDEX_BITS) - 1
"""Largest index of a task within its job (4,294,967,295)."""
MAX_JOB = (1 << 31) - 1
"""Largest number of a job (2,147,483,647)."""

TOKEN_COUNT_BITS = 40
"""Leases that one epoch can grant (a million a second for twelve days)."""

UID_BYTES = 16

TAKER_BITS = 24
MAX_TAKER = (1 << TAKER_BITS) - 1
"""Largest number of a taker within its session (16,777,215)."""
ITEM_BITS = 38
"""Items that one queue can ever hold (100,000 a second for a month)."""


def task_id(job: int, index: int) -> int:
    """Number of the task at ``index`` of ``job``."""
    return job << INDEX_BITS | index


def job_of(task: int) -> int:
    """Number of the job that ``task`` belongs to."""
    return task >> INDEX_BITS


def index_of(task: int) -> int:
    """Index of ``task`` within its job, from 0."""
    return task & MAX_INDEX


def first_task(job: int) -> int:
    """Smallest task number that ``job`` can hold."""
    return job << INDEX_BITS


def last_task(job: int) -> int:
    """Largest task number that ``job`` can hold."""
    return job << INDEX_BITS | MAX_INDEX


def is_task(number: int) -> bool:
    """Whether a number from outside can be a task's at all."""
    return MAX_INDEX < number <= MAX_JOB << INDEX_BITS | MAX_INDEX


def task_name(task: int) -> str:
    """``42/7``, the way people read a task's number."""
    return f"{job_of(task)}/{index_of(task)}"


def first_token(epoch: int) -> int:
    """Smallest lease token of ``epoch``; tokens of a later epoch are all larger.

    The epoch rises each time a server opens the store, so a token that was
    granted but lost with the machine's memory can never be granted again.
    """
    return epoch << TOKEN_COUNT_BITS


def taker_id(session: int, taker: int) -> int:
    """Number of a session's taker among all takers."""
    return session << TAKER_BITS | taker


def session_of(taker: int) -> int:
    """Number of the session that ``taker`` belongs to."""
    return taker >> TAKER_BITS


def item_id(queue: int, position: int) -> int:
    """Number of the item that was put into ``queue`` at ``position``, counted from 0."""
    return queue << ITEM_BITS | position


def queue_of(item: int) -> int:
    """Number of the queue that ``item`` was put into."""
    return item >> ITEM_BITS


def make_uid(now_ms: int, randomness: bytes) -> bytes:
    """UUID version 7 (RFC 9562) of a Unix time in ms and ten random bytes.

    Ordered by time, so that the store's unique index grows at its end.
    """
    if len(randomness) != 10:  # noqa: PLR2004 - 80 bits beside the 48 of the time
        message = f"need 10 random bytes, got {len(randomness)}"
        raise ValueError(message)
    raw = bytearray(now_ms.to_bytes(6, "big") + randomness)
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
