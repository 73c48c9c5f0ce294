"""Why a client believes that a server is the one it means, and how that is checked.

A certificate's fingerprint decides, or an authority that signed the
certificate. Either is checked as soon as the TLS handshake is over, before one
byte of ours leaves; a server that fails learns nothing, not even that there is
a key. Plain HTTP proves nothing: off loopback it is refused unless somebody
said that the network is to be trusted.

Loads ``ssl`` only where TLS is spoken.
"""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from multihost.errors import ConfigError, ServerNotFound, UntrustedServer
from multihost.runtime.address import parse_url

if TYPE_CHECKING:
    import ssl

INSECURE_VARIABLE = "MULTIHOST_INSECURE"
CA_VARIABLE = "MULTIHOST_CA_FILE"
MAYBE_TLS = "it may speak TLS: use its join string, or https://"
"""What to think of a server that hangs up on plain HTTP."""


class Trust(NamedTuple):
    """What a server has to show. Default: a certificate that this system's authorities signed."""

    fingerprint: str | None = None
    """SHA-256 of the one certificate that counts, in hexadecimal digits."""
    ca_file: str | None = None
    """Authorities (PEM) to believe instead of the system's; of no use beside a fingerprint."""
    is_insecure: bool = False
    """Whether plain HTTP may cross a network."""


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate (DER), in hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


def refuse_plain(urls: Iterable[str], trust: Trust) -> None:
    """Raise ConfigError for addresses that are not encrypted, unless ``trust`` allows it."""
    if trust.is_insecure:
        return
    for url in urls:
        if parse_url(url).is_plain_and_far:
            raise ConfigError(
                f"{url} is not encrypted, and others on the network could read and alter all that "
                "is sent: use the join string that 'multihost key join' prints on the server's "
                f"machine, or set {INSECURE_VARIABLE}=1 if you trust the network and the server "
                "was started with --insecure"
            )


def check_certificate(url: str, trust: Trust, certificate: bytes | None) -> None:
    """Raise UntrustedServer unless the certificate (DER) is the one with the fingerprint."""
    if trust.fingerprint is None:
        return  # the handshake has checked who signed it, and for which name
    found = fingerprint_of(certificate or b"")
    if found != trust.fingerprint:
        raise UntrustedServer(
            f"the server at {url} has another certificate than expected: its SHA-256 fingerprint "
            f"is {found}, expected is {trust.fingerprint}. Nothing was sent to it. If the server "
            "was set up anew, take a new join string from 'multihost key join' on its machine; "
            "if not, something between here and there pretends to be it",
            url,
            trust.fingerprint,
            found,
        )


def nobody_there(
    reasons: dict[str, str], untrusted: UntrustedServer | None
) -> ServerNotFound | UntrustedServer:
    """The error for a server that answers at none of its addresses.

    ``reasons`` by address; ``untrusted``: what answered at one of them was another.
    """
    if untrusted is None:
        told = reasons.values() if len(reasons) == 1 else map(": ".join, reasons.items())
        return ServerNotFound(", ".join(reasons), "; ".join(told))
    others = [f"{url}: {why}" for url, why in reasons.items() if url != untrusted.url]
    if not others:
        return untrusted
    text = f"{untrusted}. Nobody answers at its other addresses ({'; '.join(others)})"
    return UntrustedServer(text, untrusted.url, untrusted.expected, untrusted.found)


def client_context(trust: Trust) -> "ssl.SSLContext":
    """How a client speaks TLS; raises ConfigError when the authorities' file can't be read."""
    import ssl

    if trust.fingerprint is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # ``check_certificate`` does
    else:
        try:
            context = ssl.create_default_context(cafile=trust.ca_file)
        except OSError as error:
            message = f"can't use the certificates in {trust.ca_file}: {error.strerror or error}"
            raise ConfigError(message) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def explain(url: str, error: OSError) -> OSError | UntrustedServer:
    """What ``error``, met while connecting, says to a person."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return UntrustedServer(
            f"the certificate of the server at {url} is not to be trusted here "
            f"({error.verify_message}). Nothing was sent to it. Use the join string that "
            "'multihost key join' prints on its machine (with --pin, if it has a certificate of "
            f"your own), or name the authority's certificate with {CA_VARIABLE}",
            url,
        )
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return ConnectionError(
            "what answers there does not speak TLS: it is no multihost server, or one on http://"
        )
    return error
