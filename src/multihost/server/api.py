"""HTTP on the server's port: health, and what listings show.

Every page is read from counters and indexed rows; nothing here scans tasks.
A request proves itself with ``Authorization: Bearer KEY``.
"""

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import multihost
from multihost.core.job import MAX_NAME_CHARS
from multihost.errors import BadRequest, StoreFull
from multihost.server.backups import Backups
from multihost.server.services import Services
from multihost.server.views import Views
from multihost.server.web import arrival_of

MAX_WAIT_S = 30.0
"""Longest time one request waits for a job to end; the client asks again."""
MAX_PAGE = 1000
MAX_BODY_BYTES = 1 << 20
"""Of a request's body."""

Handler = Callable[[Request], Awaitable[Response]]


def make_app(services: Services, views: Views, backups: Backups, key: bytes) -> Starlette:
    """The ASGI application of a server."""
    api = _Api(services, views, backups)

    def guarded(handler: Handler) -> Handler:
        async def check(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key):
                return _json(
                    {"error": "send 'Authorization: Bearer KEY' with the server's key"}, 401
                )
            if not arrival_of(request.scope).prove():
                return _json({"error": arrival_of(request.scope).admission.why_full}, 503)
            try:
                return await handler(request)
            except BadRequest as error:
                return _json({"error": str(error)}, 400)
            except OverflowError:
                return _json(
                    {"error": "a number in it is too large: the largest is 2**63 - 1"}, 400
                )
            except StoreFull as error:
                return _json({"error": str(error)}, 507)

        return check

    def route(path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, guarded(handler), methods=list(methods) or ["GET"])

    return Starlette(
        routes=[
            Route("/healthz", api.health),
            route("/api/jobs", api.jobs),
            # A job's name may have slashes, so what ends in a verb comes first.
            route("/api/jobs/{job:path}/tasks", api.tasks),
            route("/api/jobs/{job:path}/cancel", api.cancel, "POST"),
            route("/api/jobs/{job:path}/retry", api.retry, "POST"),
            route("/api/jobs/{job:path}/delete", api.delete, "POST"),
            route("/api/jobs/{job:path}", api.job),
            route("/api/tasks/{job:int}/{index:int}", api.task),
            route("/api/queues", api.queues),
            route("/api/queues/{name:path}", api.set_queue, "POST"),
            route("/api/item-queues", api.item_queues),
            route("/api/workers", api.workers),
            route("/api/backup", api.backup),
            route("/api/backup", api.start_backup, "POST"),
        ]
    )


class _Api:
    """The handlers; each reads its parameters, asks the views, answers JSON."""

    def __init__(self, services: Services, views: Views, backups: Backups) -> None:
        self.services = services
        self.views = views
        self.backups = backups

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok", "version": multihost.__version__})

    async def jobs(self, request: Request) -> Response:
        query = request.query_params
        try:
            limit = max(1, min(int(query.get("limit", 100)), MAX_PAGE))
            before = int(query["before"]) if "before" in query else None
            rows = await self.views.jobs(query.get("state"), before, limit)
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(rows)

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
            return _json({"error": str(error)}, 400)
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
            return _json({"error": str(error)}, 400)
        return _found(result, f"job {request.path_params['job']}")

    async def retry(self, request: Request) -> Response:
        indices = await _indices(request)
        result = await self.views.retry(request.path_params["job"], indices)
        return _found(result, f"job {request.path_params['job']}")

    async def queues(self, _: Request) -> Response:
        return _json(await self.views.queues())

    async def item_queues(self, _: Request) -> Response:
        return _json(await self.views.item_queues())

    async def set_queue(self, request: Request) -> Response:
        body = await _body(request)
        name, paused, limit = request.path_params["name"], body.get("paused"), body.get("limit")
        if not isinstance(paused, bool | None) or not isinstance(limit, int | None):
            raise BadRequest('send {"paused": true|false, "limit": N}')
        if not 0 < len(name) <= MAX_NAME_CHARS:
            raise BadRequest(f"a queue's name has 1 to {MAX_NAME_CHARS} characters")
        await self.views.set_queue(name, is_paused=paused, limit=limit)
        return _json({"queue": name})

    async def workers(self, _: Request) -> Response:
        return _json(await self.views.workers())

    async def backup(self, request: Request) -> Response:
        return _json(await self.backups.look(_wait_s(request)))

    async def start_backup(self, request: Request) -> Response:
        path = (await _body(request)).get("path")
        if not isinstance(path, str):
            return _json({"error": 'send {"path": "/a/new/file"}'}, 400)
        self.backups.start(Path(path))
        return _json(await self.backups.look(0))


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


def _wait_s(request: Request) -> float:
    try:
        return min(MAX_WAIT_S, float(request.query_params.get("wait", 0)))
    except ValueError:
        return 0.0


def _found(value: Any, what: str) -> Response:
    if value is None:
        return _json({"error": f"there is no {what}"}, 404)
    return _json(value)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
