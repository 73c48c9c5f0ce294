"""Claims about blobs that a peer asks for or sends, with a disk that has its moods."""

import asyncio
import errno
from types import SimpleNamespace

import pytest

from multihost.core.digest import digest_of
from multihost.errors import StoreFull
from multihost.server import blobs
from multihost.server.blobs import BlobStore, BlobTraffic
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


class FullStore:
    """A committer whose store has no room for rows, unless they are said to be there."""

    def __init__(self):
        self.rows = {}
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def ask(self, run, *, only_reads=False, is_durable=False):
        if only_reads:
            return run(SimpleNamespace(blob=self.rows.get), 0.0)
        assert is_durable
        self.is_asked.set()
        await self.may_answer.wait()
        raise StoreFull("no room")


def files_left(tmp_path, sending):
    """Files of blobs that are left after something was sent to a full store."""

    async def main():
        committer = FullStore()
        store = BlobStore(committer, tmp_path, is_durable=False)
        async with asyncio.timeout(20):
            await sending(store, committer)
        store.files.close()

    asyncio.run(main())
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


async def send(store):
    part = m.PutBlob(digest_of(DATA), len(DATA), 0, DATA)
    with pytest.raises(StoreFull):
        await store.put_part("a connection", part)


def test_a_blob_that_a_full_store_refuses_takes_no_room_on_the_disk(tmp_path):
    async def sending(store, committer):
        committer.may_answer.set()
        await send(store)

    assert files_left(tmp_path, sending) == []


def test_a_blob_that_is_refused_stays_for_whoever_has_a_row_of_it(tmp_path):
    async def sending(store, committer):
        committer.rows[digest_of(DATA)] = StoredBlob(len(DATA), None)
        committer.may_answer.set()
        await send(store)

    assert files_left(tmp_path, sending) == [digest_of(DATA).hex()]


def test_of_two_who_are_refused_the_same_blob_the_last_takes_it_away(tmp_path):
    async def sending(store, committer):
        first = asyncio.create_task(send(store))
        await committer.is_asked.wait()
        committer.is_asked.clear()
        second = asyncio.create_task(send(store))
        await committer.is_asked.wait()
        committer.may_answer.set()
        await asyncio.gather(first, second)

    assert files_left(tmp_path, sending) == []


def test_a_blob_that_came_again_meanwhile_is_not_withdrawn(tmp_path, monkeypatch):
    async def sending(store, committer):
        monkeypatch.setattr("multihost.server.blobfiles.clock.mono", lambda: 5.0)
        committer.may_answer.set()
        await send(store)

    assert files_left(tmp_path, sending) == [digest_of(DATA).hex()]
