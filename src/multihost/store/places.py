"""Where a store lies within its state directory: database, journal, a file for each big blob."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STORE_FILE: Final = "store.sqlite"
BLOB_DIRECTORY: Final = "blobs"
DIGEST_CHARS: Final = 64
NO_ROOM: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""What writing fails with when the disk is full, or its quota for this user used up."""


def journal_of(store: Path) -> Path:
    """The journal of the database at ``store``; ``-journal`` is SQLite's own."""
    return store.with_name(f"{store.name}-items")


def blob_place(directory: Path, digest: bytes) -> Path:
    """The file of the blob ``digest`` below ``directory``."""
    text = digest.hex()
    return directory / text[:2] / text


def blob_files(directory: Path) -> Iterator[Path]:
    """Every file below ``directory`` whose name is a digest; uploads under way have others."""
    for path in directory.glob("[0-9a-f][0-9a-f]/*"):
        if len(path.name) == DIGEST_CHARS and path.name[:2] == path.parent.name:
            yield path


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable, where the system can."""
    if os.name != "posix":
        return
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
