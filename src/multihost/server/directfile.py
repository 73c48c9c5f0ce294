"""A file that is written from beginning to end, past the page cache where that can be.

What has to be on the disk before it is acknowledged gains nothing from the
cache: filling fresh pages takes longer than the disk does. Systems without
direct I/O, and the last bytes that fill no block, go the usual way.
"""

import errno
import fcntl
import mmap
import os
import threading
from pathlib import Path

BLOCK_BYTES = 4096
"""Direct writes begin and end at multiples of this, in memory and in the file."""
BUFFER_BYTES = (1 << 20) + (64 << 10)
_DIRECT = getattr(os, "O_DIRECT", 0)

_of_thread = threading.local()


class DirectFile:
    """Descriptor and position. Used in one thread at a time."""

    def __init__(self, path: Path, *, is_direct: bool, size_bytes: int = 0) -> None:
        """Make the file, or go on behind its first ``size_bytes``; what is beyond is cut off.

        ``is_direct`` False: the usual way from the start.
        """
        self._is_direct = is_direct and bool(_DIRECT)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags | (_DIRECT if self._is_direct else 0), 0o600)
        except OSError as error:
            if not self._is_direct or error.errno != errno.EINVAL:
                raise
            self._is_direct = False  # tmpfs, and others that know no direct I/O
            self._descriptor = os.open(path, flags, 0o600)
        os.ftruncate(self._descriptor, size_bytes)
        os.lseek(self._descriptor, size_bytes, os.SEEK_SET)
        if size_bytes % BLOCK_BYTES:
            self._go_the_usual_way()

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        view = memoryview(data)
        while self._is_direct and len(view) >= BLOCK_BYTES:
            view = view[self._write_blocks(view) :]
        if view:
            self._go_the_usual_way()
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        """Return when all of it would survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write_blocks(self, view: memoryview) -> int:
        """Write whole blocks; how many bytes."""
        buffer = _aligned_buffer()
        size = min(len(view), BUFFER_BYTES) // BLOCK_BYTES * BLOCK_BYTES
        buffer[:size] = view[:size]
        try:
            written = os.write(self._descriptor, memoryview(buffer)[:size])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            written = 0  # larger blocks than ours
        if written % BLOCK_BYTES or not written:
            self._go_the_usual_way()
        return written

    def _go_the_usual_way(self) -> None:
        if self._is_direct:
            self._is_direct = False
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)


def _aligned_buffer() -> mmap.mmap:
    """Memory that begins at a page, one a thread."""
    buffer: mmap.mmap | None = getattr(_of_thread, "buffer", None)
    if buffer is None:
        buffer = _of_thread.buffer = mmap.mmap(-1, BUFFER_BYTES)
    return buffer
