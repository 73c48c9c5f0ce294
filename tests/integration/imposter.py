"""Somebody else at a server's address: it speaks TLS, and notes what it is told."""

import socket
import threading

from multihost.runtime.trust import fingerprint_of
from multihost.server.certificate import keep_certificate, server_context


class Imposter:
    """Answers at ``url`` with a certificate of its own; ``heard`` is what came over TLS."""

    def __init__(self, directory, port=0):
        certificate = keep_certificate(directory)
        self._context = server_context(certificate)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard = b""
        self.calls = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            raw, _ = self._listener.accept()
            with raw:
                raw.settimeout(10)
                first = raw.recv(1, socket.MSG_PEEK)
                if first == b"\0":
                    return
                self.calls += 1
                try:
                    with self._context.wrap_socket(raw, server_side=True) as wire:
                        self.heard += wire.recv(65536)
                except OSError:  # it broke the connection, as it should
                    continue

    def close(self):
        host, port = self._listener.getsockname()
        with socket.create_connection((host, port)) as end:
            end.sendall(b"\0")
        self._thread.join(10)
        self._listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def fingerprint_at(url):
    """SHA-256 of the certificate that is shown at ``url``."""
    import ssl

    host, port = url.removeprefix("https://").split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw) as wire,
    ):
        return fingerprint_of(wire.getpeercert(binary_form=True))
