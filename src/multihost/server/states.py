"""What synchronizers are made of, and their bytes in the store.

Plain data: who holds, who waits and in which order. Waiters are part of it, so
that a server that starts again has lost no notify and nobody's place in a line.
"""

from collections.abc import Iterator

import msgspec

from multihost.wire.act import Kind, OpenSynchronizer, RejectCode, Rejected

MAX_SEMAPHORE = (1 << 31) - 1
"""Highest value of a semaphore, as in the standard library."""
MAX_VALUE_BYTES = 8 << 20
"""Largest VALUE: it is kept anew with every write, and travels in one frame."""


class Waiter(msgspec.Struct, array_like=True, gc=False):
    """A taker's call that waits."""

    taker: int
    number: int
    depth: int = 1
    """Holds of the lock that it gets, more than one after a condition's wait."""
    condition: int = 0
    """Whose notify or timeout brought it to the lock."""
    value: bool = True
    """What it is answered when it has the lock; at a barrier: whether it still has time."""
    has_action: bool = False
    """Whether it is to act if it is the last at a barrier."""


class State(msgspec.Struct, array_like=True):
    """Base of all states."""

    waiters: list[Waiter] = []

    def holders(self) -> Iterator[int]:
        """Takers that hold it."""
        yield from ()

    def is_held_by(self, taker: int) -> bool:
        """Whether ``taker`` holds it."""
        return False


class LockState(State):
    """LOCK and RLOCK. Invariant: nobody waits for a free one."""

    is_reentrant: bool = False
    holder: int = 0
    depth: int = 0
    """How often the holder has acquired it; 0: free."""
    token: int = 0
    """Of the latest acquire that was not one within another."""

    def holders(self) -> Iterator[int]:
        """Its holder, if it is not free."""
        if self.depth:
            yield self.holder

    def is_held_by(self, taker: int) -> bool:
        """Whether ``taker`` is the holder."""
        return self.depth > 0 and self.holder == taker


class SemaphoreState(State):
    """SEMAPHORE and BOUNDED_SEMAPHORE. Invariant: nobody waits while the value is above 0."""

    value: int = 0
    bound: int = MAX_SEMAPHORE
    token: int = 0
    holds: dict[int, int] = {}
    """Acquires by taker, less the releases; what is given back when a taker dies."""

    def holders(self) -> Iterator[int]:
        """Takers whose death gives something back."""
        yield from self.holds

    def is_held_by(self, taker: int) -> bool:
        """Whether the death of ``taker`` gives something back."""
        return taker in self.holds


class ConditionState(State):
    """CONDITION: waiters that nobody has notified yet."""

    lock: int = 0


class EventState(State):
    """EVENT. Invariant: nobody waits while it is set."""

    is_set: bool = False


class BarrierState(State):
    """BARRIER. Nobody waits while it is broken.

    Invariant: unless one of them acts, fewer wait than there are parties. While one does,
    the first to wait are its fellows, and whoever came later is of the next round.
    """

    parties: int = 1
    is_broken: bool = False
    token: int = 0
    """Of the action under way; 0: none."""
    actor: int = 0
    """Taker that acts for the others."""

    def holders(self) -> Iterator[int]:
        """Who acts: its death breaks the barrier."""
        if self.token:
            yield self.actor

    def is_held_by(self, taker: int) -> bool:
        """Whether the others wait for what ``taker`` does."""
        return self.token > 0 and self.actor == taker


class ValueState(State):
    """VALUE."""

    data: bytearray = msgspec.field(default_factory=bytearray)


KINDS: dict[Kind, type[State]] = {
    Kind.LOCK: LockState,
    Kind.RLOCK: LockState,
    Kind.SEMAPHORE: SemaphoreState,
    Kind.BOUNDED_SEMAPHORE: SemaphoreState,
    Kind.CONDITION: ConditionState,
    Kind.EVENT: EventState,
    Kind.BARRIER: BarrierState,
    Kind.VALUE: ValueState,
}

_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(state) for kind, state in KINDS.items()}


def encode_state(state: State) -> bytes:
    """Bytes of a state, for the store."""
    return _encoder.encode(state)


def decode_state(kind: Kind, data: bytes) -> State:
    """State of a synchronizer of a kind, from the store."""
    return _decoders[kind].decode(data)


def first_state(act: OpenSynchronizer) -> State | Rejected:
    """State in which a new synchronizer begins; Rejected for numbers that make no sense."""
    kind, number = act.kind, act.number
    if kind in (Kind.LOCK, Kind.RLOCK):
        return LockState(is_reentrant=kind is Kind.RLOCK)
    if kind in (Kind.SEMAPHORE, Kind.BOUNDED_SEMAPHORE):
        if not 0 <= number <= MAX_SEMAPHORE:
            return _bad(f"a semaphore begins at 0 to {MAX_SEMAPHORE}, not {number}")
        bound = number if kind is Kind.BOUNDED_SEMAPHORE else MAX_SEMAPHORE
        return SemaphoreState(value=number, bound=bound)
    if kind is Kind.CONDITION:
        return ConditionState(lock=number)
    if kind is Kind.EVENT:
        return EventState()
    if kind is Kind.BARRIER:
        if number < 1:
            return _bad(f"a barrier has at least one party, not {number}")
        return BarrierState(parties=number)
    if len(act.data) > MAX_VALUE_BYTES:
        return _bad(f"a value has at most {MAX_VALUE_BYTES} bytes, not {len(act.data)}")
    return ValueState(data=bytearray(act.data))


def conflict(act: OpenSynchronizer, state: State) -> str:
    """How a synchronizer that exists differs from the one asked for; empty when it doesn't."""
    if isinstance(state, SemaphoreState) and act.kind is Kind.BOUNDED_SEMAPHORE:
        what, has, asked = "the bound", state.bound, act.number
    elif isinstance(state, ConditionState):
        what, has, asked = "the lock with number", state.lock, act.number
    elif isinstance(state, BarrierState):
        what, has, asked = "parties:", state.parties, act.number
    elif isinstance(state, ValueState):
        what, has, asked = "a size in bytes of", len(state.data), len(act.data)
    else:
        return ""
    return "" if has == asked else f"it has {what} {has}, not {asked}"


def _bad(message: str) -> Rejected:
    return Rejected(RejectCode.BAD_REQUEST, message)
