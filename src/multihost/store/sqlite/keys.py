"""Keys: no more tasks of one key at once, and none sooner, than its limits allow.

Of a key's queued tasks only those that may be leased have a place in a lane:
the best by priority and arrival, as many as its limits leave room for. The
others are *parked*. So ``lease`` never looks at keys; whoever changes what a
key has queued or running notes it with ``count_key``, and ``settle_keys`` then
parks and unparks until the rule is true again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from multihost.store.sqlite.book import Book
from multihost.store.sqlite.entries import Job, KeyChange, Traits

_FIND = 'SELECT number, "limit", delay FROM keys WHERE queue = ? AND name = ?'
_INSERT = (
    'INSERT INTO keys (queue, name, "limit", delay, ready, running, refs, next_at)'
    " VALUES (?, ?, ?, ?, 0, 0, 0, 0) RETURNING number"
)
_SET_LIMITS = 'UPDATE keys SET "limit" = ?, delay = ? WHERE number = ?'
_READ = 'SELECT "limit", delay, ready, running, refs, next_at, wake_at FROM keys WHERE number = ?'
_WRITE = (
    "UPDATE keys SET ready = ?, running = ?, refs = ?, next_at = ?, wake_at = ? WHERE number = ?"
)
_PARKED = (
    "SELECT id, rank, seq FROM tasks INDEXED BY tasks_keyed"
    " WHERE key = ? AND state = 1 AND due IS NULL AND (place IS NULL) = 1"
    " ORDER BY rank, seq LIMIT ?"
)
_READY = (
    "SELECT id, rank, seq FROM tasks INDEXED BY tasks_keyed"
    " WHERE key = ? AND state = 1 AND due IS NULL AND (place IS NULL) = 0"
    " ORDER BY rank DESC, seq DESC LIMIT ?"
)
_PLACE = "UPDATE tasks SET place = ? WHERE id = ?"
_DUE = "SELECT number FROM keys WHERE wake_at <= ?"
_NEXT = "SELECT min(wake_at) FROM keys WHERE wake_at IS NOT NULL"
_UNLIMITED: Final = -1


@dataclass(slots=True)
class _Key:
    number: int
    limit: int | None
    delay: float
    ready: int
    running: int
    refs: int
    next_at: float
    wake_at: float | None

    def room(self, now: float) -> int:
        """Tasks that may be ready; negative: no bound."""
        room = _UNLIMITED if self.limit is None else max(0, self.limit - self.running)
        if self.delay > 0 and room != 0:
            room = 1 if now >= self.next_at else 0
        return room


def key_numbers(book: Book, job: Job, names: Sequence[str]) -> list[int]:
    """Numbers of keys, one a name, in the job's queue; their limits become those of the job."""
    book.give_trait(job, Traits.KEYS)
    numbers: dict[str, int] = {}
    for name in names:
        if name not in numbers:
            numbers[name] = _key_number(book, job, name)
        count_key(book, numbers[name], refs=1)
    return [numbers[name] for name in names]


def _key_number(book: Book, job: Job, name: str) -> int:
    limits = (job.spec.key_limit, job.spec.key_delay_s)
    row = book.run(_FIND, (job.spec.queue, name)).fetchone()
    if row is None:
        number: int = book.run(_INSERT, (job.spec.queue, name, *limits)).get
        return number
    number, *known = row
    if tuple(known) != limits:
        book.run(_SET_LIMITS, (*limits, number))
    return number


def count_key(
    book: Book,
    key: int,
    *,
    ready: int = 0,
    running: int = 0,
    refs: int = 0,
    has_started: bool = False,
) -> None:
    """Note that a verb has changed what a key has; ``settle_keys`` has to follow."""
    change = book.key_changes.get(key)
    if change is None:
        change = book.key_changes[key] = KeyChange()
    change.ready += ready
    change.running += running
    change.refs += refs
    change.has_started |= has_started


def leave_key(book: Book, key: int, place: int | None) -> None:
    """A task with a key, in this place, ends."""
    is_ready = place is not None and place > 0
    is_running = place is not None and place < 0
    count_key(book, key, ready=-is_ready, running=-is_running)


def settle_keys(book: Book, now: float) -> None:
    """Park and unpark until the limits of every key that was changed are kept."""
    if not book.key_changes:
        return
    changes, book.key_changes = book.key_changes, {}
    for number, change in changes.items():
        key = _Key(number, *book.run(_READ, (number,)).fetchone())
        key.ready += change.ready
        key.running += change.running
        key.refs += change.refs
        if change.has_started:
            key.next_at = now + key.delay
        _settle(book, key, now)
        book.run(_WRITE, (key.ready, key.running, key.refs, key.next_at, key.wake_at, key.number))


def wake_keys(book: Book, now: float) -> None:
    """Let go of tasks whose key's delay has passed."""
    for (number,) in book.run(_DUE, (now,)).fetchall():
        count_key(book, number)
    settle_keys(book, now)


def next_wake(book: Book) -> float | None:
    """When the first key's delay will have passed."""
    at: float | None = book.run(_NEXT).get
    return at


def _settle(book: Book, key: _Key, now: float) -> None:
    room = key.room(now)
    if room == _UNLIMITED:
        _unpark(book, key, _UNLIMITED)
    else:
        if key.ready < room:
            _unpark(book, key, room - key.ready)
        elif key.ready > room:
            _park(book, key, key.ready - room)
        _put_best_first(book, key)
    is_late = key.delay > 0 and now < key.next_at
    waits = is_late and book.run(_PARKED, (key.number, 1)).fetchone() is not None
    key.wake_at = key.next_at if waits else None
    if key.wake_at is not None:
        book.wake_by(key.wake_at)


def _unpark(book: Book, key: _Key, count: int) -> None:
    """Give the best parked tasks a place in their lanes."""
    rows = book.run(_PARKED, (key.number, count)).fetchall()
    book.change(_PLACE, [(book.ready_place(row[0], None), row[0]) for row in rows])
    key.ready += len(rows)


def _park(book: Book, key: _Key, count: int) -> None:
    """Take the worst ready tasks out of their lanes."""
    rows = book.run(_READY, (key.number, count)).fetchall()
    book.change(_PLACE, [(None, row[0]) for row in rows])
    key.ready -= len(rows)


def _put_best_first(book: Book, key: _Key) -> None:
    """Swap while a parked task is better than a ready one."""
    while key.ready:
        best = book.run(_PARKED, (key.number, 1)).fetchone()
        worst = book.run(_READY, (key.number, 1)).fetchone()
        if best is None or worst is None or best[1:] > worst[1:]:
            return
        place = book.ready_place(best[0], None)
        book.change(_PLACE, [(None, worst[0]), (place, best[0])])
