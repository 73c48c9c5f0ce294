"""The digest by which blobs are named: BLAKE3, 32 bytes.

As strong as SHA-256 and five times as fast (0.1 ms for 1 MiB); a large
payload is digested four times on its way, so this is felt.
"""

from blake3 import blake3

DIGEST_BYTES = 32

Digester = blake3
"""Digests step by step: ``update``, then ``digest``."""


def digest_of(data: bytes | memoryview) -> bytes:
    """Digest of a byte string."""
    return blake3(data).digest()
