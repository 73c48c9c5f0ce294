"""Keys: who may come in, and as what."""

from multihost.store.access import AccessKey
from multihost.store.sqlite.book import Book
from multihost.wire.keys import KeyRole

_ADD = (
    "INSERT INTO access_keys (id, name, role, hash, created_at, expires_at, revoked_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_REVOKE = "UPDATE access_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING 1"
_DROP = "DELETE FROM access_keys WHERE coalesce(revoked_at, expires_at) < ? RETURNING 1"
_ALL = (
    "SELECT id, name, role, hash, created_at, expires_at, revoked_at FROM access_keys"
    " ORDER BY created_at, id"
)


def add(book: Book, key: AccessKey) -> None:
    """Keep a key."""
    times = (key.created_at, key.expires_at, key.revoked_at)
    book.run(_ADD, (key.id, key.name, str(key.role), key.hash, *times))


def revoke(book: Book, key: str, now: float) -> bool:
    """The key is not taken any more."""
    return book.run(_REVOKE, (now, key)).get is not None


def drop(book: Book, before: float) -> int:
    """Delete what ended before then."""
    return len(book.run(_DROP, (before,)).fetchall())


def every(book: Book) -> list[AccessKey]:
    """Every key."""
    return [
        AccessKey(key, name, KeyRole(role), key_hash, *times)
        for key, name, role, key_hash, *times in book.run(_ALL, ())
    ]
