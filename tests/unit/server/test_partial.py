"""Blobs that come in parts: interrupted, twice at a time, damaged, over a restart."""

import asyncio
import errno
import itertools
import os

import pytest

from multihost.core.digest import digest_of
from multihost.server import blobfiles, partial
from multihost.server.blobfiles import OPEN_FILES, BlobFiles
from multihost.server.directfile import BLOCK_BYTES
from multihost.server.partial import BlobError
from multihost.wire.message import ASK_FIRST_BYTES, Blob, RefusalCode

DATA = os.urandom(ASK_FIRST_BYTES + 3 * BLOCK_BYTES + 5)
BLOB = Blob(digest_of(DATA), len(DATA))
HALF = ASK_FIRST_BYTES // 2
ONE, OTHER = "a connection", "another connection"


@pytest.fixture(params=[True, False], ids=["direct", "usual"])
def files(request, tmp_path):
    files = BlobFiles(tmp_path, is_durable=request.param)
    yield files
    files.close()


def run(*steps):
    """Results of coroutines, run one after the other."""

    async def all_of_them():
        return [await step for step in steps]

    return asyncio.run(all_of_them())


def put(files, begin, end, sender=ONE, data=DATA):
    return files.put_part(sender, BLOB, begin, data[begin:end])


async def put_whole(files, data):
    """Store a blob of its own, in one part."""
    blob = Blob(digest_of(data), len(data))
    assert await files.put_part(ONE, blob, 0, data)
    return blob


def read(files):
    return run(files.read(BLOB.digest, 0, BLOB.size_bytes))[0]


async def forget(files, sender=ONE):
    files.forget(sender)


def test_a_blob_is_there_once_its_last_part_has_come(files):
    assert run(put(files, 0, HALF), put(files, HALF, None)) == [False, True]
    assert read(files) == DATA
    assert list(files.directory.glob("*.part")) == []


def test_an_interrupted_upload_goes_on_over_another_connection(files):
    steps = put(files, 0, HALF), forget(files), files.have_bytes(OTHER, BLOB)
    assert run(*steps)[-1] == HALF
    assert run(put(files, HALF, None, OTHER)) == [True]
    assert read(files) == DATA


def test_an_interrupted_upload_goes_on_after_a_restart(files):
    run(put(files, 0, HALF))
    files.close()
    again = BlobFiles(files.directory, is_durable=files.is_durable)
    assert run(again.have_bytes(ONE, BLOB), put(again, HALF, None)) == [HALF, True]
    assert read(again) == DATA
    again.close()


def test_after_a_restart_it_goes_on_behind_the_last_whole_block(files):
    run(put(files, 0, HALF + 10))
    files.close()
    again = BlobFiles(files.directory, is_durable=files.is_durable)
    assert run(again.have_bytes(ONE, BLOB), put(again, HALF, None)) == [HALF, True]
    assert read(again) == DATA
    again.close()


def test_two_connections_may_send_the_same_blob_at_a_time(files):
    ends = [0, 1000, HALF, HALF + 1, len(DATA)]
    steps = [
        put(files, begin, end, sender)
        for begin, end in itertools.pairwise(ends)
        for sender in (ONE, OTHER)
    ]
    assert run(*steps) == [False] * 6 + [True, True]
    assert read(files) == DATA


def test_what_another_has_completed_meanwhile_counts_for_both(files):
    run(put(files, 0, HALF), put(files, 0, None, OTHER))
    assert run(put(files, HALF, None)) == [True]
    assert read(files) == DATA


def remove(files):
    """What the server does with a blob that nothing has referred to for long."""
    files._landed.clear()
    return files.delete([BLOB.digest])


def test_a_blob_that_another_completed_and_that_was_deleted_since_is_sent_anew(files):
    run(put(files, 0, HALF), put(files, 0, None, OTHER))  # the second completes it
    run(put(files, HALF, HALF + 1000), forget(files), remove(files))
    assert run(files.have_bytes(ONE, BLOB)) == [0]
    assert run(put(files, 0, None)) == [True]
    assert read(files) == DATA


def test_a_blob_whose_sender_left_as_it_became_whole_is_sent_anew_once_deleted(files):
    run(put(files, 0, HALF))
    (begun,) = files._partial.values()
    assert begun.take(HALF, DATA[HALF:])  # a thread did; nobody waits for it any more
    run(forget(files), files.prune(), remove(files))
    assert run(files.have_bytes(ONE, BLOB), put(files, 0, None)) == [0, True]
    assert read(files) == DATA


def test_a_blob_that_is_deleted_while_it_is_sent_again_is_refused_as_damaged(files):
    run(put(files, 0, None))
    assert run(files.have_bytes(ONE, BLOB)) == [len(DATA)]
    run(remove(files))
    with pytest.raises(BlobError, match="does not continue") as caught:
        run(put(files, len(DATA) - 1, None))
    assert caught.value.code is RefusalCode.DAMAGED
    assert run(files.have_bytes(ONE, BLOB), put(files, 0, None)) == [0, True]
    assert read(files) == DATA


def test_a_beginning_that_can_not_be_read_is_refused_and_the_blob_may_be_sent_again(files):
    (files.directory / f"{BLOB.digest.hex()}.part").mkdir()
    with pytest.raises(BlobError, match="directory") as caught:
        run(files.have_bytes(ONE, BLOB))
    assert caught.value.code is RefusalCode.STORE_FULL
    (files.directory / f"{BLOB.digest.hex()}.part").rmdir()
    assert run(files.have_bytes(ONE, BLOB), put(files, 0, None)) == [0, True]
    assert read(files) == DATA


def test_a_gap_is_refused_and_what_came_before_it_stays(files):
    with pytest.raises(BlobError, match="does not continue"):
        run(put(files, 0, HALF, OTHER), put(files, HALF + 1, None))
    assert run(put(files, HALF, None, OTHER)) == [True]
    assert read(files) == DATA


def test_when_the_disk_is_full_for_one_sender_the_other_goes_on_from_the_beginning(files):
    run(put(files, 0, HALF), put(files, 0, HALF, OTHER))
    (begun,) = files._partial.values()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    begun._file.write = full
    for sender, code in (ONE, RefusalCode.STORE_FULL), (OTHER, RefusalCode.DAMAGED):
        with pytest.raises(BlobError) as caught:
            run(put(files, HALF, None, sender))
        assert caught.value.code is code
    assert run(files.have_bytes(OTHER, BLOB), put(files, 0, None, OTHER)) == [0, True]
    assert read(files) == DATA


def test_wrong_bytes_are_refused_as_damaged_and_leave_nothing(files):
    with pytest.raises(BlobError, match="digest") as caught:
        run(put(files, 0, None, data=bytes(len(DATA))))
    assert caught.value.code is RefusalCode.DAMAGED
    assert run(files.have_bytes(ONE, BLOB), put(files, 0, None)) == [0, True]
    assert read(files) == DATA


def test_small_interrupted_uploads_are_not_kept(files):
    small = Blob(digest_of(b"x" * 500_000), 500_000)
    run(files.put_part(ONE, small, 0, b"x" * 1000), forget(files))
    files.close()
    assert list(files.directory.glob("*.part")) == []


def test_beginnings_are_dropped_when_nobody_comes_back_and_kept_while_one_sends(files, monkeypatch):
    run(put(files, 0, HALF))
    (path,) = files.directory.glob("*.part")
    os.utime(path, (0, 0))
    run(files.prune())
    assert path.exists()
    run(forget(files), files.prune())
    assert not path.exists()
    assert run(files.have_bytes(ONE, BLOB)) == [0]


def test_files_that_are_no_blobs_are_left_alone(files):
    path = files.directory / "notes.part"
    path.touch()
    os.utime(path, (0, 0))
    run(files.prune())
    assert path.exists()


def test_a_file_that_has_just_come_is_not_deleted_by_an_older_decision(files):
    run(put(files, 0, None), files.delete([BLOB.digest]))
    assert read(files) == DATA


def test_a_file_that_nothing_refers_to_is_deleted(files, monkeypatch):
    monkeypatch.setattr("multihost.server.blobfiles.LANDED_S", -1.0)
    run(put(files, 0, HALF), put(files, HALF, None), files.delete([BLOB.digest]))
    with pytest.raises(FileNotFoundError):
        read(files)


def test_of_many_blobs_that_come_at_a_time_few_files_are_open(files):
    datas = [os.urandom(3 * BLOCK_BYTES) for _ in range(OPEN_FILES + 5)]
    blobs = [Blob(digest_of(data), len(data)) for data in datas]
    run(*(files.put_part(ONE, b, 0, d[:BLOCK_BYTES]) for b, d in zip(blobs, datas, strict=True)))
    assert sum(each._file is not None for each in files._partial.values()) == OPEN_FILES
    rest = [
        files.put_part(ONE, blob, BLOCK_BYTES, data[BLOCK_BYTES:])
        for blob, data in zip(blobs, datas, strict=True)
    ]
    assert all(run(*rest))
    assert run(*(files.read(blob.digest, 0, blob.size_bytes) for blob in blobs)) == datas
    assert not files._open


def test_a_power_cut_takes_no_directory_that_a_blob_was_the_first_in(files, monkeypatch):
    synced = []
    monkeypatch.setattr(partial, "sync_directory", synced.append)
    run(put(files, 0, None))
    (path,) = (path for path in files.directory.rglob("*") if path.is_file())
    assert synced == ([files.directory, path.parent] if files.is_durable else [])


def test_after_the_first_blob_no_directory_has_to_be_made_and_synced(files, monkeypatch):
    run(put(files, 0, None))
    synced = []
    monkeypatch.setattr(partial, "sync_directory", synced.append)
    for number in range(8):
        run(put_whole(files, b"%d" % number))
    assert files.directory not in synced


def was_read(files, monkeypatch):
    """Blobs that are read from their files, from now on."""
    names = []
    read_file = blobfiles._read

    def note(path, offset, size_bytes):
        names.append(path.name)
        return read_file(path, offset, size_bytes)

    monkeypatch.setattr(blobfiles, "_read", note)
    return names


def test_a_blob_that_came_whole_is_in_memory_until_it_is_asked_for(files, monkeypatch):
    data = os.urandom(3 * BLOCK_BYTES)
    (blob,) = run(put_whole(files, data))
    names = was_read(files, monkeypatch)
    assert run(files.read(blob.digest, 0, len(data))) == [data]
    assert names == []
    assert run(files.read(blob.digest, 0, len(data))) == [data]
    assert names == [blob.digest.hex()]


def test_of_more_blobs_than_memory_takes_those_that_came_first_stay(files, monkeypatch):
    monkeypatch.setattr(blobfiles, "RECENT_BYTES", 2 * BLOCK_BYTES)
    datas = [os.urandom(BLOCK_BYTES) for _ in range(4)]
    blobs = run(*(put_whole(files, data) for data in datas))
    names = was_read(files, monkeypatch)
    assert run(*(files.read(blob.digest, 0, BLOCK_BYTES) for blob in blobs)) == datas
    assert names == [blob.digest.hex() for blob in blobs[2:]]


def test_blobs_that_nobody_asks_for_do_not_stay_in_memory_for_ever(files, monkeypatch):
    monkeypatch.setattr(blobfiles, "RECENT_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(blobfiles, "RECENT_S", 0.0)
    old, new = os.urandom(BLOCK_BYTES), os.urandom(BLOCK_BYTES)
    blobs = run(put_whole(files, old), put_whole(files, new))
    names = was_read(files, monkeypatch)
    assert run(*(files.read(blob.digest, 0, BLOCK_BYTES) for blob in blobs)) == [old, new]
    assert names == [blobs[0].digest.hex()]


def test_bytes_that_were_passed_over_are_not_given_for_the_blob(files):
    data, other = os.urandom(3 * BLOCK_BYTES), os.urandom(3 * BLOCK_BYTES)
    blob = Blob(digest_of(data), len(data))
    again = files.put_part(OTHER, blob, 0, other)
    assert run(put_whole(files, data), again)[-1]  # it is there: nobody looks at these
    assert run(files.read(blob.digest, 0, len(data))) == [data]


def test_a_beginning_that_came_before_is_not_taken_from_who_sends_all_of_it(files):
    data = os.urandom(3 * BLOCK_BYTES)
    blob = Blob(digest_of(data), len(data))
    begun = files.put_part(ONE, blob, 0, data[:BLOCK_BYTES])
    whole = files.put_part(OTHER, blob, 0, bytes(BLOCK_BYTES) + data[BLOCK_BYTES:])
    assert run(begun, whole) == [False, True]
    assert run(files.read(blob.digest, 0, len(data))) == [data]


def test_two_who_send_a_blob_at_once_leave_one_of_it_in_memory(files):
    data = os.urandom(3 * BLOCK_BYTES)
    blob = Blob(digest_of(data), len(data))

    async def at_once():
        parts = (files.put_part(each, blob, 0, bytes(bytearray(data))) for each in (ONE, OTHER))
        return await asyncio.gather(*parts)

    assert asyncio.run(at_once()) == [True, True]
    assert files._recent_bytes == len(data)
    assert run(files.read(blob.digest, 0, len(data))) == [data]
    assert files._recent_bytes == 0


def test_no_more_is_read_of_a_blob_in_memory_than_was_asked_for(files):
    data = os.urandom(3 * BLOCK_BYTES)
    (blob,) = run(put_whole(files, data))
    assert run(files.read(blob.digest, 0, 10), files.read(blob.digest, 10, 10)) == [
        data[:10],
        data[10:20],
    ]


def test_a_directory_that_could_not_be_made_for_others_is_synced_for_the_blob_that_came(
    files, monkeypatch
):
    synced = []
    monkeypatch.setattr(partial, "sync_directory", synced.append)
    own = files._path(BLOB.digest).parent.name
    mkdir = type(files.directory).mkdir

    def fails_for_others(path, *args, **kwargs):
        if path.name != own:
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(type(files.directory), "mkdir", fails_for_others)
    assert run(put(files, 0, None)) == [True]
    assert (files.directory in synced) == files.is_durable


def test_nobody_takes_a_directory_for_made_before_it_is_synced(files, monkeypatch):
    held = []

    def sync(directory):
        if directory == files.directory:
            held.append(partial._MAKING.locked())

    monkeypatch.setattr(partial, "sync_directory", sync)
    run(put(files, 0, None))
    assert held == ([True] if files.is_durable else [])


def test_nobody_else_gets_at_blobs_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        files = BlobFiles(tmp_path / "state" / "blobs", is_durable=False)
        run(put(files, 0, None))
    finally:
        os.umask(before)
    for path in files.directory.glob("**"):
        assert path.stat().st_mode & 0o077 == 0
    files.close()
