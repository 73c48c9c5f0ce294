"""Shipped archives on a worker's disk: whole or not there, bounded, nobody's in use deleted."""

import asyncio
import io
import os
import zipfile

import pytest

from multihost.core.digest import digest_of
from multihost.worker import shelf as module
from multihost.worker.fetch import Copy
from multihost.worker.shelf import Shelf, UnpackError, evict, unpack


def archive(**files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(zipfile.ZipInfo(name.replace("__dot__", ".")), text)
    return target.getvalue()


class Blobs:
    """A server's blobs, come at once."""

    def __init__(self, *datas):
        self.kept = {digest_of(data): data for data in datas}
        self.asked = []

    def get(self, digest, then):
        self.asked.append(digest)
        data = self.kept.get(digest)
        gone = "is not on the server any more"
        then(gone if data is None else Copy(digest, len(data), data))

    def use(self, copy):
        copy.users += 1

    def release(self, copies):
        for copy in copies:
            copy.users -= 1


@pytest.fixture
def make(tmp_path):
    def make(*datas, limit_bytes=1 << 20):
        return Shelf(Blobs(*datas), tmp_path / "cache", limit_bytes)

    return make


async def bring(shelf, *digests):
    done = asyncio.get_running_loop().create_future()
    shelf.bring(digests, done.set_result)
    return await done


def age(shelf, digest):
    lock = shelf._directory / f"{digest.hex()}.lock"
    os.utime(lock, (1, 1))


def test_what_was_brought_once_is_there_for_every_later_worker(make):
    data = archive(a__dot__py="A = 1")
    digest = digest_of(data)
    first, second = make(data), make()
    assert first.take([digest]) is None
    assert asyncio.run(bring(first, digest)) is None
    (path,) = first.take([digest])
    assert (first._directory / digest.hex() / "a.py").read_text() == "A = 1"
    assert second.take([digest]) == [path]
    assert second._blobs.asked == []


def test_what_the_server_has_not_is_told(make):
    assert "not on the server" in asyncio.run(bring(make(), b"d" * 32))


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "a/../../out.py", "a//b.py", "a\\b.py"])
def test_no_file_lands_outside_its_directory(tmp_path, name):
    data = archive(**{name: "bad"})
    with pytest.raises(UnpackError, match="file of the name"):
        unpack(data, tmp_path / "entry")
    assert not (tmp_path / "entry").exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_archive_that_unpacks_to_more_than_allowed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHIP_BYTES", 1000)
    with pytest.raises(UnpackError, match="1001 bytes"):
        unpack(archive(a=b"\0" * 1001), tmp_path / "entry")


def test_an_archive_in_a_file_is_unpacked_from_there(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(archive(a="1"))
    unpack(path, tmp_path / "entry")
    assert (tmp_path / "entry" / "a").read_text() == "1"


def test_bytes_that_are_no_archive_fail_the_task_and_not_the_worker(make):
    data = b"PK but nothing else"
    told = asyncio.run(bring(make(data), digest_of(data)))
    assert "no archive of ours" in told


def test_the_longest_unused_goes_first_and_what_is_held_stays(make):
    datas = [archive(a=bytes([n]) * 400) for n in range(4)]
    digests = [digest_of(data) for data in datas]
    shelf = make(*datas, limit_bytes=900)

    async def run():
        await bring(shelf, digests[0], digests[1])
        shelf.take([digests[0]])
        for digest in digests[:2]:
            age(shelf, digest)
        await bring(shelf, digests[2])

    asyncio.run(run())
    assert shelf.take([digests[0]])
    assert shelf.take([digests[1]]) is None
    assert shelf.take([digests[2]])


def test_what_is_given_back_as_often_as_taken_may_go(make):
    data = archive(a=b"x" * 400)
    digest = digest_of(data)
    shelf = make(data, limit_bytes=0)
    asyncio.run(bring(shelf, digest))
    shelf.take([digest, digest])
    shelf.give_back([digest])
    age(shelf, digest)
    evict(shelf._directory, 0)
    assert (shelf._directory / digest.hex()).is_dir()
    shelf.give_back([digest])
    evict(shelf._directory, 0)
    assert not (shelf._directory / digest.hex()).exists()


def test_what_is_held_stays_though_another_worker_unpacks_it_too(make, monkeypatch):
    data = archive(a=b"x" * 400)
    digest = digest_of(data)
    quick, slow = make(data), make(data)
    extract = module._extract

    def overtaken(*args):
        monkeypatch.setattr(module, "_extract", extract)
        asyncio.run(bring(quick, digest))
        assert quick.take([digest])
        return extract(*args)

    monkeypatch.setattr(module, "_extract", overtaken)
    asyncio.run(bring(slow, digest))
    age(slow, digest)
    evict(slow._directory, 0)
    assert slow.take([digest]) == quick.take([digest])


def test_a_cache_that_others_may_write_is_not_used(make):
    data = archive(a=b"x")
    shelf = make(data)
    shelf._directory.mkdir()
    shelf._directory.chmod(0o777)
    assert "others may write" in asyncio.run(bring(shelf, digest_of(data)))
