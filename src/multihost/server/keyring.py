"""The keys that a server takes: who has proved which, what it may do, and until when.

All keys are in memory as well as in the store, since each handshake and each
request asks. A key that ends takes its connections with it, at every port.
Knows hashes only; the one secret it sees is that of a key it makes, once.
"""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from secrets import token_bytes, token_hex

import msgspec

from multihost.errors import BadRequest
from multihost.runtime import clock
from multihost.server.admission import Admission, Arrival
from multihost.server.committer import Committer
from multihost.store.access import AccessKey
from multihost.store.base import Store
from multihost.wire.keys import (
    ID_BYTES,
    OWN_KEY,
    SECRET_BYTES,
    Key,
    KeyRole,
    in_words,
    is_secret,
    parse_key,
)

MAX_KEYS = 10_000
KEPT_S = 90 * 86400.0
"""How long a key is listed, and told apart from one that never was, after it has ended."""
MAX_NAME = 100
MAX_LIFE_S = 100 * 365 * 86400.0
MODEST_FIRST = (KeyRole.VIEW, KeyRole.SUBMIT, KeyRole.WORK, KeyRole.ADMIN)
ANSWER_S = 0.2
"""For the answer to who has revoked the key that it came with."""
LOOK_AGAIN_S = 60.0
"""Clocks are set: so often it is compared with when keys expire, if any does."""


class Keyring:
    """Every key of a server."""

    def __init__(self, own: bytes, committer: Committer, admission: Admission) -> None:
        """Take ``own``, the text of the server's own key, and what the store has."""
        self._committer = committer
        self._admission = admission
        own_key = AccessKey(OWN_KEY, "the server's own", KeyRole.ADMIN, parse_key(own).hash, 0.0)
        if parse_key(own).id != OWN_KEY:  # written like the others, but the file's
            own_key = msgspec.structs.replace(own_key, id=parse_key(own).id)
        self.own = own_key
        stored = committer.store.access_keys()
        self._keys = {key.id: key for key in [*stored, own_key]}
        self._decoy = token_bytes(32)
        self._making = asyncio.Lock()
        self._unnoted: set[str] = set()
        """Keys that were revoked, which the store does not know yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._watch_expiry()

    # coming in -----------------------------------------------------------------------

    def find(self, key: str) -> AccessKey | None:
        """The key with this id."""
        return self._keys.get(key)

    def hash_of(self, key: str) -> bytes:
        """What to prove a key against; of an unknown one something that looks the same."""
        known = self._keys.get(key)
        decoy = sha256(self._decoy + key.encode()).digest()
        return decoy if known is None else known.hash

    def who_sent(self, text: bytes) -> AccessKey | None:
        """The key that is written so, live or not; None for a wrong one."""
        given = parse_key(text)
        is_right = is_secret(given.secret, self.hash_of(given.id))
        return self._keys.get(given.id) if is_right else None

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    # acts ----------------------------------------------------------------------------

    def listed(self) -> list[AccessKey]:
        """Every key, the server's own first."""
        others = [key for key in self._keys.values() if key.id != self.own.id]
        return [self.own, *sorted(others, key=lambda key: (key.created_at, key.id))]

    async def make(self, role: KeyRole, name: str, life_s: float | None) -> tuple[AccessKey, str]:
        """A new key, and its text, which is known to nobody from then on. Raises BadRequest."""
        now = clock.wall()
        key = Key(self._new_id(), token_bytes(SECRET_BYTES))
        entry = AccessKey(
            key.id,
            name or f"{role}-{key.id}",
            role,
            key.hash,
            now,
            None if life_s is None else now + life_s,
        )

        def run(store: Store, _: float) -> None:
            store.drop_access_keys(now - KEPT_S)
            store.add_access_key(entry)

        async with self._making:
            self._check(name, life_s, now)
            await self._committer.ask(run, is_durable=True)
            self._forget(now - KEPT_S)
            self._keys[key.id] = entry
        self._watch_expiry()
        return entry, key.text

    def named(self, name: str) -> AccessKey | None:
        """The key with this id or name; of those of one name the live one, else the last."""
        return self._named(name, clock.wall())

    async def revoke(self, name: str, spared: Arrival | None = None) -> AccessKey | None:
        """The key with this id or name is not taken any more, its connections are cut.

        ``spared`` gets its answer before it is. None: there is no such key. Raises
        BadRequest for the server's own, StoreFull when it can't be noted: then the
        key is revoked until the server's next start, and for good once this was said again.
        """
        now = clock.wall()
        entry = self._named(name, now)
        if entry is None:
            return None
        if entry.id == self.own.id:
            raise BadRequest(
                "the server's own key can't be revoked while it runs: stop the server, delete the "
                "file 'key' in its state directory, start it again, and it has another"
            )
        if entry.revoked_at is None:
            entry = self._keys[entry.id] = msgspec.structs.replace(entry, revoked_at=now)
            self._unnoted.add(entry.id)
            if spared is not None:
                asyncio.get_running_loop().call_later(ANSWER_S, spared.hang_up)
            self._admission.cut({entry.id}, spared)
        if entry.id in self._unnoted:
            await self._note_revoked(entry.id, entry.revoked_at or now)
        return entry

    # within ----------------------------------------------------------------------------

    async def _note_revoked(self, key: str, at: float) -> None:
        await self._committer.ask(
            lambda store, _: store.revoke_access_key(key, at), is_durable=True
        )
        self._unnoted.discard(key)

    def _check(self, name: str, life_s: float | None, now: float) -> None:
        if name != name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            raise BadRequest(f"a key's name is printable, of at most {MAX_NAME} characters")
        if life_s is not None and not 0 < life_s <= MAX_LIFE_S:
            raise BadRequest("a key lasts longer than no time and at most 100 years")
        if name and self._named(name, now, is_live=True) is not None:
            raise BadRequest(f"there is a key {name!r} already; revoke it first, or choose another")
        if sum(key.is_live(now) for key in self._keys.values()) >= MAX_KEYS:
            raise BadRequest(f"there are {MAX_KEYS} keys (max_keys); revoke some first")

    def _named(self, name: str, now: float, *, is_live: bool = False) -> AccessKey | None:
        """By id, else by name: a live one, else the last that had it."""
        if name in self._keys:
            return self._keys[name]
        named = [key for key in self._keys.values() if key.name == name]
        live = [key for key in named if key.is_live(now)]
        if live or is_live:
            return live[0] if live else None
        return max(named, key=lambda key: key.created_at, default=None)

    def _new_id(self) -> str:
        while (key := token_hex(ID_BYTES)) in self._keys:
            pass
        return key

    def _forget(self, before: float) -> None:
        for key in list(self._keys.values()):
            if key.ended_at is not None and key.ended_at < before:
                del self._keys[key.id]

    def _watch_expiry(self) -> None:
        """Cut what has expired; look again when the next key does."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        now = clock.wall()
        expired = {key.id for key in self._keys.values() if not key.is_live(now)}
        if expired:
            self._admission.cut(expired)
        ends = [key.expires_at for key in self._keys.values() if key.expires_at is not None]
        coming = [end for end in ends if end > now]
        if coming:
            wait_s = min(min(coming) - now, LOOK_AGAIN_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._watch_expiry)


def why_ended(key: AccessKey) -> str:
    """What is told to who has proved a key that is not taken any more."""
    verb = "expired" if key.revoked_at is None else "was revoked"
    at = "" if key.ended_at is None else f" at {time_text(key.ended_at)}"
    return (
        f"key {key.id} ({key.name}) {verb}{at}; ask who runs the server for another "
        f"('multihost key new --role {key.role}')"
    )


def why_not(key: AccessKey, needed: frozenset[KeyRole], what: str) -> str:
    """What is told to who may not do ``what``, which takes one of the roles ``needed``."""
    least = next(role for role in MODEST_FIRST if role in needed)
    return (
        f"key {key.id} ({key.name}) has the role {key.role}, and {what} takes {in_words(needed)}; "
        f"nothing was done. Use a key that may ('multihost key new --role {least}')"
    )


def time_text(at: float) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
