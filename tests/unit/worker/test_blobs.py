"""Blobs at a worker: in memory and in files, in parts, wrong, missing, over a broken connection."""

import asyncio
import functools
import inspect
import os
import threading

import pytest

from multihost.core.digest import digest_of
from multihost.wire import message as m
from multihost.worker import blobs as blobs_module
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.fetch import WINDOW_BYTES
from multihost.worker.frames import SPOOL_BYTES, InFile
from multihost.worker.spool import Spool

DATA = bytes(range(256)) * 10
LARGE = os.urandom(1 << 20) * ((SPOOL_BYTES >> 20) + 9)


class FakePeer:
    is_writable = True

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def take(self):
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def run(tmp_path):
    """Run a test's body in an event loop, with blobs that pass through a spool."""

    def run(body):
        async def with_blobs():
            spool, peer = Spool(tmp_path), FakePeer()
            blobs = WorkerBlobs(peer, spool)
            try:
                await asyncio.wait_for(body(blobs, peer, spool), 30)
            finally:
                blobs.close()
                spool.close()

        asyncio.run(with_blobs())

    return run


def in_loop(body):
    """A test of what is in ``body``: a coroutine function told blobs, peer, spool, monkeypatch."""
    if "monkeypatch" in inspect.signature(body).parameters:

        def test(run, monkeypatch):
            run(functools.partial(body, monkeypatch=monkeypatch))

    else:

        def test(run):
            run(body)

    test.__name__ = body.__name__
    return test


def parts_of(data, size=m.BLOB_PART_BYTES, begin=0, end=None):
    digest = digest_of(data)
    return [
        m.BlobPart(digest, len(data), offset, data[offset : min(offset + size, end or len(data))])
        for offset in range(begin, end or len(data), size)
    ]


def deliver(blobs, parts):
    for part in parts:
        blobs.received(part)


def ask(blobs, data, **options):
    got = []
    blobs.get(digest_of(data), got.append, **options)
    return got


def contents(got):
    return [copy if isinstance(copy, str) else copy.read() for copy in got]


async def until(condition):
    while not (value := condition()):  # noqa: ASYNC110 - others tell nobody
        await asyncio.sleep(0)
    return value


async def answer(blobs, peer, data, got):
    """Be the server for one blob until it has come."""
    while not got:
        for message in peer.take():
            if isinstance(message, m.GetBlob):
                end = min(len(data), message.offset + message.length_bytes)
                deliver(blobs, parts_of(data, begin=message.offset, end=end))
        await asyncio.sleep(0)


@in_loop
async def test_a_blob_in_parts_is_asked_for_once_and_told_to_all_who_wait(blobs, peer, spool):
    first, second = ask(blobs, DATA), ask(blobs, DATA)
    assert peer.take() == [m.GetBlob(digest_of(DATA), 0, WINDOW_BYTES)]
    *most, last = parts_of(DATA, 1000)
    deliver(blobs, most)
    assert first == []
    deliver(blobs, [last])
    assert contents(first) == contents(second) == [DATA]
    assert contents(ask(blobs, DATA)) == [DATA]
    assert peer.take() == []


@in_loop
async def test_an_empty_blob_is_a_blob(blobs, peer, spool):
    got = ask(blobs, b"")
    deliver(blobs, [m.BlobPart(digest_of(b""), 0, 0, b"")])
    assert contents(got) == [b""]


@in_loop
async def test_bytes_with_another_digest_are_not_taken(blobs, peer, spool):
    got = ask(blobs, DATA)
    deliver(blobs, [m.BlobPart(digest_of(DATA), 3, 0, b"bad")])
    assert "damaged" in got[0]
    assert blobs.cached(digest_of(DATA)) is None


@in_loop
async def test_a_blob_that_is_not_there_may_be_asked_for_again(blobs, peer, spool):
    got = ask(blobs, DATA)
    deliver(blobs, [m.BlobPart(digest_of(DATA), -1, 0, b"")])
    assert "not on the server any more" in got[0]
    peer.take()
    again = ask(blobs, DATA)
    assert len(peer.take()) == 1
    deliver(blobs, parts_of(DATA, 1000))
    assert contents(again) == [DATA]


@in_loop
async def test_a_blob_that_vanishes_half_way_spoils_no_later_one(blobs, peer, spool):
    got = ask(blobs, DATA)
    deliver(blobs, parts_of(DATA, 1000)[:2])
    deliver(blobs, [m.BlobPart(digest_of(DATA), -1, 0, b"")])
    assert len(got) == 1
    again = ask(blobs, DATA)
    deliver(blobs, parts_of(DATA, 700))
    assert contents(again) == [DATA]


@in_loop
async def test_after_a_broken_connection_a_blob_goes_on_where_it_stopped(blobs, peer, spool):
    got = ask(blobs, DATA)
    deliver(blobs, parts_of(DATA, 1000)[:2])
    peer.take()
    blobs.connected()
    assert peer.take() == [m.GetBlob(digest_of(DATA), 2000, WINDOW_BYTES)]
    deliver(blobs, parts_of(DATA, 1000)[2:])
    assert contents(got) == [DATA]


@in_loop
async def test_a_large_blob_goes_into_a_file_piece_by_piece(blobs, peer, spool):
    got = ask(blobs, LARGE, size_bytes=len(LARGE))
    await answer(blobs, peer, LARGE, got)
    assert not got[0].is_in_memory
    assert got[0].where.parent == spool.path
    assert contents(got) == [LARGE]


@in_loop
async def test_no_more_of_a_large_blob_is_asked_for_than_the_disk_takes(blobs, peer, spool):
    got = ask(blobs, LARGE)
    assert peer.take() == [m.GetBlob(digest_of(LARGE), 0, WINDOW_BYTES)]
    deliver(blobs, parts_of(LARGE, end=WINDOW_BYTES))
    assert peer.take() == []
    asked = await until(peer.take)
    assert asked == [m.GetBlob(digest_of(LARGE), WINDOW_BYTES, WINDOW_BYTES)]
    assert got == []


@in_loop
async def test_a_new_connection_is_not_asked_for_a_blob_that_has_all_come(blobs, peer, spool):
    got, may_write = ask(blobs, LARGE), threading.Event()
    *most, last = parts_of(LARGE)
    deliver(blobs, most)
    fetch = blobs._fetches[digest_of(LARGE)]
    await until(lambda: not fetch._file._unwritten_bytes)
    peer.take()
    blobs._threads.submit(may_write.wait)
    deliver(blobs, [last])
    blobs.connected()
    asked = peer.take()
    may_write.set()
    assert asked == []
    await until(lambda: got)
    assert contents(got) == [LARGE]


@in_loop
async def test_a_large_blob_with_another_digest_leaves_no_file(blobs, peer, spool):
    got = ask(blobs, LARGE)
    wrong = bytes(len(LARGE))
    peer.take()
    for part in parts_of(wrong):
        blobs.received(m.BlobPart(digest_of(LARGE), len(LARGE), part.offset, part.data))
    await until(lambda: got)
    assert "damaged" in got[0]
    await until(lambda: [path.name for path in spool.path.iterdir()] == ["lock"])


@in_loop
async def test_a_blob_that_the_disk_does_not_take_is_an_error_that_names_the_remedy(
    blobs, peer, spool, monkeypatch
):
    monkeypatch.setattr(spool, "path", spool.path / "gone")
    monkeypatch.setattr(spool, "has_room", lambda size: True)
    got = ask(blobs, LARGE)
    deliver(blobs, parts_of(LARGE, end=WINDOW_BYTES))
    await until(lambda: got)
    assert "--spool" in got[0]


@in_loop
async def test_when_memory_is_in_use_what_comes_goes_into_files(blobs, peer, spool, monkeypatch):
    monkeypatch.setattr(blobs_module, "MEMORY_BYTES", 250)
    got = []
    for n in range(4):
        data = bytes([n]) * 100
        got += (one := ask(blobs, data))
        await answer(blobs, peer, data, one)
        got += one
        blobs.use(one[0])
    assert [copy.is_in_memory for copy in got] == [True, True, False, False]
    blobs.release(got)
    late = ask(blobs, b"late")
    await answer(blobs, peer, b"late", late)
    assert late[0].is_in_memory


@in_loop
async def test_of_too_many_blobs_the_least_recently_used_is_forgotten(
    blobs, peer, spool, monkeypatch
):
    monkeypatch.setattr(blobs_module, "MEMORY_BYTES", 250)
    data = [bytes([n]) * 100 for n in range(3)]
    for one in data[:2]:
        ask(blobs, one)
        deliver(blobs, parts_of(one, 1000))
    blobs.cached(digest_of(data[0]))
    ask(blobs, data[2])
    deliver(blobs, parts_of(data[2], 1000))
    assert [blobs.cached(digest_of(one)) is not None for one in data] == [True, False, True]


@in_loop
async def test_a_file_goes_when_nobody_needs_it_and_not_before(blobs, peer, spool, monkeypatch):
    monkeypatch.setattr(blobs_module, "SPOOLED_BYTES", len(LARGE) - 1)
    got = []
    blobs.get(digest_of(LARGE), lambda copy: (blobs.use(copy), got.append(copy)))
    await answer(blobs, peer, LARGE, got)
    assert got[0].where.exists()
    blobs.release(got)
    assert not got[0].where.exists()
    assert blobs.cached(digest_of(LARGE)) is None


# results --------------------------------------------------------------------------------------


async def sent(peer, count):
    messages = []
    while len(messages) < count:
        messages += peer.take()
        await asyncio.sleep(0)
    return messages


@in_loop
async def test_a_result_is_sent_in_parts_and_again_after_a_broken_connection(
    blobs, peer, spool, monkeypatch
):
    monkeypatch.setattr(m, "BLOB_PART_BYTES", 1000)
    told = []
    blobs.put(DATA, lambda blob, error: told.append((blob, error)))
    parts = await sent(peer, 3)
    assert [part.offset for part in parts] == [0, 1000, 2000]
    assert b"".join(part.data for part in parts) == DATA
    blobs.connected()
    assert await sent(peer, 3) == parts
    blobs.received(m.BlobStored(digest_of(DATA)))
    assert told == [(m.Blob(digest_of(DATA), len(DATA)), None)]
    blobs.connected()
    assert peer.take() == []


@in_loop
async def test_the_same_result_twice_is_sent_once_and_both_are_told(blobs, peer, spool):
    told = []
    for _ in range(2):
        blobs.put(DATA, lambda _, error: told.append(error))
    assert len(await sent(peer, 1)) == 1
    refusal = m.BlobRefused(digest_of(DATA), "it is too large", m.RefusalCode.TOO_LARGE)
    blobs.received(refusal)
    assert told == ["it is too large"] * 2


@in_loop
async def test_results_beyond_what_memory_is_for_wait_in_files(blobs, peer, spool, monkeypatch):
    monkeypatch.setattr(blobs_module, "UNSENT_BYTES", len(DATA))
    peer.is_writable = False
    for ending in (b"1", b"2"):
        blobs.put(DATA[:-1] + ending, lambda *_: None)
    assert blobs._unsent_bytes == len(DATA)
    peer.is_writable = True
    blobs.writable()
    assert {part.data[-1:] for part in await sent(peer, 2)} == {b"1", b"2"}


@in_loop
async def test_a_childs_file_is_sent_from_where_the_server_has_not_got_it(blobs, peer, spool):
    digest, told = digest_of(LARGE), []
    (spool.path / "7-1-1").write_bytes(LARGE)
    blobs.put_file(InFile(digest, len(LARGE), "7-1-1"), lambda _, error: told.append(error))
    assert not (spool.path / "7-1-1").exists()
    assert peer.take() == [m.FindBlob(digest, len(LARGE))]
    blobs.received(m.BlobFound(digest, len(LARGE) - 10))
    (part,) = await sent(peer, 1)
    assert (part.offset, part.data) == (len(LARGE) - 10, LARGE[-10:])
    blobs.received(m.BlobStored(digest))
    assert told == [None]


@in_loop
async def test_what_the_server_had_of_a_blob_and_was_not_that_is_sent_again(blobs, peer, spool):
    digest, told = digest_of(LARGE), []
    (spool.path / "7-1-1").write_bytes(LARGE)
    blobs.put_file(InFile(digest, len(LARGE), "7-1-1"), lambda _, error: told.append(error))
    blobs.received(m.BlobFound(digest, len(LARGE) - 10))
    await sent(peer, 2)
    blobs.received(m.BlobRefused(digest, "another digest", m.RefusalCode.DAMAGED))
    assert peer.take() == [m.FindBlob(digest, len(LARGE))]
    blobs.received(m.BlobFound(digest, 0))
    assert (await sent(peer, 1))[0].offset == 0
    blobs.received(m.BlobRefused(digest, "another digest", m.RefusalCode.DAMAGED))
    assert told == ["another digest"]


# the spool ----------------------------------------------------------------------------------------


def test_what_a_killed_worker_left_is_removed_and_what_a_living_one_has_is_not(tmp_path):
    living, killed = Spool(tmp_path), Spool(tmp_path)
    (killed.path / "big").write_bytes(b"x")
    os.close(killed._lock)  # as the system does when its process is gone
    newest = Spool(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living.path, newest.path])
    for spool in (living, newest):
        spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_child_can_name_no_file_outside_of_the_spool(tmp_path):
    (tmp_path / "mine").write_bytes(b"x")
    spool = Spool(tmp_path)
    with pytest.raises(FileNotFoundError):
        spool.take_out("../mine")
    spool.remove("../mine")
    assert (tmp_path / "mine").exists()
    spool.close()
