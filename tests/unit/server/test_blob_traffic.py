"""Claims about blobs that a peer asks for, from a disk that does not always give them."""

import asyncio
import errno
from types import SimpleNamespace

import pytest

from multihost.server import blobs
from multihost.server.blobs import BlobTraffic
from multihost.store.base import StoredBlob
from multihost.wire import message as m

DIGEST = b"d" * 32
DATA = b"x" * 300_000


class Link:
    """Remembers what is sent, and rings when an answer has ended."""

    is_writable = True

    def __init__(self):
        self.sent = []
        self.has_answered = asyncio.Event()

    def send(self, message):
        self.sent.append(message)
        if isinstance(message, m.BlobRefused) or message.offset + len(message.data) in (0, 300_000):
            self.has_answered.set()


class Files:
    """A disk that has so many troubles before it gives what is there."""

    def __init__(self, troubles, data):
        self.troubles = troubles
        self.data = data

    async def read(self, _, offset, size_bytes):
        if self.troubles:
            raise OSError(self.troubles.pop(), "trouble")
        return self.data[offset : offset + size_bytes]

    def forget(self, _):
        pass


def answer(monkeypatch, troubles, data=DATA):
    """What is said last to a peer that asks for a blob of 300,000 bytes."""
    monkeypatch.setattr(blobs, "READ_PAUSE_S", 0.0)

    async def main():
        async def find(_):
            return StoredBlob(len(DATA), None)

        link = Link()
        store = SimpleNamespace(find=find, files=Files(troubles, data))
        traffic = BlobTraffic(store, link)
        traffic.received(m.GetBlob(DIGEST))
        await asyncio.wait_for(link.has_answered.wait(), 20)
        traffic.close()
        return link.sent[-1]

    return asyncio.run(main())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_blob_that_can_not_be_read_for_a_moment_is_given_after_it(monkeypatch, number):
    assert answer(monkeypatch, [number] * 3) == m.BlobPart(DIGEST, len(DATA), 0, DATA)


def test_a_blob_that_can_not_be_read_at_all_is_not_called_deleted(monkeypatch):
    refused = answer(monkeypatch, [errno.EIO] * 100)
    assert isinstance(refused, m.BlobRefused)
    assert "is stored and can't be read: trouble" in refused.message


def test_who_asks_for_a_blob_whose_file_was_cut_off_does_not_wait_for_ever(monkeypatch):
    refused = answer(monkeypatch, [], DATA[:1000])
    assert isinstance(refused, m.BlobRefused)
    assert "ends after 1000 bytes" in refused.message


def test_a_blob_that_is_deleted_is_not_waited_for(monkeypatch):
    assert answer(monkeypatch, [errno.ENOENT]) == m.BlobPart(DIGEST, -1, 0, b"")
