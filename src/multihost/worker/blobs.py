"""Blobs at a worker: functions and big arguments fetched once, big results sent once."""

from collections import OrderedDict
from collections.abc import Callable

from multihost.core.digest import digest_of
from multihost.runtime.peer import Peer
from multihost.wire import message as m

CACHE_BYTES = 256 << 20
"""Blobs kept in memory."""

Waiter = Callable[[bytes | None], None]


class WorkerBlobs:
    """Fetches blobs by digest and sends blobs; again after a reconnect, until it is done."""

    def __init__(self, peer: Peer) -> None:
        """Exchange blobs over ``peer``."""
        self._peer = peer
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._waiting: dict[bytes, list[Waiter]] = {}
        self._parts: dict[bytes, bytearray] = {}
        self._sending: dict[bytes, tuple[bytes, list[Callable[[str | None], None]]]] = {}

    def cached(self, digest: bytes) -> bytes | None:
        """The blob, if it is here."""
        data = self._cache.get(digest)
        if data is not None:
            self._cache.move_to_end(digest)
        return data

    def get(self, digest: bytes, then: Waiter) -> None:
        """Call ``then`` with the blob, at once if it is here; with None if there is none."""
        data = self.cached(digest)
        if data is not None:
            then(data)
            return
        waiters = self._waiting.setdefault(digest, [])
        waiters.append(then)
        if len(waiters) == 1:
            self._peer.send(m.GetBlob(digest))

    def put(self, data: bytes, then: Callable[[m.Blob, str | None], None]) -> None:
        """Send a blob; ``then`` is told when it is stored, or why it is not."""
        blob = m.Blob(digest_of(data), len(data))

        def done(error: str | None) -> None:
            then(blob, error)

        entry = self._sending.get(blob.digest)
        if entry is not None:
            entry[1].append(done)
            return
        self._sending[blob.digest] = (data, [done])
        self._send(blob.digest, data)

    def received(self, message: object) -> None:
        """Take a message about blobs."""
        if isinstance(message, m.BlobPart):
            self._part(message)
        elif isinstance(message, m.BlobStored | m.BlobRefused):
            error = message.message if isinstance(message, m.BlobRefused) else None
            _, waiting = self._sending.pop(message.digest, (b"", []))
            for then in waiting:
                then(error)

    def connected(self) -> None:
        """Ask and send again what was under way."""
        self._parts.clear()
        for digest in self._waiting:
            self._peer.send(m.GetBlob(digest))
        for digest, (data, _) in self._sending.items():
            self._send(digest, data)

    def _send(self, digest: bytes, data: bytes) -> None:
        for offset in range(0, len(data), m.BLOB_PART_BYTES):
            part = data[offset : offset + m.BLOB_PART_BYTES]
            self._peer.send(m.PutBlob(digest, len(data), offset, part))

    def _part(self, part: m.BlobPart) -> None:
        digest = part.digest
        if digest not in self._waiting:
            return
        if part.size_bytes < 0:
            self._tell(digest, None)
            return
        if len(part.data) == part.size_bytes:
            self._whole(digest, part.data)
            return
        data = self._parts.setdefault(digest, bytearray())
        if part.offset == len(data):
            data += part.data
        if len(data) == part.size_bytes:
            self._whole(digest, bytes(self._parts.pop(digest)))

    def _whole(self, digest: bytes, data: bytes) -> None:
        if digest_of(data) != digest:
            self._tell(digest, None)
            return
        self._cache[digest] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= len(oldest)
        self._tell(digest, data)

    def _tell(self, digest: bytes, data: bytes | None) -> None:
        self._parts.pop(digest, None)
        for then in self._waiting.pop(digest, ()):
            then(data)
