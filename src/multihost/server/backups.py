"""Backups while the server runs: a few pages between two transactions, the rest in a thread.

One at a time. Between two steps the loop is left alone for as long as the
step took, so that a backup never takes more than half of it.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multihost.errors import BadRequest, StoreError, StoreFull
from multihost.runtime import clock
from multihost.server.committer import Committer
from multihost.store.places import sync_directory
from multihost.store.sqlite.backup import Sealed, seal
from multihost.store.sqlite.copying import DatabaseCopy

SYNC_PAGES = 16_384
"""Pages (64 MiB) after which the copy is synced, lest the system holds up everybody's writes."""
PAGE_BYTES = 4096

Row = dict[str, Any]


class Backups:
    """Makes a backup when asked, and says how far it is."""

    def __init__(
        self, committer: Committer, begin_copy: Callable[[Path], DatabaseCopy], blobs: Path
    ) -> None:
        """Back up the database that ``begin_copy`` copies, and the files below ``blobs``."""
        self._committer = committer
        self._begin_copy = begin_copy
        self._blobs = blobs
        self._task: asyncio.Task[None] | None = None
        self._copy: DatabaseCopy | None = None
        self._state: Row = {"state": "none"}

    @property
    def is_running(self) -> bool:
        """Whether one is under way; no blob's file may be deleted meanwhile."""
        return self._task is not None and not self._task.done()

    def start(self, path: Path) -> None:
        """Begin a backup at ``path``, on this machine; raises BadRequest that says why not."""
        if self.is_running:
            raise BadRequest(f"a backup to {self._state['path']} is under way; wait for it")
        if not path.is_absolute() or not path.parent.is_dir():
            raise BadRequest(f"there is no directory {path.parent} on {socket.gethostname()}")
        if path.exists():
            raise BadRequest(f"{path} is there already; a backup never replaces a file")
        self._state = {"state": "running", "path": str(path), "host": socket.gethostname()}
        self._task = asyncio.get_running_loop().create_task(self._run(path))

    async def look(self, wait_s: float) -> Row:
        """How far the last backup is; after it has ended, or ``wait_s`` are over."""
        if self.is_running and wait_s:
            assert self._task is not None
            await asyncio.wait([self._task], timeout=wait_s)
        copy = self._copy
        if copy is not None and copy.of_pages:
            self._state |= {"pages": copy.pages, "of_pages": copy.of_pages}
        return self._state

    async def stop(self) -> None:
        """Give up what is under way; the server stops."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    # within ------------------------------------------------------------------------

    async def _run(self, path: Path) -> None:
        began = clock.mono()
        part = path.with_name(f"{path.name}.part")
        try:
            part.unlink(missing_ok=True)
            sealed = await self._make(path, part)
        except Exception as error:  # whatever it is: somebody waits to be told
            reason = error.strerror if isinstance(error, OSError) else None
            text = reason or str(error) or type(error).__name__
            self._state |= {"state": "failed", "error": f"no backup: {text}"}
        else:
            took_s = round(clock.mono() - began, 3)
            self._state |= {"state": "done", "took_s": took_s, **sealed._asdict()}
        finally:
            self._copy = None
            # Also when the server stops in the middle of it.
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    async def _make(self, path: Path, part: Path) -> Sealed:
        loop = asyncio.get_running_loop()
        self._copy = copy = self._begin_copy(part)
        try:
            await self._copy_pages(copy, part)
        except (StoreError, StoreFull, OSError):
            # The store lets go of it in its next transaction, and then takes another.
            copy.is_unwanted = copy.is_due = True
            await self._committer.ask(lambda _, __: None, waits_for_room=True)
            raise
        now = clock.wall()
        sealed = await loop.run_in_executor(None, seal, copy.release(), part, self._blobs, now)
        await loop.run_in_executor(None, _put_in_place, part, path)
        return sealed

    async def _copy_pages(self, copy: DatabaseCopy, part: Path) -> None:
        synced_pages = 0
        while not copy.is_done:
            if copy.failure is not None:
                raise copy.failure
            copy.is_due = True
            began = clock.mono()
            await self._committer.ask(lambda _, __: None, waits_for_room=True)
            if synced_pages == 0 and copy.of_pages:
                _check_room(part, (copy.of_pages - copy.pages) * PAGE_BYTES)
            if copy.pages - synced_pages >= SYNC_PAGES or not synced_pages:
                synced_pages = copy.pages
                await asyncio.get_running_loop().run_in_executor(None, _sync, part)
            await asyncio.sleep(clock.mono() - began)


def _check_room(path: Path, size_bytes: int) -> None:
    """Raise StoreFull now rather than fill the disk, which may be the store's own."""
    free_bytes = shutil.disk_usage(path.parent).free
    if free_bytes < size_bytes:
        raise StoreFull(
            f"{path.parent} has {free_bytes >> 20} MiB free and the database needs "
            f"{size_bytes >> 20} MiB; make room, or choose another directory"
        )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _put_in_place(part: Path, path: Path) -> None:
    """Give the backup its name, unless somebody else has taken that meanwhile."""
    if stat.S_IMODE(part.stat().st_mode) & 0o077:
        raise StoreError(
            f"others could read it in {path.parent}, whose disk keeps no modes of files"
        )
    os.link(part, path)
    sync_directory(path.parent)
