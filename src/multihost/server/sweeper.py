"""Removes files of blobs that no row knows: what a server that was killed left behind.

A blob's file is there before its row, and goes after it. A server that dies
between the two leaves a file that nobody will ask for.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from multihost.runtime import clock
from multihost.server.blobfiles import BlobFiles
from multihost.server.committer import Committer
from multihost.store.base import Store
from multihost.store.places import blob_files

AGE_S: Final = 600.0
"""Younger files may be about to get their row."""
BATCH: Final = 200
"""Rows looked for in one transaction."""


async def sweep(committer: Committer, files: BlobFiles) -> int:
    """Remove what is left over; how many files."""
    loop = asyncio.get_running_loop()
    old = await loop.run_in_executor(None, _older_than, files.directory, clock.wall() - AGE_S)
    removed = 0
    for at in range(0, len(old), BATCH):
        digests = [bytes.fromhex(name) for name in old[at : at + BATCH]]

        def unknown(store: Store, _: float, digests: list[bytes] = digests) -> list[bytes]:
            return [digest for digest in digests if store.blob(digest) is None]

        gone = await committer.ask(unknown, only_reads=True)
        removed += len(gone)
        if gone:
            await files.delete(gone)
    return removed


def _older_than(directory: Path, at: float) -> list[str]:
    names = []
    for path in blob_files(directory):
        with contextlib.suppress(FileNotFoundError):  # deleted this very moment
            if path.stat().st_mtime < at:
                names.append(path.name)
    return names
