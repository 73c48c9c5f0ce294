"""HTTP connections: uvicorn's, with a deadline for whoever does not finish a request.

uvicorn waits for ever for the rest of a request. Here a request has to be whole
some seconds after its first byte, and who has not shown the key gets one answer
a connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from multihost.server.admission import Arrival

REQUEST_S = 10.0
"""From the first byte of a request to its last."""
_ARRIVAL = "multihost.arrival"

Event = MutableMapping[str, Any]
Send = Callable[[Event], Awaitable[None]]


class WebConnection(H11Protocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    def __init__(self, config: Config, state: ServerState, arrival: Arrival) -> None:
        """Serve the connection that has arrived."""
        super().__init__(config, state, {})
        self.arrival = arrival
        application: Any = self.app
        self.app = partial(self._serve, application)
        make_link: Any = config.ws_protocol_class
        self.ws_protocol_class = partial(make_link, arrival=arrival)  # type: ignore[assignment]
        self._deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Go on with the request, and watch whether the rest of it comes."""
        super().data_received(data)
        if self.transport.get_protocol() is self and self._is_within_request():
            if self._deadline is None:
                self._deadline = self.loop.call_later(REQUEST_S, self.arrival.hang_up)
        else:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        self.arrival.left()
        super().connection_lost(exc)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_within_request(self) -> bool:
        state = self.conn.their_state
        return state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))

    async def _serve(self, app: Any, scope: Event, receive: Any, send: Send) -> None:
        """Run the application, and close after the answer to who has not shown the key."""

        async def answer(event: Event) -> None:
            if event["type"] == "http.response.start" and not self.arrival.is_proved:
                event["headers"] = [*event.get("headers", ()), (b"connection", b"close")]
            await send(event)

        scope[_ARRIVAL] = self.arrival
        await app(scope, receive, answer)


def arrival_of(scope: Event) -> Arrival:
    """The connection that a request came by."""
    arrival: Arrival = scope[_ARRIVAL]
    return arrival
