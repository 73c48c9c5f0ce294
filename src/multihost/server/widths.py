"""Pools of limited width: how many slots each occupies, and on which workers.

A pool of two has two slots in the whole cluster. Where it was served last is
its home: its children there have run the initializer and hold what the user's
functions keep between tasks, so it goes back there as long as a slot is free.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

HOMES = 1_000
"""Pools without a task under way whose homes are remembered."""


@dataclass(slots=True)
class _Pool:
    limit: int
    slots: dict[int, int] = field(default_factory=dict)
    """By worker session."""
    held: dict[int, int] = field(default_factory=dict)
    homes: dict[int, None] = field(default_factory=dict)
    """Sessions that served it, the latest last; at most ``limit``."""


class Widths:
    """Which pools have how many slots where."""

    def __init__(self) -> None:
        """Begin with no pool."""
        self._busy: dict[str, _Pool] = {}
        self._idle: OrderedDict[str, _Pool] = OrderedDict()

    def share(self, pool: str, session: int, slots: int, reserved: int = 0) -> int | None:
        """Slots of a worker that has ``slots`` which the pool may use; None: not known yet.

        ``reserved``: slots free at its homes, for which the pool should keep its width.
        """
        width = self._busy.get(pool) or self._idle.get(pool)
        if width is None:
            return None
        free = max(0, width.limit - sum(width.slots.values()) - reserved)
        return min(slots, width.slots.get(session, 0) + free)

    def held(self, pool: str, session: int) -> int:
        """Tasks of the pool that a worker holds."""
        width = self._busy.get(pool)
        return 0 if width is None else width.held.get(session, 0)

    def is_busy(self, pool: str) -> bool:
        """Whether some worker holds tasks of the pool."""
        return pool in self._busy

    def slots(self, pool: str, session: int) -> int | None:
        """Slots that the pool has on a worker; None when it has none anywhere."""
        width = self._busy.get(pool)
        return None if width is None else width.slots.get(session, 1)

    def homes(self, pool: str) -> dict[int, None]:
        """Workers that served the pool lately and do not now."""
        width = self._busy.get(pool) or self._idle.get(pool)
        return {} if width is None else {s: None for s in width.homes if s not in width.slots}

    def widen(self, pool: str, limit: int, session: int, slots: int, count: int = 1) -> None:
        """So many tasks of the pool were leased to a worker that has ``slots``."""
        width = self._busy.get(pool)
        if width is None:
            known = pool in self._idle
            width = self._busy[pool] = self._idle.pop(pool) if known else _Pool(limit)
        width.held[session] = width.held.get(session, 0) + count
        has = width.slots.get(session, 0)
        more = min(count, slots - has, width.limit - sum(width.slots.values()))
        if more > 0:
            width.slots[session] = has + more
            width.homes.pop(session, None)
            width.homes[session] = None
            if len(width.homes) > width.limit:
                del width.homes[next(iter(width.homes))]

    def narrow(self, pool: str, session: int, count: int = 1) -> None:
        """So many tasks of the pool left a worker; with its last there its slots are free."""
        width = self._busy.get(pool)
        if width is None or session not in width.held:
            return
        width.held[session] -= count
        if width.held[session] > 0:
            return
        del width.held[session]
        width.slots.pop(session, None)
        if not width.held:
            self._idle[pool] = self._busy.pop(pool)
            if len(self._idle) > HOMES:
                self._idle.popitem(last=False)

    def forget(self, session: int) -> None:
        """A worker's session has ended."""
        for pool in [*self._busy.values(), *self._idle.values()]:
            pool.slots.pop(session, None)
            pool.held.pop(session, None)
            pool.homes.pop(session, None)
