"""The socket that a server listens on."""

import socket


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
