"""TLS connections on the event loop, handed over only after the certificate was checked.

Apart from ``trust``, which processes need that have no event loop, and from
``peer``, which needs this only where TLS is spoken.
"""

import asyncio
import ssl

from multihost.runtime.address import Address
from multihost.runtime.trust import Trust, check_certificate, client_context, explain


class _Waiting(asyncio.Protocol):
    """Holds a connection that nothing may be said on yet."""

    is_lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.is_lost = True


async def open_transport(url: str, address: Address, trust: Trust) -> asyncio.Transport:
    """A TLS connection to a server that has shown what ``trust`` asks for.

    Raises UntrustedServer or OSError.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, waiting = await loop.create_connection(
            _Waiting,
            address.host,
            address.port,
            ssl=client_context(trust),
            server_hostname=address.host,
        )
    except OSError as error:
        raise explain(url, error) from None
    if waiting.is_lost:
        raise ConnectionResetError("the other end closed the connection")
    try:
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        check_certificate(url, trust, tls.getpeercert(binary_form=True))
    except BaseException:
        transport.abort()
        raise
    return transport
