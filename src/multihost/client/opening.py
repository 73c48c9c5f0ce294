"""From an address to an open session, with a thread to run it.

Loaded late: what it imports (asyncio, the WebSocket protocol) takes as long as
an embedded server takes to start, and so the two overlap.
"""

from collections.abc import Callable

from multihost.client.blocking import Bridge
from multihost.client.session import Session
from multihost.runtime.config import Target


def open_session(
    find: Callable[[], Target], patience_s: float | None
) -> tuple[Bridge, Session, Target]:
    """Open a session with the server that ``find`` finds; raises as ``Session.connect`` does."""
    bridge = Bridge()
    try:
        target = find()
        session = bridge.call(_connect(target, patience_s))
    except BaseException:
        bridge.stop()
        raise
    return bridge, session, target


async def _connect(target: Target, patience_s: float | None) -> Session:
    return await Session(target, patience_s).connect()
