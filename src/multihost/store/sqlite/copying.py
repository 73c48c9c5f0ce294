"""A copy of the database, made a few pages at a time while the store goes on.

The store's own connection makes it, since no other may open the file. SQLite
writes whatever that connection changes meanwhile into the copy too, so the
copy needs no second round: it is the store at the instant of its last step.
A step must come between two transactions, which is when ``begin`` takes it.
"""

import os
from pathlib import Path
from typing import Final

import apsw

from multihost.errors import StoreError, StoreFull
from multihost.store.sqlite.file import translated

STEP_PAGES: Final = 64
"""Pages (256 KiB) of one step: half a millisecond for whoever waits behind it."""
CACHE_KIB: Final = 1024


class DatabaseCopy:
    """A copy under way.

    Invariant: whatever goes wrong with it is in ``failure`` and never the
    store's trouble.
    """

    def __init__(self, source: apsw.Connection, path: Path) -> None:
        """Make the file ``path``, which must not exist; raises OSError."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self.path = path
        self.failure: StoreError | StoreFull | None = None
        self.is_done = False
        self.is_due = False
        """Whether the next ``begin`` takes a step."""
        self.is_unwanted = False
        """Whether that step is to end it, finished or not."""
        self.pages = 0
        """How many are copied; ``of_pages`` is how many there are."""
        self.of_pages = 0
        self._copy: apsw.Connection = apsw.Connection(str(path))
        for name, value in (("journal_mode", "OFF"), ("synchronous", "OFF")):
            self._copy.pragma(name, value)
        self._copy.pragma("locking_mode", "EXCLUSIVE")
        self._copy.pragma("cache_size", -CACHE_KIB)
        self._source = source
        self._backup: apsw.Backup | None = None

    def step(self) -> bool:
        """Copy some pages; between transactions only. Whether the copy is over, well or not."""
        self.is_due = False
        try:
            if not self.is_unwanted and self.failure is None:
                self._step()
        except apsw.Error as error:
            self.fail(error, self.path)
        if self.is_done:
            return True
        if self.is_unwanted or self.failure is not None:
            self.abandon()
            return True
        return False

    def _step(self) -> None:
        if self._backup is None:
            # Not before: the store's connection may have been in use by another thread.
            self._backup = self._copy.backup("main", self._source, "main")
        self._backup.step(STEP_PAGES)
        self.of_pages = self._backup.page_count
        self.pages = self.of_pages - self._backup.remaining
        if self._backup.done:
            self._backup.finish()
            self.is_done = True

    def release(self) -> apsw.Connection:
        """The connection to the finished copy, which no longer has to do with the store's."""
        assert self.is_done
        return self._copy

    def fail(self, error: apsw.Error, path: Path) -> None:
        """Go no further, because of what happened at ``path``."""
        failure = translated(error, str(path))
        if isinstance(failure, apsw.Error):
            failure = StoreError(f"the copy at {self.path} failed ({failure})")
        self.failure = failure

    def abandon(self) -> None:
        """Let go of the copy; between transactions only. Idempotent."""
        if self._backup is not None:
            self._backup.close(True)
        self._copy.close(True)
