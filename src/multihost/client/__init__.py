"""Submitting work and reading results: one async core, two faces.

``session`` and ``stream`` are the core, ``blocking`` the bridge to programs
without an event loop. Nothing here knows of workers or of the server's inside.
"""

from multihost.client.asyncio_client import AsyncClient, AsyncFuture
from multihost.client.client import Client, connect
from multihost.client.future import Future

__all__ = ["AsyncClient", "AsyncFuture", "Client", "Future", "connect"]
