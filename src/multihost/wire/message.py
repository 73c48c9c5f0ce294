"""The messages between server, workers and clients: one frozen type each.

A WebSocket binary frame is a msgpack array of messages; a message is an array
that begins with its tag. Messages are batch-shaped: where load makes batches
they carry many tasks, where it doesn't they carry one at once. New fields are
appended with a default, so that neighbouring versions understand each other;
tags are never used again.

Three numbers for a job occur. Its *uid* (16 bytes) is made by the client
before it sends anything, which makes submitting idempotent. Its *number* is
given by the server and is what people see. On a client's connection the
client's own small *alias* stands for it.
"""

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec

from multihost.core.job import Context, JobSpec, Style
from multihost.core.lease import HEARTBEAT_S, LEASE_S
from multihost.core.outcome import Ending
from multihost.core.resources import Offer
from multihost.wire.act import AnyAct, AnyResult
from multihost.wire.blob import Blob as Blob  # noqa: PLC0414 - among the names of this module
from multihost.wire.blob import Payload as Payload  # noqa: PLC0414 - as above

PROTOCOL = 2
"""Version of the protocol; a peer with another major version is refused by name."""
MAX_FRAME_BYTES = 16 << 20
FRAME_MESSAGES = 10_000
"""Messages in one frame."""
INLINE_BYTES = 64 << 10
"""Payloads above this size travel and are stored as blobs."""
BLOB_PART_BYTES = (1 << 20) + (64 << 10)
"""Size of the parts in which a larger blob is sent; a pickled MiB is one part."""
ASK_FIRST_BYTES = 4 << 20
"""Before a blob of this size is sent the server is asked how much of it it has."""
MAX_BLOB_BYTES = (4 << 30) + (1 << 20)
"""A blob that a server takes, unless told otherwise: 4 GiB, and what a pickle adds to them."""
NONCE_BYTES = 32
SHIP_BYTES = 64 << 20
"""Bytes of the files in one archive of shipped code, before they are compressed."""
SHIP_FILES = 10_000
"""Files in it."""
BATCH_TASKS = 10_000
"""Tasks in one message that adds, finishes or cancels them."""
HELD_LEASES = 500_000
"""Leases named in one message: a worker keeps more outcomes than a message finishes."""
WORKER_QUEUES = 1_000
"""Queues that a worker serves by name."""
SHORT_CHARS = 300
"""Characters in the names that a peer gives itself, its host and its queues."""

_BATCH = msgspec.Meta(max_length=BATCH_TASKS)
_HELD = msgspec.Meta(max_length=HELD_LEASES)
_SHORT = msgspec.Meta(max_length=SHORT_CHARS)


class Role(StrEnum):
    """What a peer is to the server."""

    CLIENT = "client"
    WORKER = "worker"


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages."""


# --- either side -----------------------------------------------------------------


class Hello(Message, frozen=True, tag=1):
    """First message of a peer: who it is and a challenge to the server."""

    role: Role
    nonce: bytes
    protocol: int = PROTOCOL
    software: str = ""
    key: str = "own"
    """Id of the key that it will prove."""


class Challenge(Message, frozen=True, tag=2):
    """The server proves that it knows the key and asks the peer for the same."""

    nonce: bytes
    proof: bytes


class Proof(Message, frozen=True, tag=3):
    """The peer's proof that it knows the key; the key itself is never sent."""

    proof: bytes


class DenialCode(StrEnum):
    """Why the server refuses a whole connection."""

    KEY = "key"
    EXPIRED = "expired"
    REVOKED = "revoked"
    PROTOCOL = "protocol"
    LIMIT = "limit"
    ROLE = "role"
    SESSION = "session"
    """There is no open session with this ticket."""
    STOPPING = "stopping"


class Denied(Message, frozen=True, tag=4):
    """The server refuses the connection and closes it."""

    code: DenialCode
    message: str


class Attach(Message, frozen=True, tag=5):
    """A client opens its session, or comes back to it after a broken connection."""

    session: bytes
    user: Annotated[str, _SHORT] = ""
    host: Annotated[str, _SHORT] = ""
    pid: int = 0


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease named from outside: a task and the token under which it is held."""

    task: int
    token: int


class Enlist(Message, frozen=True, tag=6):
    """A worker opens its session, or comes back to it and says what it still holds."""

    session: bytes
    name: Annotated[str, _SHORT]
    host: Annotated[str, _SHORT] = ""
    pid: int = 0
    slots: int = 1
    queues: Annotated[
        tuple[Annotated[str, _SHORT], ...], msgspec.Meta(max_length=WORKER_QUEUES)
    ] = ()
    offer: Offer = Offer()
    held: Annotated[tuple[Held, ...], _HELD] = ()
    is_elastic: bool = False
    """Whether the server may ask it to run more slots (an embedded worker)."""
    beside: Annotated[tuple[int, ...], _HELD] = ()
    """Tasks among the held ones that run beside the slots."""


class Welcome(Message, frozen=True, tag=7):
    """The session stands."""

    session: int
    """The server's number of the session, for logs and listings."""
    server: bytes
    """The store's uid: a peer that sees another one talks to another store."""
    software: str = ""
    heartbeat_s: float = HEARTBEAT_S
    lease_s: float = LEASE_S
    max_frame_bytes: int = MAX_FRAME_BYTES
    ticket: bytes = b""
    """What a client shows to branch its session; with each connection another. Empty: it can't."""


class Beat(Message, frozen=True, tag=8):
    """Sent by a peer when it has sent nothing else for a heartbeat; renews its session."""

    number: int = 0


class BeatBack(Message, frozen=True, tag=9):
    """The server's answer to a ``Beat``."""

    number: int = 0


class Goodbye(Message, frozen=True, tag=10):
    """The sender ends the session; nothing of it is to be expected back."""

    reason: str = ""


class Forbidden(Message, frozen=True, tag=11):
    """The server did not do what a message asked for that has no answer of its own.

    The key does not have the role that it takes.
    """

    message: str


class Branch(Message, frozen=True, tag=12):
    """A client makes this connection a branch of its session: for one thread's calls, no more."""

    session: bytes
    ticket: bytes


class Branched(Message, frozen=True, tag=13):
    """The branch stands; it ends with the connection that the session is open on."""

    is_waking_slow: bool | None = None
    """Whether waking a sleeping process takes long on the server's machine, if that is known."""


class RefusalCode(StrEnum):
    """Why a job, tasks or a blob were surely not stored."""

    BAD_REQUEST = "bad_request"
    KEY_CONFLICT = "key_conflict"
    INPUT_CHANGED = "input_changed"
    QUEUE_FULL = "queue_full"
    STORE_FULL = "store_full"
    STOPPING = "stopping"
    ROLE = "role"
    TOO_LARGE = "too_large"
    DAMAGED = "damaged"
    """A blob's bytes are not those of its digest."""


# --- blobs: both roles -----------------------------------------------------------


class FindBlob(Message, frozen=True, tag=20):
    """Peer asks how much of a blob the server has, to send only the rest."""

    digest: bytes
    size_bytes: int


class BlobFound(Message, frozen=True, tag=21):
    """Bytes of the blob that the server has, from its beginning: all of them when stored."""

    digest: bytes
    have_bytes: int


class PutBlob(Message, frozen=True, tag=22):
    """A part of a blob; the last part completes it. Parts come in order."""

    digest: bytes
    size_bytes: int
    offset: int
    data: bytes


class BlobStored(Message, frozen=True, tag=23):
    """The blob is stored durably, its digest verified."""

    digest: bytes


class BlobRefused(Message, frozen=True, tag=24):
    """The blob was not stored, or is not given; the message says why and what to do."""

    digest: bytes
    message: str
    code: RefusalCode = RefusalCode.STORE_FULL


class GetBlob(Message, frozen=True, tag=25):
    """Peer asks for a blob from ``offset`` on; answered by ``BlobPart`` messages."""

    digest: bytes
    offset: int = 0
    length_bytes: int = 0
    """Only so much of it: who writes it to a disk asks for no more than that takes. 0: all."""


class BlobPart(Message, frozen=True, tag=26):
    """A part of a blob from the server. ``size_bytes`` -1: there is no such blob."""

    digest: bytes
    size_bytes: int
    offset: int
    data: bytes


# --- client to server --------------------------------------------------------------


class Open(Message, frozen=True, tag=40):
    """Create a job, or attach to the one with this uid, name or unique key.

    ``taken`` > 0 or a job that existed: the outcomes of all tasks with an index
    from ``taken`` on that have ended are sent again.
    """

    job: int
    uid: bytes
    spec: JobSpec
    taken: int = 0


class Add(Message, frozen=True, tag=41):
    """Tasks for an opened job, at indices ``first``, ``first + 1`` … Idempotent."""

    job: int
    first: int
    payloads: Annotated[list[Payload], _BATCH]
    keys: Annotated[list[str], _BATCH] | None = None
    """Keys for the per-key limits, one a payload."""


class Seal(Message, frozen=True, tag=42):
    """The job has ``total`` tasks and takes no more."""

    job: int
    total: int


class Cancel(Message, frozen=True, tag=43):
    """Cancel tasks of a job; ``indices`` None means all of it."""

    job: int
    indices: Annotated[list[int], _BATCH] | None = None
    only_queued: bool = False
    """Leave running tasks alone."""


class Taken(Message, frozen=True, tag=44):
    """The client has every outcome below ``upto``; a transient job may drop them."""

    job: int
    upto: int


class Close(Message, frozen=True, tag=45):
    """The client is done with the job; a transient job ends with that."""

    job: int


class Resize(Message, frozen=True, tag=46):
    """The client wants an elastic worker to have at least so many slots."""

    slots: int


class Call(Message, frozen=True, tag=47):
    """A taker's request; repeated after a reconnect until it is answered, and done once."""

    taker: int
    """The client's own number of the taker, from 1."""
    number: int
    """Rises with every call of the taker; a later one says that the earlier was answered."""
    act: AnyAct
    wait_s: float | None = None
    """How long the server may wait for what the act waits for; None: as long as it takes."""


class Withdraw(Message, frozen=True, tag=48):
    """Wait no longer: the call is answered at once, as if its time were over."""

    taker: int
    number: int


class EndTaker(Message, frozen=True, tag=49):
    """The taker is no more: what it still holds goes to others."""

    taker: int


class Signal(Message, frozen=True, tag=50):
    """Send a signal to the process of a task of style PROCESS, if it still runs."""

    job: int
    index: int
    number: int


# --- server to client ----------------------------------------------------------------


class Opened(Message, frozen=True, tag=60):
    """The job is stored (or was) and has this number."""

    job: int
    number: int
    is_new: bool
    count: int = 0
    """Tasks it already holds."""
    is_sealed: bool = False
    """Whether it takes no more; a client that did not say so was taken for dead meanwhile."""


class OpenRefused(Message, frozen=True, tag=61):
    """The job was not stored."""

    job: int
    code: RefusalCode
    message: str


class Stored(Message, frozen=True, tag=62):
    """The acknowledgement: ``count`` tasks from ``first`` on are kept."""

    job: int
    first: int
    count: int


class AddRefused(Message, frozen=True, tag=63):
    """None of these tasks was stored."""

    job: int
    first: int
    count: int
    code: RefusalCode
    message: str
    indices: tuple[int, ...] = ()
    """For INPUT_CHANGED: which of them differ from what is kept."""


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The one accepted outcome of a task.

    ``payload`` is the pickled result when ``ending`` is OK, else an encoded
    ``core.outcome.Failure`` (empty when there is nothing more to say).
    """

    index: int
    ending: Ending
    payload: Payload


class Outcomes(Message, frozen=True, tag=64):
    """Outcomes of tasks of one job. May repeat; the client tells by the index."""

    job: int
    outcomes: list[Outcome]


class Started(Message, frozen=True, tag=65):
    """These tasks were leased to a worker."""

    job: int
    indices: list[int]


class Printed(Message, frozen=True, tag=66):
    """What a task wrote. ``stream`` 1 is stdout, 2 stderr."""

    job: int
    index: int
    stream: int
    data: bytes


class Ended(Message, frozen=True, tag=67):
    """The job has ended: sealed, and all tasks in a final state."""

    job: int
    total: int
    succeeded: int
    failed: int
    cancelled: int


class Waiting(Message, frozen=True, tag=68):
    """Why tasks of this job are not being run; empty when they are again."""

    job: int
    message: str


class Answer(Message, frozen=True, tag=69):
    """What became of a call."""

    taker: int
    number: int
    result: AnyResult


class ProcessBegan(Message, frozen=True, tag=70):
    """A task of style PROCESS has its process. May repeat."""

    job: int
    index: int
    pid: int
    """On its host."""
    host: str = ""
    worker: str = ""


# --- server to worker ------------------------------------------------------------------


class JobInfo(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What a worker has to know of a job to run its tasks."""

    number: int
    style: Style
    function: bytes | None = None
    label: str = ""
    timeout_s: float | None = None
    context: Context | None = None
    wants_output: bool = False
    width: int | None = None
    """Slots of this worker that may serve the job's pool at once."""
    pool: str | None = None
    """The pool of limited width that the job belongs to, perhaps with others."""
    ship: tuple[bytes, ...] = ()
    """Archives of code that the tasks import; see JobSpec."""
    mark: bytes | None = None
    """What the submitter has signed it with; see ``wire.seal``."""
    priority: int = 0


class Grant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lease on a task."""

    task: int
    token: int
    payload: Payload
    attempt: int = 1


class Grants(Message, frozen=True, tag=80):
    """Leases for this worker, and the jobs they belong to."""

    jobs: list[JobInfo]
    tasks: list[Grant]


class Settled(Message, frozen=True, tag=81):
    """These outcomes need not be sent again: recorded, or refused as stale."""

    tasks: list[Held]


class Revoked(Message, frozen=True, tag=82):
    """These leases are gone (cancelled, or given to another): stop the tasks."""

    tasks: list[Held]


class SetSlots(Message, frozen=True, tag=83):
    """An elastic worker is to run so many slots."""

    slots: int


class SignalTask(Message, frozen=True, tag=84):
    """Send a signal to the process of a task of style PROCESS."""

    task: int
    token: int
    number: int


class StarterGone(Message, frozen=True, tag=85):
    """Whoever started these processes is gone; they may want to know."""

    tasks: list[Held]


# --- worker to server ------------------------------------------------------------------


class Want(Message, frozen=True, tag=100):
    """Room: leases the worker would take now, replacing what it said before."""

    room: int


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How an attempt under a lease ended."""

    task: int
    token: int
    ending: Ending
    payload: Payload
    run_s: float = 0.0


class Finished(Message, frozen=True, tag=101):
    """Attempts that ended; repeated after a reconnect until settled."""

    attempts: Annotated[list[Attempt], _BATCH]


class GiveBack(Message, frozen=True, tag=102):
    """Leases returned without having been run; no attempt is counted."""

    tasks: Annotated[list[Held], _HELD]


class Output(Message, frozen=True, tag=103):
    """What a task wrote. ``stream`` 1 is stdout, 2 stderr."""

    task: int
    token: int
    stream: int
    data: bytes


class Drain(Message, frozen=True, tag=104):
    """The worker takes no more leases and goes when its tasks are done."""

    reason: str = ""


class Began(Message, frozen=True, tag=105):
    """The process of a task of style PROCESS was started. Repeated after a reconnect."""

    task: int
    token: int
    pid: int


class Child(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A worker's child process that holds a slot."""

    pid: int
    pool: str = ""
    """The context that it serves; empty when it serves whoever comes, or nobody yet."""


class Children(Message, frozen=True, tag=106):
    """A worker's child processes, whenever they have changed; for who looks at pools."""

    children: Annotated[list[Child], _BATCH]


class Installed(Message, frozen=True, tag=107):
    """What a worker has, told once a connection; for who looks why something does not run there."""

    python: str
    """Implementation and version."""
    packages: dict[str, str]
    """Versions by normalized name."""
    seal: str = ""
    """Tells the worker's seal from others; empty: it has none."""


class Stream(IntEnum):
    """Which of a task's output streams."""

    STDOUT = 1
    STDERR = 2


FromPeer = (
    Hello
    | Proof
    | Attach
    | Branch
    | Enlist
    | Beat
    | Goodbye
    | FindBlob
    | PutBlob
    | GetBlob
    | Open
    | Add
    | Seal
    | Cancel
    | Taken
    | Close
    | Resize
    | Call
    | Withdraw
    | EndTaker
    | Signal
    | Want
    | Finished
    | GiveBack
    | Output
    | Drain
    | Began
    | Children
    | Installed
)
"""What a server may receive."""

FromServer = (
    Challenge
    | Denied
    | Welcome
    | Branched
    | BeatBack
    | Goodbye
    | Forbidden
    | BlobFound
    | BlobStored
    | BlobRefused
    | BlobPart
    | Opened
    | OpenRefused
    | Stored
    | AddRefused
    | Outcomes
    | Started
    | Printed
    | Ended
    | Waiting
    | Answer
    | ProcessBegan
    | Grants
    | Settled
    | Revoked
    | SetSlots
    | SignalTask
    | StarterGone
)
"""What a client or worker may receive."""
