"""Large payloads, on their way to the server and back.

A blob is known by its digest: it is sent once, however many tasks refer to
it, and one that was interrupted goes on where the server says. Everything
here runs on the event-loop thread and decides; bytes leave part by part, no
faster than the connection takes them.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from multihost.client.outcomes import refusal
from multihost.core.digest import digest_of
from multihost.errors import MultihostError, TaskLost
from multihost.runtime import clock
from multihost.wire import message as m

BURST_BYTES = 2 << 20
"""Bytes of parts sent in one turn of the loop; then the connection is asked again."""
KNOWN_S = 60.0
"""How long a blob is trusted to be still there without anything of ours referring to it."""
MAX_KNOWN = 4096
MAX_DOWNLOADS = 16
"""Blobs asked for at the same time."""


class Line(Protocol):
    """The connection, as the exchange needs it."""

    @property
    def is_writable(self) -> bool:
        """Whether there is a connection and it takes more bytes."""
        ...

    def send(self, message: m.Message) -> None:
        """Send a message."""
        ...


@dataclass(slots=True)
class _Upload:
    blob: m.Blob
    data: bytes
    then: list[Callable[[MultihostError | None], None]]
    offset: int = 0
    is_asking: bool = False
    """FindBlob was sent; its answer says from where to go on."""


@dataclass(slots=True)
class _Download:
    blob: m.Blob
    then: list[Callable[[bytes | MultihostError], None]]
    parts: list[bytes] = field(default_factory=list)
    have_bytes: int = 0


class BlobExchange:
    """Uploads and downloads of one session.

    Invariant: each callback given is called exactly once, on the event-loop thread.
    """

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        """Exchange blobs over ``line``."""
        self._line = line
        self._loop = loop
        self._uploads: dict[bytes, _Upload] = {}
        self._to_send: deque[_Upload] = deque()
        self._is_pump_due = False
        self._downloads: dict[bytes, _Download] = {}
        self._to_get: deque[_Download] = deque()
        self._known: OrderedDict[bytes, float] = OrderedDict()

    # uploads -----------------------------------------------------------------------

    def put(self, blob: m.Blob, data: bytes, then: Callable[[MultihostError | None], None]) -> None:
        """Store a blob, then say so (None) or why not."""
        if self.is_known(blob):
            then(None)
            return
        upload = self._uploads.get(blob.digest)
        if upload is not None:
            upload.then.append(then)
            return
        upload = self._uploads[blob.digest] = _Upload(blob, data, [then])
        self._begin(upload)

    def _begin(self, upload: _Upload) -> None:
        upload.offset = 0
        if upload.blob.size_bytes >= m.ASK_FIRST_BYTES:
            upload.is_asking = True
            self._line.send(m.FindBlob(upload.blob.digest, upload.blob.size_bytes))
        else:
            self._to_send.append(upload)
            self._wake()

    def _wake(self) -> None:
        if not self._is_pump_due and self._to_send:
            self._is_pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pump_due = False
        budget = BURST_BYTES
        while self._to_send and budget > 0 and self._line.is_writable:
            upload = self._to_send[0]
            # A view: copying a megabyte costs as much as sending it.
            end = upload.offset + m.BLOB_PART_BYTES
            data: Any = memoryview(upload.data)[upload.offset : end]
            blob = upload.blob
            self._line.send(m.PutBlob(blob.digest, blob.size_bytes, upload.offset, data))
            upload.offset += len(data)
            budget -= len(data)
            if upload.offset >= blob.size_bytes:
                self._to_send.popleft()
        if self._line.is_writable:
            self._wake()

    def _found(self, message: m.BlobFound) -> None:
        upload = self._uploads.get(message.digest)
        if upload is None or not upload.is_asking:
            return
        upload.is_asking = False
        if message.have_bytes >= upload.blob.size_bytes:
            self._stored(m.BlobStored(message.digest))
            return
        upload.offset = message.have_bytes
        self._to_send.append(upload)
        self._wake()

    def _stored(self, message: m.BlobStored) -> None:
        self._known[message.digest] = clock.mono()
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self._uploaded(message.digest, None)

    def _refused(self, message: m.BlobRefused) -> None:
        error = refusal(message.code, message.message)
        self._uploaded(message.digest, error)
        download = self._downloads.get(message.digest)
        if download is not None:
            self._downloaded(download, error)

    def _uploaded(self, digest: bytes, error: MultihostError | None) -> None:
        upload = self._uploads.pop(digest, None)
        if upload is None:
            return
        if upload in self._to_send:
            self._to_send.remove(upload)
        for then in upload.then:
            then(error)

    def is_known(self, blob: m.Blob) -> bool:
        """Whether the server surely has a blob."""
        at = self._known.get(blob.digest)
        return at is not None and clock.mono() - at < KNOWN_S

    # downloads ---------------------------------------------------------------------

    def get(self, blob: m.Blob, then: Callable[[bytes | MultihostError], None]) -> None:
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
        elif part.offset == download.have_bytes:
            download.parts.append(part.data)
            download.have_bytes += len(part.data)
            if download.have_bytes >= part.size_bytes:
                self._assemble(download)

    def _assemble(self, download: _Download) -> None:
        parts = download.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if digest_of(data) == download.blob.digest:
            self._downloaded(download, data)
        else:
            name = download.blob.digest.hex()[:12]
            self._downloaded(download, TaskLost(f"blob {name} came damaged from the server"))

    def _downloaded(self, download: _Download, result: bytes | MultihostError) -> None:
        del self._downloads[download.blob.digest]
        if self._to_get:
            self._line.send(m.GetBlob(self._to_get.popleft().blob.digest))
        for then in download.then:
            then(result)

    # the session -------------------------------------------------------------------

    def received(self, message: m.BlobFound | m.BlobStored | m.BlobRefused | m.BlobPart) -> None:
        """Take an answer of the server."""
        self._handlers[type(message)](self, message)

    def writable(self) -> None:
        """Back-pressure is over."""
        self._wake()

    def connected(self, *, is_same_store: bool) -> None:
        """The connection stands (again): begin or go on with everything that is not done."""
        if not is_same_store:
            self._known.clear()
        self._to_send.clear()
        for upload in self._uploads.values():
            self._begin(upload)
        waiting = {id(download) for download in self._to_get}
        for download in self._downloads.values():
            if id(download) not in waiting:
                self._line.send(m.GetBlob(download.blob.digest, download.have_bytes))

    def fail(self, error: MultihostError) -> None:
        """The session is lost: nothing more comes or goes."""
        uploads, self._uploads = self._uploads, {}
        downloads, self._downloads = self._downloads, {}
        self._to_send.clear()
        self._to_get.clear()
        for upload in uploads.values():
            for then in upload.then:
                then(error)
        for download in downloads.values():
            for deliver in download.then:
                deliver(error)

    _handlers: dict[type, Callable[["BlobExchange", Any], None]] = {
        m.BlobFound: _found,
        m.BlobStored: _stored,
        m.BlobRefused: _refused,
        m.BlobPart: _part,
    }
