"""Every HTTP route, and which roles of a key may use it; and the gate before them.

A table, so that documents and tests can be made from it: a route that is not
in it is not served. A request proves itself with ``Authorization: Bearer KEY``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from multihost.errors import BadRequest, StoreFull
from multihost.runtime import clock
from multihost.server.audit import Audit
from multihost.server.keyring import Keyring, why_ended, why_not
from multihost.server.web import arrival_of
from multihost.store.access import AccessKey
from multihost.wire.keys import ADMINS, ANYBODY, READERS, SUBMITTERS, KeyRole

Handler = Callable[[Request], Awaitable[Response]]
OK = 200


class Way(NamedTuple):
    """A route."""

    method: str
    path: str
    handler: str
    """Name of the method that serves it."""
    roles: frozenset[KeyRole] | None
    """Who may; None: anybody, without a key."""


WAYS: Final = (
    Way("GET", "/healthz", "health", None),
    Way("GET", "/api/jobs", "jobs", READERS),
    # A job's name may have slashes, so what ends in a verb comes first.
    Way("GET", "/api/jobs/{job:path}/tasks", "tasks", READERS),
    Way("POST", "/api/jobs/{job:path}/cancel", "cancel", SUBMITTERS),
    Way("POST", "/api/jobs/{job:path}/retry", "retry", SUBMITTERS),
    Way("POST", "/api/jobs/{job:path}/delete", "delete", SUBMITTERS),
    Way("GET", "/api/jobs/{job:path}", "job", READERS),
    Way("GET", "/api/tasks/{job:int}/{index:int}", "task", READERS),
    Way("GET", "/api/queues", "queues", READERS),
    Way("POST", "/api/queues/{name:path}", "set_queue", ADMINS),
    Way("GET", "/api/item-queues", "item_queues", READERS),
    Way("POST", "/api/item-queues/{name:path}/drop", "drop_item_queue", SUBMITTERS),
    Way("GET", "/api/locks", "locks", READERS),
    Way("POST", "/api/locks/{name:path}/drop", "drop_lock", SUBMITTERS),
    Way("GET", "/api/workers", "workers", READERS),
    Way("GET", "/api/workers/installed", "installed", READERS),
    Way("GET", "/api/backup", "backup", ADMINS),
    Way("POST", "/api/backup", "start_backup", ADMINS),
    Way("GET", "/api/keys", "keys", ADMINS),
    Way("GET", "/api/keys/own", "own_key", ANYBODY),
    Way("POST", "/api/keys", "make_key", ADMINS),
    Way("POST", "/api/keys/{key:path}/revoke", "revoke_key", ADMINS),
)
"""All that is served."""


class Gate:
    """Lets requests through to their handlers, as their keys may."""

    def __init__(self, keyring: Keyring, audit: Audit) -> None:
        """Ask ``keyring``, tell ``audit``."""
        self._keyring = keyring
        self._audit = audit

    def guarded(self, way: Way, handler: Handler) -> Handler:
        """``handler``, for those who may."""
        roles = way.roles
        if roles is None:
            return handler

        async def check(request: Request) -> Response:
            key = await self._key_shown(request)
            refusal = self._refusal(way, roles, request, key)
            return refusal or await self._serve(way, handler, request)

        return check

    async def _key_shown(self, request: Request) -> AccessKey | None:
        """The key that a request has; slower where wrong ones come from, as at every port."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        arrival = arrival_of(request.scope)
        failures = arrival.admission.failures
        key = self._keyring.who_sent(given.encode())
        slow_s = failures.slow_s(arrival.address, clock.mono())
        if key is None:
            failures.note(arrival.address, clock.mono())
        if slow_s and (key is None or not arrival.is_proved):
            await asyncio.sleep(slow_s)
        return key

    def _refusal(
        self, way: Way, roles: frozenset[KeyRole], request: Request, key: AccessKey | None
    ) -> Response | None:
        """The answer to who may not."""
        if key is None:
            self._tell(request, None, "a request without a key that is known here")
            text = "send 'Authorization: Bearer KEY' with a key of this server"
            return answer({"error": text, "code": "key"}, 401)
        if not key.is_live(clock.wall()):
            code = "expired" if key.revoked_at is None else "revoked"
            self._tell(request, key, f"the key is {code}")
            return answer({"error": why_ended(key), "code": code}, 401)
        arrival = arrival_of(request.scope)
        if not arrival.prove():
            return answer({"error": arrival.admission.why_full}, 503)
        arrival.key = key.id
        if key.role not in roles:
            what = f"{way.method} {way.path}"
            self._tell(request, key, f"{what} with role {key.role}")
            return answer({"error": why_not(key, roles, what), "code": "role"}, 403)
        request.scope[_KEY] = key
        return None

    async def _serve(self, way: Way, handler: Handler, request: Request) -> Response:
        try:
            response = await handler(request)
        except BadRequest as error:
            return answer({"error": str(error)}, 400)
        except OverflowError:
            return answer({"error": "a number in it is too large: the largest is 2**63 - 1"}, 400)
        except StoreFull as error:
            return answer({"error": str(error)}, 507)
        if way.roles == ADMINS and way.method != "GET" and response.status_code == OK:
            what = request.scope.get(_DONE, f"{way.method} {request.url.path}")
            self._audit.did(_address_of(request), key_of(request), what)
        return response

    def _tell(self, request: Request, key: AccessKey | None, what: str) -> None:
        self._audit.refused(_address_of(request), key, what)


_KEY = "multihost.key"
_DONE = "multihost.done"


def note(request: Request, what: str) -> None:
    """Say for the audit trail what was done, better than the request's path does."""
    request.scope[_DONE] = what


def key_of(request: Request) -> AccessKey:
    """The key that a request was let through with."""
    key: AccessKey = request.scope[_KEY]
    return key


def answer(value: Any, status: int = OK) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _address_of(request: Request) -> str:
    client = request.client
    return "local" if client is None else f"{client.host}:{client.port}"
