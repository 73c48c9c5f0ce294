"""What synchronizers there are, who holds them or waits for them, and what has changed.

A transaction may be undone. The book has the bytes of what is in the store; it
tells what has changed since the last ``keep``, and goes back to that with
``undo``. What an act does to a synchronizer is not its business.
"""

from collections.abc import Collection

from multihost.core.ids import session_of
from multihost.server.states import ConditionState, State, Waiter, decode_state, encode_state
from multihost.wire.act import Kind


class SynchronizerBook:
    """Synchronizers by their numbers, and takers by what they have to do with them.

    Invariants: a taker waits in one place at most; whoever holds or waits is found by its
    taker; what differs from the store is among what has changed.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._kinds: dict[int, Kind] = {}
        self._states: dict[int, State] = {}
        self._conditions: dict[int, set[int]] = {}
        """Conditions by their lock."""
        self._places: dict[int, tuple[int, int]] = {}
        """Where a taker waits: synchronizer and number of its call."""
        self._touched_by: dict[int, set[int]] = {}
        """Synchronizers that a taker holds or waits for."""
        self._saved: dict[int, tuple[Kind, bytes]] = {}
        """What is in the store."""
        self.changed: set[int] = set()
        """What is not as in ``_saved``: changed, new, or dropped."""

    # what there is -----------------------------------------------------------------------

    def load(self, number: int, kind: Kind, data: bytes) -> None:
        """A synchronizer is in the store."""
        self._saved[number] = (kind, data)
        self._add(number, kind, decode_state(kind, data))

    def add(self, number: int, kind: Kind, data: bytes) -> None:
        """A synchronizer is new in the store, if this transaction is kept."""
        self.changed.add(number)
        self._add(number, kind, decode_state(kind, data))

    def state(self, number: int) -> State | None:
        """State of a synchronizer, to be read."""
        return self._states.get(number)

    def place(self, taker: int) -> tuple[int, int] | None:
        """Synchronizer that a taker waits for, and the number of its call."""
        return self._places.get(taker)

    def takers_of(self, session: int) -> list[int]:
        """Takers of a session that hold something or wait for something."""
        return [taker for taker in self._touched_by if session_of(taker) == session]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._states)

    # transactions ------------------------------------------------------------------------

    def changes(self) -> list[tuple[int, bytes]]:
        """Numbers and bytes of what has changed since this was last asked or kept."""
        changes = []
        for number in self.changed:
            state = self._states.get(number)
            if state is not None:
                changes.append((number, encode_state(state)))
        return changes

    def keep(self, changes: Collection[tuple[int, bytes]]) -> None:
        """The transaction with these changes is kept."""
        for number, data in changes:
            self._saved[number] = (self._kinds[number], data)
        for number in self.changed:
            if number not in self._states:
                self._saved.pop(number, None)
        self.changed.clear()

    def undo(self) -> None:
        """Nothing has happened since the last ``keep``."""
        changed = list(self.changed)
        for number in changed:
            self._remove(number)
        for number in changed:
            if number in self._saved:
                kind, data = self._saved[number]
                self._add(number, kind, decode_state(kind, data))
        self.changed.clear()

    # holding and waiting ------------------------------------------------------------------

    def _wait(self, number: int, state: State, waiter: Waiter) -> None:
        state.waiters.append(waiter)
        self._places[waiter.taker] = (number, waiter.number)
        self._touched_by.setdefault(waiter.taker, set()).add(number)

    def _leave(self, number: int, state: State, waiter: Waiter) -> None:
        """A waiter waits here no more."""
        state.waiters.remove(waiter)
        del self._places[waiter.taker]
        self._let_go(waiter.taker, number, state)

    def _let_go(self, taker: int, number: int, state: State) -> None:
        """A taker doesn't hold, or doesn't wait for, a synchronizer any more."""
        place = self._places.get(taker)
        if state.is_held_by(taker) or (place is not None and place[0] == number):
            return
        touched = self._touched_by.get(taker)
        if touched is not None:
            touched.discard(number)
            if not touched:
                del self._touched_by[taker]

    # the books ---------------------------------------------------------------------------

    def _change(self, number: int) -> None:
        self.changed.add(number)

    def _add(self, number: int, kind: Kind, state: State) -> None:
        self._kinds[number] = kind
        self._states[number] = state
        if isinstance(state, ConditionState):
            self._conditions.setdefault(state.lock, set()).add(number)
        for taker in state.holders():
            self._touched_by.setdefault(taker, set()).add(number)
        for waiter in state.waiters:
            self._places[waiter.taker] = (number, waiter.number)
            self._touched_by.setdefault(waiter.taker, set()).add(number)

    def _remove(self, number: int) -> None:
        state = self._states.pop(number, None)
        if state is None:
            return
        del self._kinds[number]
        if isinstance(state, ConditionState):
            conditions = self._conditions[state.lock]
            conditions.discard(number)
            if not conditions:
                del self._conditions[state.lock]
        takers = {waiter.taker for waiter in state.waiters}
        for taker in takers:
            if self._places[taker][0] == number:
                del self._places[taker]
        for taker in takers.union(state.holders()):
            touched = self._touched_by.get(taker, set())
            touched.discard(number)
            if not touched:
                self._touched_by.pop(taker, None)
