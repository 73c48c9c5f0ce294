"""Code that jobs have shipped, unpacked on this machine once for all workers of a user.

An archive lies in a directory named by its digest. It comes there whole, by a
rename, after its digest was verified. Beside each directory lies a file that
is locked, shared, by every worker with a child that imports from it: what
nobody holds may be evicted, the longest unused first, and a worker that was
killed holds nothing. Nothing here imports what it unpacks.
"""

import asyncio
import contextlib
import fcntl
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from multihost.runtime import clock
from multihost.wire.message import SHIP_BYTES, SHIP_FILES
from multihost.worker.blobs import WorkerBlobs
from multihost.worker.fetch import Copy, Where

RECENT_S = 60.0
"""What was used so lately is not evicted: its child may be about to be started."""
ABANDONED_S = 3600.0
"""Half unpacked directories of this age were left by a worker that was killed."""


class UnpackError(Exception):
    """What was shipped can't be unpacked here; the message says why and what to do."""


class Shelf:
    """The unpacked archives that one worker uses.

    Invariant: what ``take`` gave is on disk until as many ``give_back`` followed.
    """

    def __init__(self, blobs: WorkerBlobs, directory: Path, limit_bytes: int) -> None:
        """Unpack into ``directory``; archives come through ``blobs``."""
        self._blobs = blobs
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._held: dict[bytes, tuple[int, int]] = {}
        """Descriptor of the lock and how many children use it."""
        self._unpacking: dict[bytes, list[Callable[[str | None], None]]] = {}

    def take(self, digests: Sequence[bytes]) -> list[str] | None:
        """Directories to import from, held from now on; None if one is not here."""
        for position, digest in enumerate(digests):
            if not self._hold(digest):
                self.give_back(digests[:position])
                return None
        return [str(self._directory / digest.hex()) for digest in digests]

    def give_back(self, digests: Sequence[bytes]) -> None:
        """A child that used these is gone."""
        for digest in digests:
            descriptor, users = self._held[digest]
            if users > 1:
                self._held[digest] = descriptor, users - 1
            else:
                del self._held[digest]
                os.close(descriptor)

    def bring(self, digests: Sequence[bytes], then: Callable[[str | None], None]) -> None:
        """Fetch and unpack what is missing, then call ``then`` with None, or with why not."""
        missing = [digest for digest in dict.fromkeys(digests) if not self._is_here(digest)]
        if not missing:
            then(None)
            return

        def came(error: str | None) -> None:
            if error is None:
                self.bring(digests, then)
            else:
                then(error)

        self._bring(missing[0], came)

    def _bring(self, digest: bytes, then: Callable[[str | None], None]) -> None:
        waiting = self._unpacking.setdefault(digest, [])
        waiting.append(then)
        if len(waiting) == 1:
            self._blobs.get(digest, lambda copy: self._fetched(digest, copy))

    def _fetched(self, digest: bytes, copy: Copy | str) -> None:
        if isinstance(copy, str):
            self._tell(digest, f"shipped code {copy}")
            return
        self._blobs.use(copy)

        def unpacked(done: "asyncio.Future[str | None]") -> None:
            self._blobs.release([copy])
            self._tell(digest, done.result())

        loop = asyncio.get_running_loop()
        unpacking = loop.run_in_executor(None, self._unpack, digest, copy.where)
        unpacking.add_done_callback(unpacked)

    def _tell(self, digest: bytes, error: str | None) -> None:
        for then in self._unpacking.pop(digest):
            then(error)

    # a thread -----------------------------------------------------------------------------

    def _unpack(self, digest: bytes, data: Where) -> str | None:
        """Unpack an archive whose digest was verified; why it can't be, or None."""
        try:
            _make_private(self._directory)
            unpack(data, self._directory / digest.hex())
            evict(self._directory, self._limit_bytes)
        except UnpackError as error:
            return f"shipped code {digest.hex()[:12]} can't be unpacked: {error}"
        except OSError as error:
            return (
                f"shipped code can't be unpacked into {self._directory} on the worker's machine "
                f"({error.strerror or error}); make room there, or give it another directory with "
                "MULTIHOST_CACHE"
            )
        return None

    # locks --------------------------------------------------------------------------------

    def _is_here(self, digest: bytes) -> bool:
        entry = self._directory / digest.hex()
        return digest in self._held or (entry.is_dir() and _lock_of(entry).exists())

    def _hold(self, digest: bytes) -> bool:
        held = self._held.get(digest)
        if held is not None:
            self._held[digest] = held[0], held[1] + 1
            return True
        entry = self._directory / digest.hex()
        lock = _lock_of(entry)
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Evicted between opening and locking: then it is not the file of that name any more.
            if os.path.samestat(os.fstat(descriptor), lock.stat()) and entry.is_dir():
                os.utime(descriptor)
                self._held[digest] = descriptor, 1
                return True
        except OSError:
            pass
        os.close(descriptor)
        return False


def unpack(data: Where, entry: Path) -> None:
    """Unpack an archive as the directory ``entry``, unless it is there; raises UnpackError."""
    lock = _lock_of(entry)
    if entry.is_dir() and lock.exists():
        return
    work = _new_directory(entry)
    try:
        size_bytes = _extract(data, work)
        _make_lock(lock, size_bytes)
        with contextlib.suppress(FileExistsError, OSError):
            work.rename(entry)  # another worker may have been faster
        if not entry.is_dir():
            raise UnpackError(f"{entry} can't be made")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(data: Where, work: Path) -> int:
    """Write an archive's files below ``work``; how many bytes they have."""
    try:
        archive = zipfile.ZipFile(data if isinstance(data, Path) else io.BytesIO(data))
        size_bytes = _checked_size(archive.infolist())
        for member in archive.infolist():
            path = _inside(work, member.filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("xb") as target:
                # Never more than it says of itself, whatever it holds.
                target.write(source.read(member.file_size))
                target.flush()
                os.fsync(target.fileno())  # what is there after a crash has to be whole
            path.chmod(0o700 if member.external_attr >> 16 & 0o100 else 0o600)
    except (OSError, UnpackError):
        raise
    except Exception as error:  # whatever zipfile raises for bytes that are no archive
        raise UnpackError(f"it is no archive of ours ({error})") from None
    return size_bytes


def _checked_size(members: Sequence[zipfile.ZipInfo]) -> int:
    size_bytes = sum(member.file_size for member in members)
    if len(members) > SHIP_FILES or size_bytes > SHIP_BYTES:
        raise UnpackError(f"it has {len(members)} files and {size_bytes} bytes")
    return size_bytes


def _inside(work: Path, name: str) -> Path:
    parts = name.split("/")
    if not all(parts) or any(part in {".", ".."} or "\\" in part or "\0" in part for part in parts):
        raise UnpackError(f"it has a file of the name {name!r}")
    return work.joinpath(*parts)


def evict(directory: Path, limit_bytes: int) -> None:
    """Delete what nobody holds, the longest unused first, until the rest is small enough."""
    entries, now = sorted(_entries(directory)), clock.wall()
    total = sum(size_bytes for _, size_bytes, _ in entries)
    for used_at, size_bytes, entry in entries:
        if total <= limit_bytes or 0 <= now - used_at < RECENT_S:
            break
        if _delete(entry):
            total -= size_bytes
    for left in directory.glob(".*"):
        with contextlib.suppress(OSError):
            if now - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _entries(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """When it was last used, its size, its directory."""
    for lock in directory.glob("*.lock"):
        with contextlib.suppress(OSError, ValueError):
            if not lock.name.startswith("."):
                yield lock.stat().st_mtime, int(lock.read_text()), lock.with_suffix("")


def _delete(entry: Path) -> bool:
    """Delete an entry unless somebody holds it; whether it is gone."""
    lock = _lock_of(entry)
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = _new_directory(entry)
        with contextlib.suppress(FileNotFoundError):
            entry.rename(doomed)
        lock.unlink()
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _new_directory(entry: Path) -> Path:
    """A directory beside ``entry``, of a name that nobody has, on whatever machine or container."""
    return Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))


def _lock_of(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.lock")


def _make_lock(lock: Path, size_bytes: int) -> None:
    """Make a lock's file if there is none: another worker that was faster may hold it by now.

    It tells the size, so that nobody has to add it up again.
    """
    descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, str(size_bytes).encode(), 0)  # the same, whoever writes it
    finally:
        os.close(descriptor)


def _make_private(directory: Path) -> None:
    """Make the cache's directory if there is none; raises UnpackError if others may write there."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnpackError(
            f"others may write into {directory}; give the worker another directory with "
            "MULTIHOST_CACHE"
        )
