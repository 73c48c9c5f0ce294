"""Keys: no more tasks of one key at once, and none sooner, than its limits allow.

Of a key's queued tasks only those that may be leased are without a hold: the
best by priority and arrival, as many as its limits leave room for. The others
wait with ``Hold.KEY``. So ``lease`` never looks at keys; whoever changes what
a key has queued or running notes it with ``count_key``, and ``settle_keys``
then moves holds until the rule is true again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from multihost.core.state import Hold
from multihost.store.sqlite.book import Book, Job, KeyChange, Traits

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
_BEST_PARKED = (
    "SELECT id, rank, seq, lane FROM tasks INDEXED BY tasks_keyed"
    " WHERE key = ? AND state = 1 AND hold = 2 ORDER BY rank, seq LIMIT ?"
)
_WORST_READY = (
    "SELECT id, rank, seq FROM tasks INDEXED BY tasks_keyed"
    " WHERE key = ? AND state = 1 AND hold = 0 ORDER BY rank DESC, seq DESC LIMIT ?"
)
_SET_HOLD = "UPDATE tasks SET hold = ? WHERE id = ?"
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
        """Tasks that may be queued without a hold; negative: no bound."""
        room = _UNLIMITED if self.limit is None else max(0, self.limit - self.running)
        if self.delay > 0 and room != 0:
            room = 1 if now >= self.next_at else 0
        return room


def key_numbers(book: Book, job: Job, names: Iterable[str]) -> dict[str, int]:
    """Numbers of keys in the job's queue, whose limits become those of the job."""
    spec = job.spec
    job.traits |= Traits.KEYS
    numbers: dict[str, int] = {}
    for name in names:
        if name not in numbers:
            row = book.run(_FIND, (spec.queue, name)).fetchone()
            if row is None:
                limits = (spec.queue, name, spec.key_limit, spec.key_delay_s)
                numbers[name] = book.run(_INSERT, limits).get
            else:
                numbers[name] = row[0]
                if row[1:] != (spec.key_limit, spec.key_delay_s):
                    book.run(_SET_LIMITS, (spec.key_limit, spec.key_delay_s, row[0]))
        count_key(book, numbers[name], refs=1)
    return numbers


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


def settle_keys(book: Book, now: float) -> None:
    """Make holds right again for every key that was changed."""
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
        _unhold(book, key, _UNLIMITED)
    else:
        if key.ready < room:
            _unhold(book, key, room - key.ready)
        elif key.ready > room:
            _park(book, key, key.ready - room)
        _put_best_first(book, key)
    parked = book.run(_BEST_PARKED, (key.number, 1)).fetchone()
    waits_for_time = parked is not None and key.delay > 0 and now < key.next_at
    key.wake_at = key.next_at if waits_for_time else None
    if key.wake_at is not None:
        book.wake_by(key.wake_at)


def _unhold(book: Book, key: _Key, count: int) -> None:
    rows = book.run(_BEST_PARKED, (key.number, count)).fetchall()
    book.many(_SET_HOLD, [(Hold.NONE, row[0]) for row in rows])
    book.woken.update(row[3] for row in rows)
    key.ready += len(rows)


def _park(book: Book, key: _Key, count: int) -> None:
    rows = book.run(_WORST_READY, (key.number, count)).fetchall()
    book.many(_SET_HOLD, [(Hold.KEY, row[0]) for row in rows])
    key.ready -= len(rows)


def _put_best_first(book: Book, key: _Key) -> None:
    """Swap while a waiting task is better than one that may be leased."""
    while key.ready:
        best = book.run(_BEST_PARKED, (key.number, 1)).fetchone()
        worst = book.run(_WORST_READY, (key.number, 1)).fetchone()
        if best is None or worst is None or best[1:3] > worst[1:3]:
            return
        book.many(_SET_HOLD, [(Hold.KEY, worst[0]), (Hold.NONE, best[0])])
        book.woken.add(best[3])
