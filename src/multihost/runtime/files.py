"""Files that are replaced whole: whatever dies in between, the old one is there or the new one."""

import os
from pathlib import Path

from multihost.store.places import sync_directory


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file so that a crash leaves the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)
