"""Claims about blobs on their way to a server whose disk is full."""

import asyncio

from multihost.core.digest import digest_of
from multihost.errors import Refused
from multihost.runtime import upload
from multihost.runtime.upload import Uploads, of_bytes
from multihost.wire import message as m

DATA = b"result" * 1000
BLOB = m.Blob(digest_of(DATA), len(DATA))
FULL = m.BlobRefused(BLOB.digest, "no room", m.RefusalCode.STORE_FULL)


class Line:
    is_writable = True

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)


def run(scenario, *, waits_for_room, monkeypatch):
    async def main():
        line, ends = Line(), []
        uploads = Uploads(
            line,
            asyncio.get_running_loop(),
            lambda message, _: Refused(message.message),
            waits_for_room=waits_for_room,
        )
        uploads.put(BLOB, of_bytes(DATA), ends.append)
        await turns()
        await scenario(line, uploads, ends)

    monkeypatch.setattr(upload, "ROOM_RETRY_S", 0)
    asyncio.run(main())


async def turns():
    for _ in range(4):
        await asyncio.sleep(0)


def test_an_outcome_is_sent_again_until_there_is_room(monkeypatch):
    async def scenario(line, uploads, ends):
        for times in (1, 2, 3):
            assert len(line.sent) == times
            uploads.received(FULL)
            await turns()
        assert ends == []
        uploads.received(m.BlobStored(BLOB.digest))
        assert ends == [None]
        uploads.received(FULL)
        await turns()
        assert len(line.sent) == 4

    run(scenario, waits_for_room=True, monkeypatch=monkeypatch)


def test_an_outcome_that_a_new_connection_has_begun_with_is_not_sent_twice(monkeypatch):
    async def scenario(line, uploads, ends):
        uploads.received(FULL)
        line.is_writable = False
        uploads.connected(is_same_store=True)
        await turns()
        line.is_writable = True
        uploads.writable()
        await turns()
        assert len(line.sent) == 2

    run(scenario, waits_for_room=True, monkeypatch=monkeypatch)


def test_an_outcome_that_is_damaged_or_too_large_is_told_at_once(monkeypatch):
    async def scenario(line, uploads, ends):
        uploads.received(m.BlobRefused(BLOB.digest, "too large", m.RefusalCode.TOO_LARGE))
        assert [str(error) for error in ends] == ["too large"]

    run(scenario, waits_for_room=True, monkeypatch=monkeypatch)


def test_an_argument_is_refused_on_a_full_disk(monkeypatch):
    async def scenario(line, uploads, ends):
        uploads.received(FULL)
        assert [str(error) for error in ends] == ["no room"]

    run(scenario, waits_for_room=False, monkeypatch=monkeypatch)


def test_what_came_damaged_is_sent_again_once(monkeypatch):
    damaged = m.BlobRefused(BLOB.digest, "a gap", m.RefusalCode.DAMAGED)

    async def scenario(line, uploads, ends):
        uploads.received(damaged)
        await turns()
        assert len(line.sent) == 2
        assert ends == []
        uploads.received(damaged)
        await turns()
        assert len(line.sent) == 2
        assert [str(error) for error in ends] == ["a gap"]

    run(scenario, waits_for_room=False, monkeypatch=monkeypatch)


def test_an_outcome_that_waited_for_room_is_sent_again_when_it_came_damaged(monkeypatch):
    damaged = m.BlobRefused(BLOB.digest, "a gap", m.RefusalCode.DAMAGED)

    async def scenario(line, uploads, ends):
        for answer in (damaged, FULL, damaged):
            uploads.received(answer)
            await turns()
        assert len(line.sent) == 4
        assert ends == []

    run(scenario, waits_for_room=True, monkeypatch=monkeypatch)
