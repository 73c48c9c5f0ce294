"""The HTTP side of a server: application, uvicorn's settings, connections.

A module of its own because it brings uvicorn and starlette, a fifth of what a
server imports: a program's embedded server, which nobody asks anything by
HTTP, does without until somebody does.
"""

from collections.abc import Callable

import uvicorn

from multihost.runtime.link import Link
from multihost.server.admission import Arrival
from multihost.server.api import Api, make_app
from multihost.server.audit import Audit
from multihost.server.backups import Backups
from multihost.server.keyring import Keyring
from multihost.server.routes import Gate
from multihost.server.views import Views
from multihost.server.web import WebConnection

REQUEST_HEAD_BYTES = 32 << 10
"""Of an HTTP request's line and headers."""


class Site:
    """What answers HTTP requests; a WebSocket leaves it right after its request line."""

    def __init__(
        self,
        views: Views,
        backups: Backups,
        keyring: Keyring,
        audit: Audit,
        make_link: Callable[..., Link],
    ) -> None:
        """Answer from these; ``make_link`` makes the protocol of a WebSocket."""
        config = self._config = uvicorn.Config(
            make_app(Api(views, backups, keyring), Gate(keyring, audit)),
            http="h11",  # bounds a request's head, which httptools does not
            h11_max_incomplete_event_size=REQUEST_HEAD_BYTES,
            ws=make_link,  # type: ignore[arg-type]  # called like the class it expects
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = self._server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        server.servers = []  # it accepts nothing by itself

    def connection(self, arrival: Arrival) -> WebConnection:
        """The protocol of a connection that has arrived."""
        return WebConnection(self._config, self._server.server_state, arrival)

    async def shutdown(self) -> None:
        """Close what is open, after its answer."""
        await self._server.shutdown(sockets=[])
