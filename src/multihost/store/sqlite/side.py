"""What lies beside jobs and tasks: sessions, blobs, output, the settings of queues."""

from multihost.core.ids import is_task
from multihost.store.base import SessionInfo, StoredBlob
from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import decode_session, encode
from multihost.wire.message import Blob, Held

_FIND_SESSION = "SELECT number, info FROM sessions WHERE uid = ?"
_NEW_SESSION = (
    "INSERT INTO sessions (uid, role, info, opened_at) VALUES (?, ?, ?, ?) RETURNING number"
)
_REOPEN_SESSION = "UPDATE sessions SET role = ?, info = ?, closed_at = NULL WHERE number = ?"
_PUT_BLOB = (
    "INSERT INTO blobs (digest, size, refs, touched_at, is_inline) VALUES (?, ?, 0, ?, ?)"
    " ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at"
)
_PUT_DATA = "INSERT INTO blob_data (digest, data) VALUES (?, ?)"
_BLOB = (
    "SELECT size, data FROM blobs LEFT JOIN blob_data ON blob_data.digest = blobs.digest"
    " WHERE blobs.digest = ?"
)
_UNUSED = "SELECT digest, size, is_inline FROM blobs WHERE refs = 0 AND touched_at < ? LIMIT ?"
_FIRST_OUTPUT = "SELECT position FROM output WHERE task = ? ORDER BY position LIMIT 1"
_LAST_OUTPUT = (
    "SELECT position + length(data) FROM output WHERE task = ? ORDER BY position DESC LIMIT 1"
)
_ADD_OUTPUT = "INSERT INTO output (task, position, stream, data) VALUES (?, ?, ?, ?)"
_CUT_OUTPUT = "DELETE FROM output WHERE task = ? AND position < ? RETURNING position, stream, data"
_OUTPUT = "SELECT stream, data FROM output WHERE task = ? ORDER BY position"
_SET_QUEUE = (
    'INSERT INTO queues (name, is_paused, "limit") VALUES (?, ?, ?) ON CONFLICT (name)'
    ' DO UPDATE SET is_paused = excluded.is_paused, "limit" = excluded."limit"'
)


# --- sessions ---------------------------------------------------------------------------


def open_session(book: Book, info: SessionInfo, now: float) -> int | None:
    """Number of the session with this uid, new or reopened; None: it is another's."""
    found = book.run(_FIND_SESSION, (info.uid,)).fetchone()
    if found is not None:
        number: int = found[0]
        if not info.may_reopen(decode_session(found[1])):
            return None
        book.run(_REOPEN_SESSION, (info.role, encode(info), number))
        return number
    new: int = book.run(_NEW_SESSION, (info.uid, info.role, encode(info), now)).get
    return new


def close_session(book: Book, number: int, now: float) -> None:
    """The session ended."""
    book.run(
        "UPDATE sessions SET closed_at = ? WHERE number = ? AND closed_at IS NULL", (now, number)
    )


# --- blobs ------------------------------------------------------------------------------


def put_blob(book: Book, blob: Blob, data: bytes | None, now: float) -> None:
    """Note a blob; one that is there already only counts as touched."""
    is_new = book.blob_size(blob.digest) is None
    book.run(_PUT_BLOB, (blob.digest, blob.size_bytes, now, data is not None))
    if is_new and data is not None:
        book.run(_PUT_DATA, (blob.digest, data))
    elif is_new:
        book.filed_bytes += blob.size_bytes


def read_blob(book: Book, digest: bytes) -> StoredBlob | None:
    """The blob, or None."""
    row = book.run(_BLOB, (digest,)).fetchone()
    return None if row is None else StoredBlob(*row)


def unused_blobs(book: Book, before: float, limit: int) -> list[Blob]:
    """Delete and return blobs that nothing refers to and that are older than ``before``."""
    unused = []
    for digest, size_bytes, is_inline in book.run(_UNUSED, (before, limit)).fetchall():
        if not book.has_new_references(digest):
            unused.append(Blob(digest, size_bytes))
            book.filed_bytes -= 0 if is_inline else size_bytes
    digests = [(blob.digest,) for blob in unused]
    book.many("DELETE FROM blobs WHERE digest = ?", digests)
    book.many("DELETE FROM blob_data WHERE digest = ?", digests)
    return unused


# --- output -----------------------------------------------------------------------------


def append_output(
    book: Book, session: int, held: Held, stream: int, data: bytes, *, limit_bytes: int
) -> bool:
    """Keep what a task printed: the last ``limit_bytes`` of it. Whether it runs under that lease.

    An attempt's output comes before its outcome, so what comes later is not its.
    """
    task = held.task
    run = book.running.get(task)
    if run is None or run[0] != held.token or run[1] != session:
        return False
    if not data:
        return True
    start: int = book.run(_LAST_OUTPUT, (task,)).get or 0
    end = start + len(data)
    book.run(_ADD_OUTPUT, (task, start, stream, data))
    begin = book.run(_FIRST_OUTPUT, (task,)).get
    if end - begin > limit_bytes:
        _cut_output(book, task, end - limit_bytes)
    return True


def _cut_output(book: Book, task: int, begin: int) -> None:
    """Drop what lies before position ``begin``."""
    rows = book.run(_CUT_OUTPUT, (task, begin)).fetchall()
    position, stream, data = max(rows)
    rest = data[begin - position :]
    if rest:
        book.run(_ADD_OUTPUT, (task, begin, stream, rest))


def read_output(book: Book, task: int) -> list[tuple[int, bytes]]:
    """What a task printed: (stream, bytes) in order."""
    if not is_task(task):
        return []
    return book.run(_OUTPUT, (task,)).fetchall()


# --- queues -----------------------------------------------------------------------------


def set_queue(book: Book, name: str, *, is_paused: bool | None, limit: int | None) -> None:
    """Pause or resume a queue, bound its length (0: no bound)."""
    queue = book.queue(name)
    if limit is not None:
        queue.limit = limit or None
    if is_paused is not None:
        queue.is_paused = is_paused
        if not is_paused:
            book.woken.update(lane.number for lane in queue.lanes)
    book.run(_SET_QUEUE, (name, queue.is_paused, queue.limit))
