"""Large payloads of a client, on their way to the server and back.

Everything here runs on the event-loop thread and decides; a blob is digested
as it comes, so that one of gigabytes holds nobody up at its end.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from multihost.client.outcomes import refusal
from multihost.core.digest import Digester, digest_of
from multihost.errors import LimitExceeded, MultihostError, TaskLost
from multihost.runtime.upload import Line, Then, Uploads, of_bytes
from multihost.wire import message as m

MAX_DOWNLOADS = 16
"""Blobs asked for at the same time."""


Bytes = bytes | bytearray
"""A blob that has come; one of many parts is not copied once more to be unchangeable."""


@dataclass(slots=True)
class _Download:
    blob: m.Blob
    then: list[Callable[[Bytes | MultihostError], None]]
    data: bytearray = field(default_factory=bytearray)
    digester: Digester = field(default_factory=Digester)


class BlobExchange:
    """Uploads and downloads of one session.

    Invariant: each callback given is called exactly once, on the event-loop thread.
    """

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        """Exchange blobs over ``line``."""
        self._line = line
        self._uploads = Uploads(line, loop, _refusal)
        self._downloads: dict[bytes, _Download] = {}
        self._to_get: deque[_Download] = deque()

    # uploads -----------------------------------------------------------------------

    def put(self, blob: m.Blob, data: bytes, then: Then) -> None:
        """Store a blob, then say so (None) or why not."""
        self._uploads.put(blob, of_bytes(data), then)

    def is_known(self, blob: m.Blob) -> bool:
        """Whether the server surely has a blob."""
        return self._uploads.is_known(blob)

    # downloads ---------------------------------------------------------------------

    def get(self, blob: m.Blob, then: Callable[[Bytes | MultihostError], None]) -> None:
        """Fetch a blob, then hand over its bytes or the reason why not."""
        download = self._downloads.get(blob.digest)
        if download is not None:
            download.then.append(then)
            return
        download = self._downloads[blob.digest] = _Download(blob, [then])
        if len(self._downloads) - len(self._to_get) > MAX_DOWNLOADS:
            self._to_get.append(download)
        else:
            self._line.send(m.GetBlob(blob.digest))

    def _part(self, part: m.BlobPart) -> None:
        download = self._downloads.get(part.digest)
        if download is None:
            return
        if part.size_bytes < 0:
            name = part.digest.hex()[:12]
            self._downloaded(
                download, TaskLost(f"the server has no blob {name}; the result was dropped there")
            )
        elif part.offset == 0 and len(part.data) == part.size_bytes:
            self._check(download, part.data, digest_of(part.data))
        elif part.offset == len(download.data):
            download.data += part.data
            download.digester.update(part.data)
            if len(download.data) >= part.size_bytes:
                self._check(download, download.data, download.digester.digest())

    def _check(self, download: _Download, data: Bytes, digest: bytes) -> None:
        if digest == download.blob.digest:
            self._downloaded(download, data)
        else:
            name = download.blob.digest.hex()[:12]
            self._downloaded(download, TaskLost(f"blob {name} came damaged from the server"))

    def _downloaded(self, download: _Download, result: Bytes | MultihostError) -> None:
        del self._downloads[download.blob.digest]
        if self._to_get:
            self._line.send(m.GetBlob(self._to_get.popleft().blob.digest))
        for then in download.then:
            then(result)

    # the session -------------------------------------------------------------------

    def received(self, message: m.BlobFound | m.BlobStored | m.BlobRefused | m.BlobPart) -> None:
        """Take an answer of the server."""
        if isinstance(message, m.BlobPart):
            self._part(message)
            return
        self._uploads.received(message)
        if isinstance(message, m.BlobRefused) and message.digest in self._downloads:
            download = self._downloads[message.digest]
            is_lost = message.code is m.RefusalCode.DAMAGED
            self._downloaded(
                download,
                TaskLost(message.message) if is_lost else _refusal(message, download.blob),
            )

    def writable(self) -> None:
        """Back-pressure is over."""
        self._uploads.writable()

    def connected(self, *, is_same_store: bool) -> None:
        """The connection stands (again): begin or go on with everything that is not done."""
        self._uploads.connected(is_same_store=is_same_store)
        waiting = {id(download) for download in self._to_get}
        for download in self._downloads.values():
            if id(download) not in waiting:
                self._line.send(m.GetBlob(download.blob.digest, len(download.data)))

    def fail(self, error: MultihostError) -> None:
        """The session is lost: nothing more comes or goes."""
        self._uploads.fail(error)
        downloads, self._downloads = self._downloads, {}
        self._to_get.clear()
        for download in downloads.values():
            for deliver in download.then:
                deliver(error)


def _refusal(message: m.BlobRefused, blob: m.Blob) -> MultihostError:
    if message.code is m.RefusalCode.TOO_LARGE:
        return LimitExceeded(message.message, "MAX_BLOB_BYTES", blob.size_bytes)
    return refusal(message.code, message.message)
