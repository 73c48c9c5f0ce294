"""What the server knows of jobs, queues and workers, over its HTTP API.

Reading and the verbs of people (cancel, retry) need no session: each question
is one request, to whichever address of the list answers.
"""

import json
from typing import Any
from urllib.parse import quote, urlencode

from multihost.errors import BadRequest, ProtocolError, UntrustedServer
from multihost.runtime.config import Target
from multihost.runtime.reach import in_turn
from multihost.runtime.trust import nobody_there

TIMEOUT_S = 30.0
Row = dict[str, Any]


class Listings:
    """Questions to one server."""

    def __init__(self, target: Target) -> None:
        """Ask the server at ``target``."""
        self._target = target

    def jobs(self, state: str | None = None, limit: int = 100) -> list[Row]:
        """Jobs, newest first; ``state`` is open, succeeded, failed or cancelled."""
        query = {"limit": str(limit)} | ({"state": state} if state is not None else {})
        rows: list[Row] = self._ask("GET", f"/api/jobs?{urlencode(query)}")
        return rows

    def job(self, job: int | str) -> Row:
        """A job by its number or name; raises BadRequest when there is none."""
        row: Row = self._ask("GET", f"/api/jobs/{_path(job)}")
        return row

    def cancel(self, job: int | str) -> Row:
        """Cancel what is unfinished of a job."""
        row: Row = self._ask("POST", f"/api/jobs/{_path(job)}/cancel")
        return row

    def retry(self, job: int | str) -> Row:
        """Queue a job's failed and cancelled tasks again."""
        row: Row = self._ask("POST", f"/api/jobs/{_path(job)}/retry")
        return row

    def queues(self) -> list[Row]:
        """Every queue, by name."""
        rows: list[Row] = self._ask("GET", "/api/queues")
        return rows

    def workers(self) -> list[Row]:
        """Workers, newest first."""
        rows: list[Row] = self._ask("GET", "/api/workers")
        return rows

    def slots(self) -> int:
        """Slots of all connected workers together."""
        return sum(int(row["slots"]) for row in self.workers() if row["connected"])

    def _ask(self, method: str, path: str) -> Any:
        import http.client

        reasons: dict[str, str] = {}
        untrusted = None
        for url in in_turn(self._target.urls, reasons):
            try:
                return self._ask_at(url, method, path)
            except UntrustedServer as error:
                untrusted = untrusted or error
                reasons[url] = "another certificate"
            except (OSError, http.client.HTTPException) as error:
                reasons[url] = str(error)
        raise nobody_there(reasons, untrusted)

    def _ask_at(self, url: str, method: str, path: str) -> Any:
        import http

        from multihost.runtime.http import http_connection, refusal

        connection = http_connection(url, self._target.trust, TIMEOUT_S)
        try:
            headers = {"Authorization": f"Bearer {self._target.key.decode()}"}
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            content = json.loads(answer.read() or b"null")
        except ValueError:
            raise ProtocolError(f"{url}: no JSON came back from {path}") from None
        finally:
            connection.close()
        refused = refusal(url, answer.status, content)
        if refused is not None:
            raise refused
        if answer.status != http.HTTPStatus.OK:
            raise BadRequest(str(content.get("error", answer.reason)))
        return content


def _path(job: int | str) -> str:
    return quote(str(job), safe="")
