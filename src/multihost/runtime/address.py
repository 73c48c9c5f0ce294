"""A server's address: read from a URL, written as one.

No name is looked up here, but by ``is_own_host``, which is asked only when little else is left.
"""

import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from multihost.errors import ConfigError

DEFAULT_PORT = 7077
JOIN_PREFIX = "mhj1."
"""What join strings begin with; they may stand wherever a URL may. See ``join``."""
SHOWN = 64
"""Characters of what stands in the place of an address that errors repeat."""
SCHEMES = {"http": False, "https": True}
"""Whether TLS is spoken there."""


_UNIX = getattr(socket, "AF_UNIX", None)


class Address(NamedTuple):
    """Where a server listens."""

    is_tls: bool
    host: str
    port: int

    @property
    def is_plain_and_far(self) -> bool:
        """Whether what is said to it crosses a network in clear."""
        return not self.is_tls and not is_loopback(self.host)


def is_join(text: str) -> bool:
    """Whether ``text`` is meant as a join string."""
    return text.strip().startswith(JOIN_PREFIX)


def parse_url(url: str) -> Address:
    """Address of ``http://host:port`` or ``https://host:port``; raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in SCHEMES:
        scheme = "http" if is_loopback(url.partition(":")[0]) else "https"
        lacks_one = "://" not in url and url and url == cut(url)
        meant = f"; did you mean {scheme}://{url}?" if lacks_one else ""
        raise ConfigError(
            f"{cut(url)!r} is not a server's address, such as http://127.0.0.1:7077 or "
            f"https://server:7077, nor a join string{meant}"
        )
    return Address(SCHEMES[parts.scheme], host, port or DEFAULT_PORT)


def cut(url: str) -> str:
    """What may be told of an address, should it be half a join string."""
    return url if len(url) <= SHOWN else f"{url[: SHOWN // 2]}..."


def url_of(host: str, port: int, *, is_tls: bool) -> str:
    """The URL of a server at ``host`` and ``port``."""
    scheme = "https" if is_tls else "http"
    return f"{scheme}://{bracket(host)}:{port}"


def bracket(host: str) -> str:
    """A host as URLs have it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine and no network is between."""
    if host in ("127.0.0.1", "::1", "localhost"):
        return True
    import ipaddress  # seldom needed, and programs start faster without

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether a listener at ``host`` takes connections to every address of the machine."""
    return host in ("", "0.0.0.0", "::")  # noqa: S104 - recognised, not bound


def is_reached(listener: str, host: str) -> bool:
    """Whether what is said to ``host``, of this machine, may come to a listener at ``listener``."""
    return listener == host or is_wildcard(listener) or (is_loopback(listener) == is_loopback(host))


def is_own_host(host: str) -> bool:
    """Whether ``host`` is this machine, by an address or a name of its own."""
    import socket

    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(_is_own_address(family, at) for family, _, _, _, at in found)


def _is_own_address(family: int, at: tuple[Any, ...]) -> bool:
    """Whether an address is one of this machine's: only those can be bound."""
    import socket

    if is_loopback(str(at[0])):
        return True
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(at)
    except OSError:
        return False
    return True


def is_unix_socket(sock: Any) -> bool:
    """Whether what is sent by a socket (an event loop's, perhaps) stays on this machine."""
    return _UNIX is not None and sock.family == _UNIX
