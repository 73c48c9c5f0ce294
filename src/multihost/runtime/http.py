"""HTTP to a server, with its certificate checked before the key is sent.

Blocking, for questions that need no session. Apart from ``trust``, since what
it imports is of no use to workers and their children.
"""

import http.client
from typing import Any

from multihost.errors import AuthenticationError, KeyExpired, KeyRevoked, MultihostError, NotAllowed
from multihost.runtime.address import parse_url
from multihost.runtime.secret import wrong_key
from multihost.runtime.trust import (
    Trust,
    check_certificate,
    client_context,
    explain,
    fingerprint_of,
    refuse_plain,
)


def http_connection(url: str, trust: Trust, timeout_s: float) -> http.client.HTTPConnection:
    """A connection for requests, opened with the first; raises as ``refuse_plain`` does.

    Each time it opens, the server has to show what ``trust`` asks for before the
    request, and the key in it, is sent.
    """
    refuse_plain([url], trust)
    is_tls, host, port = parse_url(url)
    if not is_tls:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    return _Checked(url, trust, host, port, timeout=timeout_s, context=client_context(trust))


def tls_of(connection: http.client.HTTPConnection) -> tuple[str, str] | None:
    """Version of TLS and the certificate's fingerprint, once it was open; None without TLS."""
    return connection.seen if isinstance(connection, _Checked) else None


def refusal(url: str, status: int, content: Any) -> MultihostError | None:
    """The error for an answer by which the server refuses a key; None for any other answer."""
    fields = content if isinstance(content, dict) else {}
    text, code = f"{url}: {fields.get('error', '')}", fields.get("code")
    if status == http.HTTPStatus.FORBIDDEN:
        return NotAllowed(text)
    if status != http.HTTPStatus.UNAUTHORIZED:
        return None
    if code in ("expired", "revoked"):
        return (KeyExpired if code == "expired" else KeyRevoked)(text)
    return AuthenticationError(wrong_key(url))


class _Checked(http.client.HTTPSConnection):
    """Sends nothing to a server that is not the one that is meant."""

    seen: tuple[str, str] | None = None

    def __init__(self, url: str, trust: Trust, host: str, port: int, **options: Any) -> None:
        super().__init__(host, port, **options)
        self._url = url
        self._trust = trust

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            raise explain(self._url, error) from None
        certificate = self.sock.getpeercert(binary_form=True) or b""
        self.seen = self.sock.version() or "TLS", fingerprint_of(certificate)
        try:
            check_certificate(self._url, self._trust, certificate)
        except BaseException:
            self.close()
            raise
