"""HTTP requests about keys: made, listed, revoked."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from multihost.errors import BadRequest
from multihost.runtime import clock
from multihost.server.keyring import Keyring, time_text
from multihost.server.routes import answer, key_of, note
from multihost.server.web import arrival_of
from multihost.store.access import AccessKey
from multihost.wire.keys import KeyRole

Row = dict[str, Any]


class KeyRequests:
    """Serves them."""

    def __init__(self, keyring: Keyring) -> None:
        """Serve them from ``keyring``."""
        self._keyring = keyring

    def list(self) -> Response:
        """Every key."""
        now = clock.wall()
        return answer([_row(key, now) for key in self._keyring.listed()])

    def own(self, request: Request) -> Response:
        """The key that the request came with."""
        return answer(_row(key_of(request), clock.wall()))

    async def make(self, request: Request, body: Row) -> Response:
        """A new key; the answer is the only place that its text ever is in."""
        role, name, life_s = body.get("role"), body.get("name", ""), body.get("expires_s")
        if role not in list(KeyRole) or not isinstance(name, str):
            words = ", ".join(KeyRole)
            text = f'send {{"role": R, "name": N, "expires_s": S}}; roles are {words}'
            raise BadRequest(text)
        if not isinstance(life_s, int | float | None) or isinstance(life_s, bool):
            raise BadRequest("expires_s is a number of seconds")
        key, text = await self._keyring.make(KeyRole(role), name, life_s)
        note(request, f"made {_named(key)}")
        return answer({**_row(key, clock.wall()), "key": text})

    async def revoke(self, request: Request) -> Response:
        """A key is not taken any more."""
        name = request.path_params["key"]
        arrival = arrival_of(request.scope)
        found = self._keyring.named(name)
        is_own = found is not None and found.id == key_of(request).id
        key = await self._keyring.revoke(name, spared=arrival if is_own else None)
        if key is None:
            return answer({"error": f"there is no key {name}; 'multihost key list' has all"}, 404)
        note(request, f"revoked {_named(key)}")
        return answer(_row(key, clock.wall()))


def _named(key: AccessKey) -> str:
    until = "" if key.expires_at is None else f", until {time_text(key.expires_at)}"
    return f"key {key.id} ({key.name}) of role {key.role}{until}"


def _row(key: AccessKey, now: float) -> Row:
    state = "live"
    if not key.is_live(now):
        state = "expired" if key.revoked_at is None else "revoked"
    return {
        "id": key.id,
        "name": key.name,
        "role": str(key.role),
        "state": state,
        "created_at": key.created_at or None,
        "age_s": max(0.0, now - key.created_at) if key.created_at else None,
        "expires_at": key.expires_at,
        "expires_in_s": None if key.expires_at is None else max(0.0, key.expires_at - now),
        "revoked_at": key.revoked_at,
    }
