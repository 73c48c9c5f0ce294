"""One server a store: a lock file beside it that names its holder.

The lock belongs to the process: it is gone the moment that dies, however it
dies. The file stays and is harmless. Children that were forked from a holder
let go of the lock's descriptor, so that none of them keeps a dead server's
store locked.
"""

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from multihost.errors import StoreError, StoreLocked

_PID_BYTES = 32
_held: "weakref.WeakSet[LockFile]" = weakref.WeakSet()


class LockFile:
    """An exclusive lock, held from construction until ``close``.

    Raises StoreLocked, at once, when another process (or this one) holds it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock for the store at ``path``; the file is ``path`` + ``.lock``."""
        try:
            self._fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"the store {path} can't be opened ({error.strerror}); its directory has to "
                "exist and to belong to the user that runs the server"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = _read_pid(self._fd)
            os.close(self._fd)
            holder = f"process {pid}" if pid else "another process"
            raise StoreLocked(
                f"the store {path} is open in {holder}; stop that server, "
                "or start this one with another state directory",
                str(path),
                pid,
            ) from None
        _held.add(self)
        # On a full disk the lock holds without saying whose it is.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def close(self) -> None:
        """Let go of the lock."""
        _held.discard(self)
        if self._fd >= 0:
            # Emptied first: a pid that is not the holder's would send people astray.
            os.ftruncate(self._fd, 0)
            # Explicitly: a child forked this very moment may not have let go of it yet.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def _abandon(self) -> None:
        """Close the descriptor in a forked child; the parent's lock is not touched by it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_pid(fd: int) -> int | None:
    os.lseek(fd, 0, os.SEEK_SET)
    text = os.read(fd, _PID_BYTES)
    return int(text) if text.isdigit() else None


def _abandon_all() -> None:
    for lock in list(_held):
        lock._abandon()
    _held.clear()


os.register_at_fork(after_in_child=_abandon_all)
