"""Keys: kept whole, revoked once, dropped when they have been of no use for long."""

import msgspec
import pytest

from multihost.store.access import AccessKey
from multihost.testing.owner import START, Owner
from multihost.wire.keys import KeyRole

HASH = bytes(range(32))


def make_key(key: str = "0000000a", **settings: object) -> AccessKey:
    """A key that was made when the test began, never to end, with these settings."""
    fields = {"name": "laptop", "role": KeyRole.SUBMIT, "hash": HASH, "created_at": START}
    return AccessKey(key, **{**fields, **settings})  # type: ignore[arg-type]


class AccessTests:
    """Keys."""

    def test_a_new_store_has_no_keys(self, owner: Owner) -> None:
        assert owner.store.access_keys() == []

    @pytest.mark.parametrize("role", KeyRole)
    def test_a_key_is_kept_as_it_was_added(self, owner: Owner, role: KeyRole) -> None:
        keys = [
            make_key("0000000b", role=role),
            make_key("0000000a", role=role, created_at=START + 1, expires_at=START + 9.5),
        ]
        for key in reversed(keys):
            owner.do("add_access_key", key)
        owner.reopen()
        assert owner.store.access_keys() == keys

    def test_a_key_is_revoked_once_and_by_its_id(self, owner: Owner) -> None:
        owner.do("add_access_key", make_key("0000000a"))
        owner.do("add_access_key", make_key("0000000b"))
        assert owner.do("revoke_access_key", "0000000a", START + 5)
        assert not owner.do("revoke_access_key", "0000000a", START + 6)
        assert not owner.do("revoke_access_key", "laptop", START + 6)
        owner.reopen()
        revoked = make_key("0000000a", revoked_at=START + 5)
        assert owner.store.access_keys() == [revoked, make_key("0000000b")]

    def test_what_was_rolled_back_was_never_revoked_nor_added(self, owner: Owner) -> None:
        owner.do("add_access_key", make_key("0000000a"))
        owner.store.begin()
        owner.store.add_access_key(make_key("0000000b"))
        owner.store.revoke_access_key("0000000a", START)
        owner.store.rollback()
        assert owner.store.access_keys() == [make_key("0000000a")]

    def test_only_keys_that_ended_before_then_are_dropped(self, owner: Owner) -> None:
        ends: dict[str, dict[str, float]] = {
            "0000000a": {},
            "0000000b": {"expires_at": START + 10},
            "0000000c": {"expires_at": START + 99, "revoked_at": START + 10},
            "0000000d": {"expires_at": START + 99},
            "0000000e": {"revoked_at": START + 11},
        }
        keys = [make_key(key, **times) for key, times in ends.items()]
        for key in keys:
            owner.do("add_access_key", msgspec.structs.replace(key, revoked_at=None))
            if key.revoked_at is not None:
                owner.do("revoke_access_key", key.id, key.revoked_at)
        assert owner.do("drop_access_keys", START + 10) == 0
        assert owner.do("drop_access_keys", START + 10.5) == 2  # noqa: PLR2004 - b and c
        owner.reopen()
        assert [key.id for key in owner.store.access_keys()] == ["0000000a", "0000000d", "0000000e"]

    def test_a_key_is_live_until_the_first_of_its_ends(self) -> None:
        key = make_key(expires_at=START + 10)
        assert key.is_live(START + 9.9)
        assert not key.is_live(START + 10)
        assert not make_key(expires_at=START + 10, revoked_at=START + 5).is_live(START + 5)
        assert make_key().is_live(START + 1e9)

    def test_what_is_shown_of_a_key_is_not_its_hash(self) -> None:
        assert repr(HASH) not in repr(make_key())
