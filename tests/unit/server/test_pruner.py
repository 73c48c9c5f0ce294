"""Claims about deleting what is over, on a disk that does not always let it."""

import asyncio
import contextlib

from multihost.errors import StoreFull
from multihost.server import reaper
from multihost.server.reaper import Pruner
from multihost.wire.message import Blob


class Committer:
    """A store with nothing in it but one blob that nothing refers to, time and again."""

    def __init__(self):
        self.has_unused = False

    async def ask(self, run, **_):
        if run is not reaper._unused:
            return 0
        self.has_unused = not self.has_unused
        return [Blob(b"d" * 32, 200_000)] if self.has_unused else []


class Files:
    def __init__(self, directory):
        self.directory = directory
        self.deleted = asyncio.Event()
        self.troubles = []

    async def delete(self, _):
        if self.troubles:
            raise self.troubles.pop()
        self.deleted.set()

    async def prune(self):
        pass


class Blobs:
    def __init__(self, directory):
        self.files = Files(directory)


def told(troubles, tmp_path, monkeypatch):
    """What is told of troubles after which something was deleted in the end."""
    told = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        blobs = Blobs(tmp_path)
        blobs.files.troubles = troubles
        pruner = Pruner(Committer(), blobs, lambda: False)
        running = asyncio.ensure_future(pruner.run())
        await asyncio.wait_for(blobs.files.deleted.wait(), 20)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    monkeypatch.setattr(reaper, "PRUNE_EVERY_S", 0)
    asyncio.run(main())
    return [context["exception"] for context in told]


def test_what_could_not_be_deleted_does_not_end_all_deleting(tmp_path, monkeypatch):
    assert told([OSError(24, "Too many open files")] * 2, tmp_path, monkeypatch) == []


def test_an_error_in_deleting_is_told_and_does_not_end_it(tmp_path, monkeypatch):
    error = KeyError("a bug")
    assert told([error], tmp_path, monkeypatch) == [error]


def test_a_sweep_that_found_the_store_full_does_not_end_all_deleting(tmp_path, monkeypatch):
    async def full(*_):
        raise StoreFull("no room")

    monkeypatch.setattr(reaper, "sweep", full)
    assert told([], tmp_path, monkeypatch) == []
