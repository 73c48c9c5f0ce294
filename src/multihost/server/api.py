"""HTTP on the server's port: health, and what listings show.

Every page is read from counters and indexed rows; nothing here scans tasks.
Who may ask for what is said in ``routes``.
"""

from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import multihost
from multihost.core.job import MAX_NAME_CHARS
from multihost.errors import BadRequest
from multihost.server.backups import Backups
from multihost.server.key_requests import KeyRequests
from multihost.server.keyring import Keyring
from multihost.server.routes import WAYS, Gate, answer
from multihost.server.views import Views

MAX_WAIT_S = 30.0
"""Longest time one request waits for a job to end; the client asks again."""
MAX_PAGE = 1000
MAX_BODY_BYTES = 1 << 20
"""Of a request's body."""


def make_app(api: "Api", gate: Gate) -> Starlette:
    """The ASGI application of a server."""
    return Starlette(
        routes=[
            Route(way.path, gate.guarded(way, getattr(api, way.handler)), methods=[way.method])
            for way in WAYS
        ]
    )


class Api:
    """The handlers; each reads its parameters, asks the views, answers JSON."""

    def __init__(self, views: Views, backups: Backups, keyring: Keyring) -> None:
        """Serve requests from these."""
        self.views = views
        self.backups = backups
        self.key_requests = KeyRequests(keyring)

    async def health(self, _: Request) -> Response:
        return answer({"status": "ok", "version": multihost.__version__})

    async def jobs(self, request: Request) -> Response:
        query = request.query_params
        try:
            limit = max(1, min(int(query.get("limit", 100)), MAX_PAGE))
            before = int(query["before"]) if "before" in query else None
            rows = await self.views.jobs(query.get("state"), before, limit)
        except ValueError as error:
            return answer({"error": str(error)}, 400)
        return answer(rows)

    async def job(self, request: Request) -> Response:
        name = request.path_params["job"]
        row = await self.views.job(name)
        wait_s = _wait_s(request)
        if row is not None and wait_s and not row["ended_at"]:
            await self.views.wait_for_end(row["job"], wait_s)
            row = await self.views.job(name)
        return _found(row, f"job {name}")

    async def tasks(self, request: Request) -> Response:
        query = request.query_params
        try:
            rows = await self.views.tasks(
                request.path_params["job"],
                query.get("state"),
                int(query.get("after", -1)),
                max(1, min(int(query.get("limit", 100)), MAX_PAGE)),
            )
        except ValueError as error:
            return answer({"error": str(error)}, 400)
        return _found(rows, f"job {request.path_params['job']}")

    async def task(self, request: Request) -> Response:
        job, index = request.path_params["job"], request.path_params["index"]
        return _found(await self.views.task(job, index), f"task {job}/{index}")

    async def cancel(self, request: Request) -> Response:
        indices = await _indices(request)
        result = await self.views.cancel(request.path_params["job"], indices)
        return _found(result, f"job {request.path_params['job']}")

    async def delete(self, request: Request) -> Response:
        try:
            result = await self.views.delete(request.path_params["job"])
        except ValueError as error:
            return answer({"error": str(error)}, 400)
        return _found(result, f"job {request.path_params['job']}")

    async def retry(self, request: Request) -> Response:
        indices = await _indices(request)
        result = await self.views.retry(request.path_params["job"], indices)
        return _found(result, f"job {request.path_params['job']}")

    async def queues(self, _: Request) -> Response:
        return answer(await self.views.queues())

    async def item_queues(self, _: Request) -> Response:
        return answer(await self.views.shared.item_queues())

    async def drop_item_queue(self, request: Request) -> Response:
        name, is_forced = request.path_params["name"], await _is_forced(request)
        dropped = await self.views.shared.drop_queue(name, is_forced=is_forced)
        return _found(dropped, f"queue of items {name!r}")

    async def locks(self, _: Request) -> Response:
        return answer(await self.views.shared.synchronizers())

    async def drop_lock(self, request: Request) -> Response:
        name, is_forced = request.path_params["name"], await _is_forced(request)
        dropped = await self.views.shared.drop_synchronizer(name, is_forced=is_forced)
        return _found(dropped, f"lock or the like {name!r}")

    async def set_queue(self, request: Request) -> Response:
        body = await _body(request)
        name, paused, limit = request.path_params["name"], body.get("paused"), body.get("limit")
        if not isinstance(paused, bool | None) or not isinstance(limit, int | None):
            raise BadRequest('send {"paused": true|false, "limit": N}')
        if not 0 < len(name) <= MAX_NAME_CHARS:
            raise BadRequest(f"a queue's name has 1 to {MAX_NAME_CHARS} characters")
        await self.views.set_queue(name, is_paused=paused, limit=limit)
        return answer({"queue": name})

    async def workers(self, request: Request) -> Response:
        """With ``gone=1`` those that have left within the last day, not those that are here."""
        is_gone = request.query_params.get("gone") == "1"
        return answer(await self.views.workers(is_gone=is_gone))

    async def installed(self, _: Request) -> Response:
        return answer(self.views.installed())

    async def backup(self, request: Request) -> Response:
        return answer(await self.backups.look(_wait_s(request)))

    async def start_backup(self, request: Request) -> Response:
        path = (await _body(request)).get("path")
        if not isinstance(path, str):
            raise BadRequest('send {"path": "/a/new/file"}')
        self.backups.start(Path(path))
        return answer(await self.backups.look(0))

    async def keys(self, _: Request) -> Response:
        return self.key_requests.list()

    async def own_key(self, request: Request) -> Response:
        return self.key_requests.own(request)

    async def make_key(self, request: Request) -> Response:
        return await self.key_requests.make(request, await _body(request))

    async def revoke_key(self, request: Request) -> Response:
        return await self.key_requests.revoke(request)


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            text = f"the body has more than {MAX_BODY_BYTES} bytes (max_body_bytes): split it"
            raise BadRequest(text)
    try:
        return msgspec.json.decode(data, type=dict[str, Any]) if data else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"the body has to be a JSON object: {error}") from None


async def _indices(request: Request) -> list[int] | None:
    indices = (await _body(request)).get("indices")
    if indices is None:
        return None
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise BadRequest('send {"indices": [NUMBER, ...]}, or nothing for all tasks')
    return indices


async def _is_forced(request: Request) -> bool:
    force = (await _body(request)).get("force", False)
    if not isinstance(force, bool):
        raise BadRequest('send {"force": true}, or nothing')
    return force


def _wait_s(request: Request) -> float:
    try:
        return min(MAX_WAIT_S, float(request.query_params.get("wait", 0)))
    except ValueError:
        return 0.0


def _found(value: Any, what: str) -> Response:
    if value is None:
        return answer({"error": f"there is no {what}"}, 404)
    return answer(value)
