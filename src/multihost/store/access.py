"""The part of a store's contract that is about keys: who may come in, and as what.

It is one with the rest: the same transactions, the same owner. The key in the
server's own key file is not here, since it has to work with an empty store.
"""

from typing import Protocol

import msgspec

from multihost.wire.keys import KeyRole


class AccessKey(msgspec.Struct, frozen=True):
    """A key as the server knows it: not its secret, only that one's hash."""

    id: str
    name: str
    role: KeyRole
    hash: bytes
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def ended_at(self) -> float | None:
        """When it ceases, or has ceased, to be taken; None: never."""
        return self.expires_at if self.revoked_at is None else self.revoked_at

    def is_live(self, now: float) -> bool:
        """Whether it is taken."""
        return self.ended_at is None or now < self.ended_at

    def __repr__(self) -> str:
        return f"AccessKey({self.id}, {self.name}, {self.role})"


class AccessStore(Protocol):
    """What a store keeps of keys."""

    def add_access_key(self, key: AccessKey) -> None:
        """Keep a key; its id is new."""
        ...

    def revoke_access_key(self, key: str, now: float) -> bool:
        """The key with this id is not taken any more. False: there is none, or it was revoked."""
        ...

    def drop_access_keys(self, before: float) -> int:
        """Delete those that were revoked, or have expired, before then. How many."""
        ...

    def access_keys(self) -> list[AccessKey]:
        """Every key, by when it was made, then by id."""
        ...
