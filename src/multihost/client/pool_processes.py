"""The child processes behind a pool, for programs that look into ``Pool._pool``.

Nothing here is kept: the workers tell the server of their children whenever
these change, and each look asks the server. Nothing here can be started,
signalled or waited for; the workers do that.
"""

from typing import Any, NamedTuple

from multihost.client.listings import Listings

UNKNOWN = 255
"""Exit code of a child that is gone: only its worker knows the true one."""


class PoolProcess:
    """A child process as it was when it was looked at; one that is not there yet has no pid."""

    def __init__(self, listings: Listings, child: "_Child") -> None:
        """Show ``child``."""
        self._listings = listings
        self.pid = child.pid
        """On its host."""
        self.host = child.host
        self.worker = child.worker
        self.name = f"Worker-{child.pid}"

    def is_alive(self) -> bool:
        """Whether its worker still has it; asks the server."""
        here = (self.host, self.pid)
        return self.pid is not None and any(
            here == (child.host, child.pid) for child in _children(self._listings)
        )

    @property
    def exitcode(self) -> int | None:
        """None while it is there, else 255; asks the server."""
        return None if self.pid is None or self.is_alive() else UNKNOWN

    def __repr__(self) -> str:
        return f"<PoolProcess pid={self.pid} host={self.host!r}>"


class _Child(NamedTuple):
    host: str
    worker: str
    pid: int | None
    pool: str


def serving(listings: Listings, pool: str, count: int) -> list[PoolProcess]:
    """As many processes as a pool has: first its own, then those that it would get next."""
    found = [child for child in _children(listings) if child.pool in {pool, ""}]
    found.sort(key=lambda child: child.pool != pool)
    found = found[:count]
    found += [_Child("", "", None, "")] * (count - len(found))
    return [PoolProcess(listings, child) for child in found]


def _children(listings: Listings) -> list[_Child]:
    rows: list[dict[str, Any]] = listings.workers()
    return [
        _Child(row["host"], row["worker"], child["pid"], child["pool"])
        for row in rows
        if row["connected"]
        for child in row.get("children", ())
    ]
