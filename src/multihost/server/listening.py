"""The sockets that a server listens on."""

import socket
from pathlib import Path


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; raises OSError that names it."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        error.strerror = f"can't listen on {host}:{port}: {error.strerror}"
        raise
    listener.setblocking(False)
    return listener


def listen_nearby(path: Path) -> socket.socket | None:
    """A socket at a path, for this machine alone; None where there can't be one.

    What is there is taken for what a server left behind that was killed. A path has room for
    about 100 bytes only, and some file systems have no sockets: then the network has to do.
    """
    if not hasattr(socket, "AF_UNIX"):
        return None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path.absolute()))
        path.chmod(0o600)
    except OSError:
        listener.close()
        return None
    listener.setblocking(False)
    return listener


def remove_nearby(path: str) -> None:
    """Nobody listens there any more."""
    Path(path).unlink(missing_ok=True)
