"""Submitting work and reading results: one async core, two faces.

``session`` and ``stream`` are the core, ``blocking`` the bridge to programs
without an event loop. Nothing here knows of workers or of the server's inside.
The names are loaded when they are first used: a program that only has a Pool
never loads the asyncio client.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multihost.client.asyncio_client import AsyncClient, AsyncFuture
    from multihost.client.client import Client, connect
    from multihost.client.future import Future

__all__ = ["AsyncClient", "AsyncFuture", "Client", "Future", "connect"]

_HOMES = {
    "AsyncClient": "multihost.client.asyncio_client",
    "AsyncFuture": "multihost.client.asyncio_client",
    "Client": "multihost.client.client",
    "Future": "multihost.client.future",
    "connect": "multihost.client.client",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'multihost.client' has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
