"""Connections to managers over TLS: the standard library's framing in an encrypted stream.

A manager that is started beside a server with TLS makes a certificate for its
own lifetime; its address, which travels in proxies, has the fingerprint.
Loaded only where such an address is met.
"""

import socket
import ssl
from io import BytesIO
from multiprocessing import connection as standard
from typing import Any

from multihost.runtime.address import url_of
from multihost.runtime.trust import Trust, check_certificate, client_context, explain


class SecureConnection(standard.Connection):
    """A connection as the standard library has it, whose bytes go through TLS."""

    def __init__(self, wire: ssl.SSLSocket) -> None:
        """Own ``wire``."""
        super().__init__(wire.fileno())
        self._wire = wire

    def _close(self) -> None:
        self._wire.close()

    def _send(self, buf: Any, write: object = None) -> None:
        self._wire.sendall(buf)

    def _recv(self, size: int, read: object = None) -> BytesIO:
        data = BytesIO()
        while data.tell() < size:
            part = self._wire.recv(size - data.tell())
            if not part:
                if data.tell():
                    raise OSError("got end of file during message")
                raise EOFError
            data.write(part)
        return data

    def _poll(self, timeout: float | None) -> bool:
        return bool(self._wire.pending()) or bool(standard.wait([self], timeout))


def connect_tls(host: str, port: int, fingerprint: str) -> SecureConnection:
    """A connection to the manager that has this certificate; raises UntrustedServer, OSError."""
    url, trust = url_of(host, port, is_tls=True), Trust(fingerprint)
    raw = socket.create_connection((host, port))
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = client_context(trust).wrap_socket(raw, server_hostname=host)
    except OSError as error:
        raw.close()
        raise explain(url, error) from None
    try:
        check_certificate(url, trust, wire.getpeercert(binary_form=True))
    except BaseException:
        wire.close()
        raise
    return SecureConnection(wire)
