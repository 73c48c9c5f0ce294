"""Talking to the server's HTTP: one kept connection, errors that say what next.

Blocking and small on purpose: a listing should take no longer than its answer.
"""

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from multihost.cli.exits import CommandError, Exit
from multihost.errors import ProtocolError, StoreFull, UntrustedServer
from multihost.runtime.config import Target
from multihost.runtime.http import http_connection, refusal, tls_of
from multihost.runtime.reach import in_turn
from multihost.runtime.trust import MAYBE_TLS, nobody_there

TIMEOUT_S = 10.0
"""For a server to answer what needs no waiting."""


class NotThereError(CommandError):
    """The server has nothing of that name."""


class Connection:
    """A kept HTTP connection to the first address of ``target`` that answers."""

    def __init__(self, target: Target) -> None:
        """Talk to ``target``; connects with the first request."""
        self.target = target
        self.url = target.urls[0]
        self._http: http.client.HTTPConnection | None = None

    def get(self, path: str, *, wait_s: float = 0.0, **query: Any) -> Any:
        """Answer to a question; ``wait_s`` is how long the server may take to give it."""
        asked = {name: value for name, value in query.items() if value is not None}
        if wait_s:
            asked["wait"] = f"{wait_s:g}"
        text = f"{path}?{urlencode(asked)}" if asked else path
        return self._request("GET", text, None, TIMEOUT_S + wait_s)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Answer to an order."""
        return self._request("POST", path, json.dumps(body).encode(), TIMEOUT_S)

    @property
    def tls(self) -> tuple[str, str] | None:
        """Version and the certificate's fingerprint, of the last connection, if it had TLS."""
        return tls_of(self._http) if self._http is not None else None

    def close(self) -> None:
        """Let go of the connection."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _request(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        request = _Request(method, path, body, self.target.key.decode(), timeout_s)
        if self._http is not None:
            try:
                return _ask(self._http, self.url, request)
            except (OSError, http.client.HTTPException):
                self.close()  # a kept connection may have died; a new one decides
        reasons: dict[str, str] = {}
        untrusted = None
        for url in in_turn(self.target.urls, reasons):
            self._http, self.url = http_connection(url, self.target.trust, timeout_s), url
            try:
                return _ask(self._http, url, request)
            except UntrustedServer as error:
                untrusted = untrusted or error
                reasons[url] = "another certificate"
            except OSError as error:
                reasons[url] = error.strerror or str(error) or type(error).__name__
                if isinstance(error, http.client.RemoteDisconnected) and url.startswith("http:"):
                    reasons[url] += f"; {MAYBE_TLS}"
            except http.client.HTTPException as error:
                raise _not_ours(url) from error
            self.close()
        raise nobody_there(reasons, untrusted)


class _Request(NamedTuple):
    method: str
    path: str
    body: bytes | None
    key: str
    timeout_s: float


def _ask(connection: http.client.HTTPConnection, url: str, request: _Request) -> Any:
    """Send ``request`` and read its answer; OSError when the connection does not do."""
    connection.timeout = request.timeout_s
    if connection.sock is not None:
        connection.sock.settimeout(request.timeout_s)
    headers = {"Authorization": f"Bearer {request.key}"}
    connection.request(request.method, request.path, request.body, headers)
    response = connection.getresponse()
    return _answer(url, response.status, response.read())


def _answer(url: str, status: int, data: bytes) -> Any:
    """Content of an answer, or the error that it stands for."""
    try:
        content = json.loads(data)
    except ValueError:
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            content = None
        else:
            raise _not_ours(url) from None
    if status == http.HTTPStatus.OK:
        return content
    message = content.get("error", "") if isinstance(content, dict) else ""
    refused = refusal(url, status, content)
    if refused is not None:
        raise refused
    if status == http.HTTPStatus.NOT_FOUND:
        raise NotThereError(message or "there is nothing of that name", Exit.USAGE)
    if status == http.HTTPStatus.BAD_REQUEST:
        raise CommandError(message, Exit.USAGE)
    if status == http.HTTPStatus.INSUFFICIENT_STORAGE:
        raise StoreFull(message)
    reason = f"{status} {message}".strip()
    raise CommandError(
        f"the server at {url} failed to answer ({reason}); what it prints says why",
        Exit.FAILED,
    )


def _not_ours(url: str) -> ProtocolError:
    return ProtocolError(
        f"something answers at {url}, but it is no multihost server; correct --server or "
        "MULTIHOST_URL"
    )


def path_of(job: str, *rest: str) -> str:
    """Path of a job's resource, with the job's name made safe for an address."""
    return "/".join(["/api/jobs", quote(job, safe=""), *rest])
