"""Files of a worker: what is too large for its memory, on its way to and from its children.

The directory is the worker's own and goes with it. What a worker left that was
killed is removed by the next one to start on that machine: a lock, which the
system takes from the dead, tells whose directory is in use.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

PREFIX = "multihost-spool-"
LOCK = "lock"
ON_DISK = Path("/var/tmp")  # noqa: S108 - as opposed to /tmp, which is often kept in memory


class Spool:
    """A directory for the files of one worker."""

    def __init__(self, place: Path | None = None) -> None:
        """Make it below ``place``, else where temporary files go that may be large."""
        place = place or default_place()
        _remove_left_over(place)
        name = secrets.token_hex(8)
        fresh = place / f"multihost-new-{name}"
        fresh.mkdir(mode=0o700)
        self._lock = os.open(fresh / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = place / f"{PREFIX}{name}"
        fresh.rename(self.path)

    def has_room(self, size_bytes: int) -> bool:
        """Whether the disk has so much room, and some more for everybody else."""
        return shutil.disk_usage(self.path).free > size_bytes + (size_bytes >> 4)

    def take_out(self, name: str) -> int:
        """A descriptor of a child's file, which nobody else sees any more; may raise OSError."""
        path = self.path / Path(name).name
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        path.unlink()
        return descriptor

    def keep(self, data: bytes) -> int:
        """A descriptor of a new file with these bytes, which has no name; may raise OSError."""
        with tempfile.TemporaryFile(dir=self.path, buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            return os.dup(file.fileno())

    def remove(self, name: str) -> None:
        """Remove a child's file that nobody wants."""
        (self.path / Path(name).name).unlink(missing_ok=True)

    def remove_of(self, pid: int) -> None:
        """Remove what a child has left that is gone."""
        with contextlib.suppress(OSError):
            for path in self.path.glob(f"{pid}-*"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def why_not(self, error: OSError) -> str:
        """What to say when a file could not be kept."""
        return (
            f"{error.strerror} in {self.path.parent}, where the worker keeps large arguments and "
            "results: make room there, or start it with --spool DIR on a larger disk"
        )


def reader_of(descriptor: int) -> Callable[[int, int], bytes]:
    """How to read a file from an offset on."""
    return lambda offset, size: os.pread(descriptor, size, offset)


def default_place() -> Path:
    """TMPDIR if it is set, else a directory that is on a disk, else that of temporary files."""
    if not os.environ.get("TMPDIR") and os.access(ON_DISK, os.W_OK):
        return ON_DISK
    return Path(tempfile.gettempdir())


def _remove_left_over(place: Path) -> None:
    """Remove directories of workers of this user that are gone."""
    with contextlib.suppress(OSError):
        for path in place.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):  # in use, or somebody else's
                descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(descriptor)
