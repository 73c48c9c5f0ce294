"""Blobs at a worker: in parts, wrong, missing, and after a broken connection."""

import pytest

from multihost.core.digest import digest_of
from multihost.wire import message as m
from multihost.worker import blobs as blobs_module
from multihost.worker.blobs import WorkerBlobs


class FakePeer:
    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def take(self):
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def peer():
    return FakePeer()


@pytest.fixture
def blobs(peer):
    return WorkerBlobs(peer)


def parts_of(data, size):
    digest = digest_of(data)
    return [
        m.BlobPart(digest, len(data), offset, data[offset : offset + size])
        for offset in range(0, len(data), size)
    ]


def deliver(blobs, parts):
    for part in parts:
        blobs.received(part)


def ask(blobs, data):
    got = []
    blobs.get(digest_of(data), got.append)
    return got


DATA = bytes(range(256)) * 10


def test_a_blob_in_parts_is_asked_for_once_and_told_to_all_who_wait(blobs, peer):
    first, second = ask(blobs, DATA), ask(blobs, DATA)
    assert peer.take() == [m.GetBlob(digest_of(DATA))]
    *most, last = parts_of(DATA, 1000)
    deliver(blobs, most)
    assert first == []
    deliver(blobs, [last])
    assert first == second == [DATA]
    assert ask(blobs, DATA) == [DATA]
    assert peer.take() == []


def test_an_empty_blob_is_a_blob(blobs):
    got = ask(blobs, b"")
    deliver(blobs, [m.BlobPart(digest_of(b""), 0, 0, b"")])
    assert got == [b""]


def test_bytes_with_another_digest_are_not_taken(blobs):
    got = ask(blobs, DATA)
    deliver(blobs, [m.BlobPart(digest_of(DATA), 3, 0, b"bad")])
    assert got == [None]
    assert blobs.cached(digest_of(DATA)) is None


def test_a_blob_that_is_not_there_is_none_and_may_be_asked_for_again(blobs, peer):
    missing = m.BlobPart(digest_of(DATA), -1, 0, b"")
    got = ask(blobs, DATA)
    deliver(blobs, [missing])
    assert got == [None]
    peer.take()
    again = ask(blobs, DATA)
    assert peer.take() == [m.GetBlob(digest_of(DATA))]
    deliver(blobs, parts_of(DATA, 1000))
    assert again == [DATA]


def test_a_blob_that_vanishes_half_way_spoils_no_later_one(blobs):
    got = ask(blobs, DATA)
    deliver(blobs, parts_of(DATA, 1000)[:2])
    deliver(blobs, [m.BlobPart(digest_of(DATA), -1, 0, b"")])
    assert got == [None]
    again = ask(blobs, DATA)
    deliver(blobs, parts_of(DATA, 700))
    assert again == [DATA]


def test_a_broken_connection_begins_every_blob_again_from_its_start(blobs, peer):
    got = ask(blobs, DATA)
    deliver(blobs, parts_of(DATA, 1000)[:2])
    peer.take()
    blobs.connected()
    assert peer.take() == [m.GetBlob(digest_of(DATA))]
    deliver(blobs, parts_of(DATA, 700))
    assert got == [DATA]


def test_a_result_is_sent_in_parts_and_again_after_a_broken_connection(blobs, peer, monkeypatch):
    monkeypatch.setattr(m, "BLOB_PART_BYTES", 1000)
    told = []
    blobs.put(DATA, lambda blob, error: told.append((blob, error)))
    sent = peer.take()
    assert [part.offset for part in sent] == [0, 1000, 2000]
    assert b"".join(part.data for part in sent) == DATA
    blobs.connected()
    assert peer.take() == sent
    blobs.received(m.BlobStored(digest_of(DATA)))
    assert told == [(m.Blob(digest_of(DATA), len(DATA)), None)]
    blobs.connected()
    assert peer.take() == []


def test_the_same_result_twice_is_sent_once_and_both_are_told(blobs, peer):
    told = []
    for _ in range(2):
        blobs.put(DATA, lambda _, error: told.append(error))
    assert len(peer.take()) == 1
    blobs.received(m.BlobRefused(digest_of(DATA), "the disk is full"))
    assert told == ["the disk is full"] * 2


def test_of_too_many_blobs_the_least_recently_used_is_forgotten(blobs, peer, monkeypatch):
    monkeypatch.setattr(blobs_module, "CACHE_BYTES", 250)
    data = [bytes([n]) * 100 for n in range(3)]
    for one in data[:2]:
        ask(blobs, one)
        deliver(blobs, parts_of(one, 1000))
    blobs.cached(digest_of(data[0]))
    ask(blobs, data[2])
    deliver(blobs, parts_of(data[2], 1000))
    assert [blobs.cached(digest_of(one)) is not None for one in data] == [True, False, True]
