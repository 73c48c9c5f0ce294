"""A server's address: read from a URL, written as one. No name is looked up here."""

from typing import NamedTuple
from urllib.parse import urlsplit

from multihost.errors import ConfigError

DEFAULT_PORT = 7077
JOIN_PREFIX = "mhj1."
"""What join strings begin with; they may stand wherever a URL may. See ``join``."""
SHOWN = 64
"""Characters of what stands in the place of an address that errors repeat."""
SCHEMES = {"http": False, "https": True}
"""Whether TLS is spoken there."""


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
        raise ConfigError(
            f"{cut(url)!r} is not a server's address, such as http://127.0.0.1:7077 or "
            "https://server:7077, nor a join string"
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
