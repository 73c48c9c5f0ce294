"""The server's certificate: made once, kept in the state directory, or one's own.

Certificate and private key are one file, so that no crash leaves a pair that
does not fit. It has to stay: its fingerprint is in every join string. What
makes one is loaded only then.
"""

import os
import ssl
import tempfile
from pathlib import Path

from multihost.errors import ConfigError
from multihost.runtime.files import write_file
from multihost.runtime.trust import fingerprint_of

CERTIFICATE_FILE = "tls.pem"
LIFE_DAYS = 365 * 30
_END = b"-----END CERTIFICATE-----"


def keep_certificate(directory: Path) -> Path:
    """The server's own certificate in its state directory, made if there is none."""
    path = directory / CERTIFICATE_FILE
    if not path.exists():
        write_file(path, _make(), mode=0o600)
    return path


def fresh_context() -> tuple[ssl.SSLContext, str]:
    """A way to speak TLS for as long as this process runs, and its certificate's fingerprint."""
    with tempfile.TemporaryDirectory(prefix="multihost-") as directory:
        path = keep_certificate(Path(directory))
        return server_context(path), read_fingerprint(path)


def server_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """How the server speaks TLS; raises ConfigError for files that won't do.

    ``key`` None: it is in the certificate's file.
    """
    secret = key or certificate
    _check_mode(secret, is_ours=key is None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # connections are kept; nothing is to come that was not asked for
    try:
        context.load_cert_chain(certificate, secret, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{certificate} and {secret} are no certificate (PEM, with its chain) and its private "
            f"key: {error.reason or error}"
        ) from None
    except OSError as error:
        message = f"can't read {certificate} or {secret}: {error.strerror}"
        raise ConfigError(message) from None
    return context


def read_fingerprint(certificate: Path) -> str:
    """SHA-256 of the (first) certificate in a file; raises ConfigError."""
    try:
        text = certificate.read_text(errors="replace")
        start = text.index("-----BEGIN CERTIFICATE-----")
        pem = text[start : text.index(_END.decode(), start) + len(_END)]
        return fingerprint_of(ssl.PEM_cert_to_DER_cert(pem))
    except OSError as error:
        message = f"can't read the certificate {certificate}: {error.strerror}"
        raise ConfigError(message) from None
    except ValueError:
        raise ConfigError(f"there is no certificate (PEM) in {certificate}") from None


def _no_password() -> str:
    raise ConfigError("the private key needs a password: keep it without one, in a file of 0600")


def _check_mode(path: Path, *, is_ours: bool) -> None:
    """Raise ConfigError when others can read a private key.

    A key of one's own may be its group's, which is how systems share it among services.
    """
    if os.name != "posix":
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        message = f"can't read the private key {path}: {error.strerror}"
        raise ConfigError(message) from None
    if mode & (0o077 if is_ours else 0o007):
        message = f"others may read the private key in {path}: run 'chmod 600 {path}'"
        if is_ours:
            message += ", or delete it (the server makes another) and hand out new join strings"
        raise ConfigError(message)


def _make() -> bytes:
    """A private key and a certificate that it signed itself, in PEM."""
    import datetime as dt
    import ipaddress
    import socket

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"multihost {host}"[:64])])
    today = dt.datetime.now(dt.UTC)
    names = [
        *(x509.DNSName(each) for each in dict.fromkeys((host, "localhost")) if each.isascii()),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=LIFE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + secret
