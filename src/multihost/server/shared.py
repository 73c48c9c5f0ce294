"""What people see of and do to what is shared by name: queues of items, locks and their kin.

Programs do the same by calls of their takers; here nobody holds anything. A drop
takes part in a transaction like any call, so that whoever waits there is told.
"""

from typing import Any

from multihost.core.ids import session_of
from multihost.errors import BadRequest
from multihost.server.acts import Acts
from multihost.server.services import Services
from multihost.server.states import (
    BarrierState,
    EventState,
    LockState,
    SemaphoreState,
    State,
    ValueState,
)
from multihost.store.base import ItemQueueRow, Store, SynchronizerRow
from multihost.wire.message import Role

Row = dict[str, Any]
_FORCE = 'say --force, or send {"force": true}, if that is meant'


class Shared:
    """Lists and drops what has a name and no owner."""

    def __init__(self, services: Services) -> None:
        """Ask and change what ``services`` keep."""
        self._services = services

    async def item_queues(self) -> list[Row]:
        """Every queue of items that has a name of its own."""
        rows: list[ItemQueueRow] = await self._ask(lambda store, _: store.item_queues())
        parking = self._services.calls.parking
        return [_item_queue(row, parking.waiting(row.number)) for row in rows]

    async def synchronizers(self) -> list[Row]:
        """Every lock, semaphore, condition, event, barrier and value with a name of its own."""

        def read(store: Store, _: float) -> tuple[list[SynchronizerRow], dict[int, str]]:
            sessions = store.sessions(Role.CLIENT)
            places = {row.number: f"{row.info.host}:{row.info.pid}" for row in sessions}
            return store.synchronizers(), places

        rows, places = await self._ask(read)
        machine = self._services.calls.synchronizers
        states = [(row, machine.state(row.number)) for row in rows if row.owner is None]
        found = [_synchronizer(row, state, places) for row, state in states if state is not None]
        return sorted(found, key=lambda row: row["lock"])

    async def drop_queue(self, name: str, *, is_forced: bool) -> Row | None:
        """Delete a queue with its items; BadRequest when it has some and it ``is_forced`` not."""

        def run(acts: Acts, store: Store) -> Row | None:
            row = next((row for row in store.item_queues() if row.name == name), None)
            if row is None:
                return None
            if not is_forced and (row.waiting or row.held):
                raise BadRequest(
                    f"{row.waiting} items wait in queue {name}, {row.held} are held, and would be "
                    f"deleted with it: {_FORCE}"
                )
            acts.drop_queue(store, row.number)
            return {"queue": name, "waiting": row.waiting, "held": row.held}

        return await self._services.calls.do(run)

    async def drop_synchronizer(self, name: str, *, is_forced: bool) -> Row | None:
        """Delete a lock or its kin; BadRequest when it is in use and it ``is_forced`` not."""

        def run(acts: Acts, store: Store) -> Row | None:
            rows = store.synchronizers()
            row = next((row for row in rows if row.name == name and row.owner is None), None)
            state = None if row is None else acts.synchronizers.state(row.number)
            if row is None or state is None:
                return None
            held = len(list(state.holders()))
            if not is_forced and (held or state.waiters):
                raise BadRequest(
                    f"{held} hold {name} and {len(state.waiters)} wait for it, whose next call "
                    f"would fail: {_FORCE}"
                )
            acts.drop_synchronizer(store, row.number)
            return {"lock": name, "held": held, "waiting": len(state.waiters)}

        return await self._services.calls.do(run)

    def _ask(self, run: Any) -> Any:
        return self._services.committer.ask(run, only_reads=True)


def _item_queue(row: ItemQueueRow, takers: int) -> Row:
    return {
        "queue": row.name,
        "of": "items",
        "waiting": row.waiting,
        "held": row.held,
        "takers": takers,
        "unfinished": row.unfinished,
        "put": row.put,
        "confirmed": row.confirmed,
        "limit": row.limit or None,
        "confirm": row.confirm.name.lower(),
        "is_closed": row.is_closed,
    }


def _synchronizer(row: SynchronizerRow, state: State, places: dict[int, str]) -> Row:
    holders = [places.get(session_of(taker), "somebody gone") for taker in state.holders()]
    return {
        "lock": row.name,
        "kind": row.kind.name.lower(),
        "state": _word(state),
        "waiting": len(state.waiters),
        "holders": sorted(holders),
    }


def _word(state: State) -> str:
    """How it stands, in a word or two."""
    if isinstance(state, LockState):
        return "held" if state.depth else "free"
    if isinstance(state, SemaphoreState):
        return f"{state.value} left"
    if isinstance(state, EventState):
        return "set" if state.is_set else "clear"
    if isinstance(state, BarrierState):
        return "broken" if state.is_broken else f"{len(state.waiters)} of {state.parties} there"
    if isinstance(state, ValueState):
        return f"{len(state.data)} bytes"
    return "-"
