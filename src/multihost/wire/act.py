"""What a taker asks for: acts on queues and synchronizers, and their results.

A *taker* is one line of execution in a client (a thread, a coroutine): what it
took from a queue and which locks it holds is told apart by it. It makes one
call at a time; a call carries one act and is answered once, at once or when
what it waits for has come. All acts are small, and one that changes several
queues does so in one transaction.
"""

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from multihost.wire.blob import Payload

PUT_ITEMS = 100_000
"""Items that one exchange puts into a queue, and queues that it puts into."""
HELD_ITEMS = 1_000_000
"""Items that one exchange confirms, or gives back."""


class Confirm(IntEnum):
    """When an item that was taken is done with, so that nobody gets it again."""

    NEXT = 0
    """When its taker takes the next one from the queue, or puts what it made of it."""
    TASK_DONE = 1
    """When its taker calls ``task_done``."""
    GET = 2
    """As soon as it is taken: an item dies with its taker."""


class Act(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all acts."""


# --- queues --------------------------------------------------------------------------


class OpenQueue(Act, frozen=True, tag=1):
    """Find the queue of items of this name, or make it. Answered by QueueOpened.

    The settings are those of whoever made it; ``is_transient``: it is dropped
    when the session that made it ends.
    """

    name: str
    limit: int = 0
    """Items that may wait in it; 0: no bound but the store's."""
    confirm: Confirm = Confirm.NEXT
    is_transient: bool = False


class DropQueue(Act, frozen=True, tag=2):
    """Delete a queue and all its items. Whoever waits for it gets CLOSED. Idempotent."""

    queue: int


class CloseQueue(Act, frozen=True, tag=3):
    """Take no more items into a queue; takes answer CLOSED when it is empty. Idempotent."""

    queue: int


class Put(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Items for the end of a queue."""

    queue: int
    payloads: Annotated[list[Payload], Meta(max_length=PUT_ITEMS)]


class Finish(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``task_done`` called so many times on a queue."""

    queue: int
    times: int = 1


class Exchange(Act, frozen=True, tag=4):
    """In one transaction: confirm and give back items held, put others, take the next.

    Answered by Exchanged. When a confirmed item is not held any more (LOST), or
    a queue has no room within the time (FULL), nothing at all is done. When only
    the take finds nothing within the time (EMPTY), the rest was done at once.
    """

    confirms: Annotated[list[int], Meta(max_length=HELD_ITEMS)] = []
    """Items held by this taker that it is done with."""
    returns: Annotated[list[int], Meta(max_length=HELD_ITEMS)] = []
    """Items held by this taker that others shall get."""
    puts: Annotated[list[Put], Meta(max_length=PUT_ITEMS)] = []
    finishes: Annotated[list[Finish], Meta(max_length=PUT_ITEMS)] = []
    take: int | None = None
    """Queue to take from."""
    limit: int = 1
    """Items to take at most; the first one is waited for."""


class JoinQueue(Act, frozen=True, tag=5):
    """Wait until every item ever put was followed by a ``task_done``. Answered by Done."""

    queue: int


class MeasureQueue(Act, frozen=True, tag=6):
    """Answered by Measured: items waiting, held by takers, unfinished (put, not done), limit."""

    queue: int


# --- synchronizers -------------------------------------------------------------------


class Kind(IntEnum):
    """Kinds of synchronizers."""

    LOCK = 1
    RLOCK = 2
    SEMAPHORE = 3
    BOUNDED_SEMAPHORE = 4
    CONDITION = 5
    EVENT = 6
    BARRIER = 7
    VALUE = 8
    """Bytes that are read and written in place."""


class OpenSynchronizer(Act, frozen=True, tag=20):
    """Find the synchronizer of this name and kind, or make it. Answered by SynchronizerOpened."""

    kind: Kind
    name: str
    number: int = 0
    """A semaphore's first value, a barrier's parties, a condition's lock (its number)."""
    data: bytes = b""
    """A VALUE's first bytes."""
    is_transient: bool = False


class DropSynchronizer(Act, frozen=True, tag=21):
    """Delete it; whoever waits for it is answered by Rejected. Idempotent."""

    synchronizer: int


class Acquire(Act, frozen=True, tag=22):
    """A lock or semaphore. Answered by Done; its token rises with every acquire.

    An RLOCK acquired again by its holder keeps the token of the outer acquire.
    """

    synchronizer: int


class Release(Act, frozen=True, tag=23):
    """A lock or semaphore, ``times`` times. Rejected as the standard library raises."""

    synchronizer: int
    times: int = 1


class WaitNotified(Act, frozen=True, tag=24):
    """Let go of a condition's lock, wait for a notify, and take the lock again."""

    synchronizer: int


class Notify(Act, frozen=True, tag=25):
    """Wake ``count`` waiters of a condition; -1: all."""

    synchronizer: int
    count: int = 1


class SetEvent(Act, frozen=True, tag=26):
    """Set an event (or clear it)."""

    synchronizer: int
    is_set: bool = True


class WaitSet(Act, frozen=True, tag=27):
    """Wait for an event to be set."""

    synchronizer: int


class PassBarrier(Act, frozen=True, tag=28):
    """Wait for all parties. Answered by Done whose number is this party's, from 0.

    With a token when this is the last party and ``has_action``: it has to act before the
    others go on, and to say FinishAction then.
    """

    synchronizer: int
    has_action: bool = False


class ResetBarrier(Act, frozen=True, tag=29):
    """Put a barrier back to its empty state, or break it; waiters get BROKEN."""

    synchronizer: int
    is_abort: bool = False


class ReadValue(Act, frozen=True, tag=30):
    """Bytes of a VALUE. Answered by Data."""

    synchronizer: int
    start: int = 0
    stop: int = -1
    """-1: to the end."""


class WriteValue(Act, frozen=True, tag=31):
    """Overwrite bytes of a VALUE; it keeps its length."""

    synchronizer: int
    start: int
    data: bytes


class MeasureSynchronizer(Act, frozen=True, tag=32):
    """Answered by Measured.

    LOCK, RLOCK: holds (0: free), token. Semaphores: value, token. CONDITION:
    waiters. EVENT: 1 when set. BARRIER: waiting, parties, 1 when broken. VALUE: size in bytes.
    """

    synchronizer: int


class FinishAction(Act, frozen=True, tag=33):
    """A barrier's action is done, and its parties go on; or it has failed, and it breaks.

    Rejected as BROKEN when the action's ``token`` is not the barrier's any more.
    """

    synchronizer: int
    token: int
    has_failed: bool = False


AnyAct = (
    OpenQueue
    | DropQueue
    | CloseQueue
    | Exchange
    | JoinQueue
    | MeasureQueue
    | OpenSynchronizer
    | DropSynchronizer
    | Acquire
    | Release
    | WaitNotified
    | Notify
    | SetEvent
    | WaitSet
    | PassBarrier
    | ResetBarrier
    | ReadValue
    | WriteValue
    | MeasureSynchronizer
    | FinishAction
)
"""What a call may carry."""


# --- results ---------------------------------------------------------------------------


class Result(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all results."""


class QueueOpened(Result, frozen=True, tag=1):
    """The queue, with the settings it really has."""

    queue: int
    limit: int
    confirm: Confirm
    is_new: bool


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item in its taker's hands."""

    number: int
    payload: Payload
    attempt: int = 1
    """How often it has been taken."""


class ExchangeEnd(IntEnum):
    """What became of an exchange."""

    OK = 0
    EMPTY = 1
    FULL = 2
    CLOSED = 3
    LOST = 4


class Exchanged(Result, frozen=True, tag=2):
    """The exchange is over."""

    end: ExchangeEnd
    items: list[Item] = []
    lost: list[int] = []
    """For LOST: items that somebody else may have by now."""


class SynchronizerOpened(Result, frozen=True, tag=3):
    """The synchronizer."""

    synchronizer: int
    is_new: bool


class Done(Result, frozen=True, tag=4):
    """It was done; False: what it waited for did not come in time."""

    value: bool = True
    token: int = 0
    """Fencing token of an acquire."""
    number: int = 0


class Measured(Result, frozen=True, tag=5):
    """Numbers, in the order that the act states."""

    numbers: list[int]


class Data(Result, frozen=True, tag=6):
    """Bytes of a VALUE."""

    data: bytes


class RejectCode(StrEnum):
    """Why an act was not done."""

    NOT_FOUND = "not_found"
    """No such queue or synchronizer, or it is of another kind."""
    NOT_HELD = "not_held"
    """Released or waited on by who does not hold it."""
    TOO_MANY = "too_many"
    """Released, or ``task_done`` called, too many times."""
    BROKEN = "broken"
    """The barrier is broken."""
    CONFLICT = "conflict"
    """Exists already with settings that differ."""
    BAD_REQUEST = "bad_request"
    STORE_FULL = "store_full"
    ROLE = "role"
    """The key may not do it."""


class Rejected(Result, frozen=True, tag=7):
    """Nothing was done; the message says why and what to do."""

    code: RejectCode
    message: str


AnyResult = QueueOpened | Exchanged | SynchronizerOpened | Done | Measured | Data | Rejected
"""What an answer may carry."""


def put_bytes(act: AnyAct) -> int:
    """Bytes of the payloads that an act puts."""
    if not isinstance(act, Exchange):
        return 0
    return sum(
        len(payload) for put in act.puts for payload in put.payloads if isinstance(payload, bytes)
    )
