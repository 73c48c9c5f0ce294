"""Opening and sealing jobs: created once, found again by uid, name or unique key."""

from multihost.core.ids import MAX_INDEX
from multihost.core.job import JobSpec, blobs_of
from multihost.core.state import JobState, TaskState
from multihost.store.base import OpenedJob, Refusal
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import DOOMED, Job, Traits
from multihost.wire.message import RefusalCode

_NEED = "INSERT INTO dependencies (needs, job) VALUES (?, ?)"


def open_job(
    book: Book, uid: bytes, spec: JobSpec, owner: int | None, now: float
) -> OpenedJob | Refusal:
    """Create a job, or find the one with this uid, name or unique key."""
    found = _find(book, uid, spec)
    if isinstance(found, Refusal):
        return found
    if found is not None:
        if found.spec.is_transient and found.owner != owner:
            found.owner = owner
            book.touch(found)
        return _opened(found, is_new=False)
    no_room = book.no_room()
    if no_room is not None:
        return Refusal(RefusalCode.STORE_FULL, no_room)
    refusal = _check_references(book, spec)
    if refusal is not None:
        return refusal
    return _opened(_insert_job(book, uid, spec, owner, now), is_new=True)


def _find(book: Book, uid: bytes, spec: JobSpec) -> Job | Refusal | None:
    found = book.find_job("uid", uid)
    if found is not None:
        return found
    for column, text, code in (
        ("name", spec.name, RefusalCode.INPUT_CHANGED),
        ("unique_key", spec.unique_key, RefusalCode.KEY_CONFLICT),
    ):
        job = None if text is None else book.find_job(column, text)
        if job is not None:
            return _attach(job, spec, column.replace("_", " "), text, code)
    return None


def _attach(
    job: Job, spec: JobSpec, what: str, text: str | None, code: RefusalCode
) -> Job | Refusal:
    """The job that was found by name or key, unless it is for something else."""
    if job.spec.fingerprint != spec.fingerprint:
        return Refusal(
            code,
            f"the {what} {text!r} belongs to job {job.number} ({job.spec.label or 'unlabelled'}), "
            "whose function is another one",
        )
    # Both given and one in use: the other would be lost without a word.
    if job.spec.name != spec.name or job.spec.unique_key != spec.unique_key:
        return Refusal(
            RefusalCode.KEY_CONFLICT,
            f"the {what} {text!r} belongs to job {job.number}, which has the name "
            f"{job.spec.name!r} and the unique key {job.spec.unique_key!r}; give the same two",
        )
    return job


def _check_references(book: Book, spec: JobSpec) -> Refusal | None:
    for number in spec.after:
        if book.job(number) is None:
            return Refusal(
                RefusalCode.BAD_REQUEST, f"it is to run after job {number}, which does not exist"
            )
    for digest in blobs_of(spec):
        if book.blob_size(digest) is None:
            return no_blob(digest)
    return None


def no_blob(digest: bytes) -> Refusal:
    """Refusal of what refers to a blob that was never stored, or was deleted since."""
    return Refusal(
        RefusalCode.BAD_REQUEST,
        f"it refers to blob {digest.hex()[:16]}…, which is not in the store in that size; "
        "upload it first",
    )


def _insert_job(book: Book, uid: bytes, spec: JobSpec, owner: int | None, now: float) -> Job:
    number = book.new_number()
    lane = book.lane(spec.queue, spec.requires)
    job = Job(
        number=number,
        uid=uid,
        spec=spec,
        state=JobState.OPEN,
        lane=lane,
        total=None,
        counts=[0] * len(TaskState),
        needs=_needs(book, number, spec),
        taken=0,
        dropped=0,
        traits=Traits.NONE,
        owner=owner if spec.is_transient else None,
        created_at=now,
        ended_at=None,
    )
    for digest in blobs_of(spec):
        book.refer(digest)
    book.add_job(job)
    return job


def _needs(book: Book, number: int, spec: JobSpec) -> int:
    """Note the jobs that ``spec`` waits for; how many, or DOOMED."""
    if not spec.after:
        return 0
    needed = [job for n in dict.fromkeys(spec.after) if (job := book.job(n)) is not None]
    if any(job.state in (JobState.FAILED, JobState.CANCELLED) for job in needed):
        return DOOMED
    open_ones = [job.number for job in needed if job.state is JobState.OPEN]
    book.many(_NEED, [(needs, number) for needs in open_ones])
    return len(open_ones)


def _opened(job: Job, *, is_new: bool) -> OpenedJob:
    return OpenedJob(job.number, is_new, job.spec, job.count, job.total, job.state)


def seal_job(book: Book, number: int, total: int) -> Refusal | None:
    """State that the job has exactly ``total`` tasks. Idempotent."""
    job = book.job(number)
    if job is None:
        return no_job(number)
    if job.total == total:
        return None
    if job.total is not None:
        return Refusal(
            RefusalCode.INPUT_CHANGED if job.is_compared else RefusalCode.BAD_REQUEST,
            f"job {number} was sealed with {job.total} tasks and can't have {total} now",
        )
    if not 0 <= total <= MAX_INDEX + 1:
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {number} can't have {total} tasks; at most {MAX_INDEX + 1}",
        )
    if total < job.next_index:
        return Refusal(
            RefusalCode.BAD_REQUEST,
            f"job {number} has a task at index {job.next_index - 1} and can't have {total} in all",
        )
    job.total = total
    book.touch(job)
    return None


def no_job(number: int) -> Refusal:
    """Refusal of a verb on a job that is not in the store."""
    return Refusal(RefusalCode.BAD_REQUEST, f"job {number} does not exist; it may have been pruned")
