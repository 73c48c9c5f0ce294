"""Large payloads on their way to the server: from a client's memory, or a worker's files.

A blob is known by its digest: it is sent once, however many tasks refer to
it, and one that was interrupted goes on where the server says. Everything
here runs on the event-loop thread and decides; bytes leave part by part, no
faster than the connection takes them, and large blobs take turns with small.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from multihost.errors import BadRequest, MultihostError
from multihost.runtime import clock
from multihost.wire import message as m

BURST_BYTES = 2 << 20
"""Bytes of parts sent in one turn of the loop; then the connection is asked again."""
KNOWN_S = 60.0
"""How long a blob is trusted to be still there without anything of ours referring to it."""
MAX_KNOWN = 4096
ROOM_RETRY_S = 1.0
"""Pause before a blob is sent again that was refused because the disk is full."""

Read = Callable[[int, int], bytes | memoryview]
"""The bytes of a blob from an offset on, so many of them; may raise OSError."""
Then = Callable[[MultihostError | None], None]
Explain = Callable[[m.BlobRefused, m.Blob], MultihostError]


class Line(Protocol):
    """The connection, as uploads need it."""

    @property
    def is_writable(self) -> bool:
        """Whether there is a connection and it takes more bytes."""
        ...

    def send(self, message: m.Message) -> None:
        """Send a message."""
        ...


@dataclass(slots=True, eq=False)
class _Upload:
    blob: m.Blob
    read: Read
    then: list[Then]
    offset: int = 0
    is_asking: bool = False
    """FindBlob was sent; its answer says from where to go on."""
    is_repeated: bool = False
    """It came damaged, and goes again: another has sent it too, or what the server had was bad."""


class Uploads:
    """Uploads of one session.

    Invariant: each callback given is called exactly once, on the event-loop thread.
    """

    def __init__(
        self,
        line: Line,
        loop: asyncio.AbstractEventLoop,
        explain: Explain,
        *,
        waits_for_room: bool = False,
    ) -> None:
        """Send over ``line``; ``explain`` makes the error of a refusal.

        ``waits_for_room``: what is refused because the disk is full is sent again until it is
        not: the outcome of work that nobody wants to do twice.
        """
        self._waits_for_room = waits_for_room
        self._line = line
        self._loop = loop
        self._explain = explain
        self._uploads: dict[bytes, _Upload] = {}
        self._to_send: deque[_Upload] = deque()
        self._is_pump_due = False
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def put(self, blob: m.Blob, read: Read, then: Then) -> None:
        """Store a blob, then say so (None) or why not."""
        if self.is_known(blob):
            then(None)
            return
        upload = self._uploads.get(blob.digest)
        if upload is not None:
            upload.then.append(then)
            return
        upload = self._uploads[blob.digest] = _Upload(blob, read, [then])
        self._begin(upload)

    def is_known(self, blob: m.Blob) -> bool:
        """Whether the server surely has a blob."""
        at = self._known.get(blob.digest)
        return at is not None and clock.mono() - at < KNOWN_S

    # the session -------------------------------------------------------------------

    def received(self, message: m.BlobFound | m.BlobStored | m.BlobRefused) -> None:
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
            upload.is_repeated = False
            self._begin(upload)

    def fail(self, error: MultihostError) -> None:
        """The session is lost: nothing more goes."""
        uploads, self._uploads = self._uploads, {}
        self._to_send.clear()
        for upload in uploads.values():
            for then in upload.then:
                then(error)

    # within ------------------------------------------------------------------------

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
            upload = self._to_send.popleft()
            blob = upload.blob
            size = min(m.BLOB_PART_BYTES, blob.size_bytes - upload.offset)
            try:
                data: Any = upload.read(upload.offset, size)
            except OSError as error:
                text = f"the bytes to be sent can't be read: {error.strerror}"
                self._done(blob.digest, BadRequest(text))
                continue
            self._line.send(m.PutBlob(blob.digest, blob.size_bytes, upload.offset, data))
            upload.offset += size
            budget -= size
            if upload.offset < blob.size_bytes:
                self._to_send.append(upload)
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
        self._done(message.digest, None)

    def _refused(self, message: m.BlobRefused) -> None:
        upload = self._uploads.get(message.digest)
        if upload is None:
            return
        if message.code is m.RefusalCode.DAMAGED and not upload.is_repeated:
            upload.is_repeated = True
            if upload in self._to_send:
                self._to_send.remove(upload)
            self._begin(upload)
            return
        if self._waits_for_room and message.code is m.RefusalCode.STORE_FULL:
            if upload in self._to_send:
                self._to_send.remove(upload)
            upload.is_repeated = False
            self._loop.call_later(ROOM_RETRY_S, self._try_again, upload)
            return
        self._done(message.digest, self._explain(message, upload.blob))

    def _try_again(self, upload: _Upload) -> None:
        """There may be room now; unless a new connection has begun with it meanwhile."""
        is_idle = not upload.is_asking and upload not in self._to_send
        if is_idle and self._uploads.get(upload.blob.digest) is upload:
            self._begin(upload)

    def _done(self, digest: bytes, error: MultihostError | None) -> None:
        upload = self._uploads.pop(digest, None)
        if upload is None:
            return
        if upload in self._to_send:
            self._to_send.remove(upload)
        for then in upload.then:
            then(error)

    _handlers: dict[type, Callable[["Uploads", Any], None]] = {
        m.BlobFound: _found,
        m.BlobStored: _stored,
        m.BlobRefused: _refused,
    }


def of_bytes(data: bytes | memoryview) -> Read:
    """How to read a blob that is in memory."""
    # A view: copying a megabyte costs as much as sending it.
    view = memoryview(data)
    return lambda offset, size: view[offset : offset + size]
