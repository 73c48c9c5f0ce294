"""Messages on their way to a session: in order, in slices, no faster than the store."""

import asyncio
from types import SimpleNamespace

import pytest

from multihost.server import intake as module
from multihost.server.intake import LARGE_BYTES, SLICE, UNSERVED_BYTES, Intake


class Link:
    def __init__(self):
        self.frame_bytes = 0
        self.pauses = set()
        self.sent = []
        self.pause_reading, self.resume_reading = self.pauses.add, self.pauses.discard
        self.send = self.sent.append


class Peer:
    def __init__(self):
        self.got, self.slices, self.end = [], [], None

    def received(self, messages):
        assert self.end is None
        self.got += messages
        self.slices.append(len(messages))

    def closed(self, reason):
        self.end = reason


class Committer:
    def __init__(self):
        self.is_behind = False
        self.operations = []
        self.submit = self.operations.append

    def commit(self):
        operations, self.operations[:] = list(self.operations), []
        for operation in operations:
            operation.done(None)


@pytest.fixture
def parts():
    link, peer, committer = Link(), Peer(), Committer()
    return SimpleNamespace(
        link=link, peer=peer, committer=committer, intake=Intake(link, peer, committer)
    )


async def turns(count=50):
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_usual_frame_is_served_at_once(parts):
    parts.intake.received([1, 2, 3])
    assert parts.peer.got == [1, 2, 3]
    assert not parts.link.pauses
    assert not parts.committer.operations


def test_a_long_frame_is_served_in_slices_with_all_that_follows_behind_it(parts):
    async def main():
        others = []
        asyncio.get_running_loop().call_soon(others.append, "had its turn")
        parts.intake.received(list(range(10 * SLICE)))
        assert (parts.peer.got, parts.link.pauses) == ([], {"turn"})
        parts.intake.received(["behind"])
        await turns(2)
        assert others
        assert len(parts.peer.got) < 10 * SLICE
        await turns()
        assert parts.peer.got == [*range(10 * SLICE), "behind"]
        assert max(parts.peer.slices) == SLICE
        assert not parts.link.pauses

    asyncio.run(main())


def test_what_came_before_the_connection_closed_is_served_before_the_peer_hears_of_it(parts):
    async def main():
        parts.intake.received(list(range(3 * SLICE)))
        parts.intake.closed("gone")
        assert parts.peer.end is None
        await turns()
        assert (len(parts.peer.got), parts.peer.end) == (3 * SLICE, "gone")

    asyncio.run(main())


def test_who_sends_more_than_the_store_takes_is_not_read_until_it_has(parts):
    async def main():
        parts.link.frame_bytes = UNSERVED_BYTES // 2 + 1
        parts.intake.received([1])
        assert not parts.link.pauses
        parts.intake.received([2])
        assert parts.link.pauses == {"unserved"}
        parts.committer.commit()
        assert not parts.link.pauses

    asyncio.run(main())


def test_who_sends_small_frames_to_a_server_that_is_behind_is_not_read_either(parts):
    async def main():
        parts.committer.is_behind = True
        parts.link.frame_bytes = 10
        parts.intake.received([1])
        assert parts.link.pauses == {"unserved"}
        parts.committer.is_behind = False
        parts.committer.commit()
        assert not parts.link.pauses

    asyncio.run(main())


def test_who_is_not_read_is_kept_alive_and_sees_that_the_server_is(parts, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.001)

    async def main():
        parts.committer.is_behind = True
        parts.intake.received([1])
        is_kept = asyncio.Event()
        parts.link.send = lambda beat: (parts.link.sent.append(beat), is_kept.set())
        await asyncio.wait_for(is_kept.wait(), 30)
        assert parts.peer.slices[:2] == [1, 0]
        parts.intake.closed("gone")
        known = len(parts.link.sent)
        await asyncio.sleep(0.01)
        assert len(parts.link.sent) == known

    asyncio.run(main())


def test_a_large_frame_alone_stops_nobody(parts):
    parts.link.frame_bytes = LARGE_BYTES + 1
    parts.intake.received([1])
    assert not parts.link.pauses
    parts.committer.commit()
    assert parts.intake._unserved_bytes == 0
