"""What the managers' listener is started with."""

import socket
from dataclasses import dataclass

from multihost.server.managers.framing import MAX_MESSAGE_BYTES
from multihost.server.managers.host import Host, OnShutdown


class DoorError(OSError):
    """The managers' address can't be listened at; its cause says why."""


@dataclass(frozen=True, slots=True)
class ManagersOptions:
    """Where standard-library clients connect, and with which authkeys."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    keys: tuple[tuple[str, bytes], ...] = ()
    """(tenant, authkey); a tenant's queues begin with its name and a slash, without a name they
    are called as the client calls them. None given: the server's own key."""
    listener: socket.socket | None = None
    """A socket that is bound already, in place of host and port."""
    objects: Host | None = None
    """The manager's host process, where objects that are no queues live."""
    on_shutdown: OnShutdown | None = None
    """What a client's ``shutdown`` does; None: it is refused."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """The largest request; larger ones are passed over and answered with an error."""
