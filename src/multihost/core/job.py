"""What a job is: everything its tasks share, said once.

A task's own row holds only what differs from its neighbours (its payload, its
state); a million tasks of one ``map`` share one ``JobSpec``.
"""

from enum import StrEnum

import msgspec

from multihost.core.resources import Requirement
from multihost.core.retry import Backoff, Limits

DEFAULT_QUEUE = "default"
DAY_S = 86_400.0
MAX_NAME_CHARS = 200
MAX_LABEL_CHARS = 1_000
"""Of what people see; a longer command line is cut."""
MAX_AFTER = 1_000
"""Jobs that one may wait for."""
MAX_SHIPPED = 100
"""Archives of code that a job may ship."""
MAX_MARK_BYTES = 64
MAX_NUMBER = 1e12
"""Largest duration or limit (30,000 years, if it is one of seconds); infinity is no number."""
MIN_PRIORITY, MAX_PRIORITY = -1000, 1000


class Style(StrEnum):
    """How a worker applies a job's function to a task's payload."""

    CALL = "call"
    """Payload is ``(args, kwargs)``; the result is ``f(*args, **kwargs)``."""
    MAP = "map"
    """Payload is a list of items; the result is ``[f(x) for x in items]``."""
    STARMAP = "starmap"
    """Payload is a list of tuples; the result is ``[f(*x) for x in items]``."""
    COMMAND = "command"
    """Payload is a msgpack map ``{argv, env, cwd, stdin}``; the result is the exit code."""
    PROCESS = "process"
    """Payload is a pickled ``Process``; the task is the life of an operating-system process."""


_WITHOUT_FUNCTION = frozenset({Style.COMMAND, Style.PROCESS})


class Context(msgspec.Struct, frozen=True):
    """A pool's own child processes: who shares them, how many, how they begin and end.

    A child that served one context is never used for another.
    """

    uid: str
    initializer: bytes | None = None
    """Hash of the blob with the pickled ``(function, args)`` run once in each child."""
    max_tasks: int | None = None
    """Tasks after which a child is replaced."""
    name: str = ""
    """Prefix of the children's process name."""


class JobSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a user asks for in one act of submitting.

    All durations are in seconds. Instants don't occur: a client says "in 10 s",
    the server's clock decides when that is.
    """

    style: Style = Style.CALL
    function: bytes | None = None
    """Hash of the blob with the pickled function."""
    label: str = ""
    """What people see: the function's qualified name or the command line."""
    name: str | None = None
    """Unique among the named; submitting it again attaches to the first. It outlives its client."""
    unique_key: str | None = None
    """A second submit with the same key attaches to the first, while the record lives."""
    fingerprint: bytes | None = None
    """Digest of the function's code: told apart when a name or key is used again."""
    user: str = ""
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    """Larger goes first."""
    delay_s: float = 0.0
    """Not before so many seconds after the submit."""
    timeout_s: float | None = None
    """Run time a single attempt may take."""
    ttl_s: float | None = None
    """A task that waited so long without starting ends as failed (expired)."""
    limits: Limits = Limits()
    backoff: Backoff = Backoff()
    key_limit: int | None = None
    """Tasks of one key that may run at the same time."""
    key_delay_s: float = 0.0
    """Least time between two starts of tasks with one key."""
    requires: Requirement = Requirement()
    width: int | None = None
    """Slots, over all workers, that may serve the job's context at once."""
    context: Context | None = None
    after: tuple[int, ...] = ()
    """Jobs that have to succeed first."""
    is_transient: bool = False
    """Lives with its client: cancelled when that is gone, results dropped once taken."""
    wants_starts: bool = False
    """The client is told when a task starts, too."""
    wants_output: bool = False
    """The client is sent what the tasks print, as they print it."""
    retention_s: float = 7 * DAY_S
    """How long an ended job and its results stay."""
    ship: tuple[bytes, ...] = ()
    """Digests of the archives of code that its tasks import, the first of them first."""
    mark: bytes | None = None
    """By which workers know that a submitter with their seal has made it; see ``wire.seal``."""


def blobs_of(spec: JobSpec) -> list[bytes]:
    """Digests of the blobs that a job itself refers to."""
    initializer = None if spec.context is None else spec.context.initializer
    own = [digest for digest in (spec.function, initializer) if digest is not None]
    return [*own, *spec.ship]


_PARTS = {"after": "jobs", "ship": "archives", "mark": "bytes"}


class JobSpecError(ValueError):
    """A job's options contradict a limit; the message names both."""


def check(spec: JobSpec) -> None:
    """Raise JobSpecError for the first option that no server accepts."""
    context = spec.context or Context("context")
    for what, text, least, most in (
        ("name", spec.name, 1, MAX_NAME_CHARS),
        ("queue", spec.queue, 1, MAX_NAME_CHARS),
        ("unique_key", spec.unique_key, 1, MAX_NAME_CHARS),
        ("user", spec.user, 0, MAX_NAME_CHARS),
        ("label", spec.label, 0, MAX_LABEL_CHARS),
        ("context.uid", context.uid, 1, MAX_NAME_CHARS),
        ("context.name", context.name, 0, MAX_NAME_CHARS),
    ):
        if text is not None and not least <= len(text) <= most:
            message = f"{what} has {len(text)} characters; {least} to {most} are allowed"
            raise JobSpecError(message)
    for what, count, most in (
        ("after", len(spec.after), MAX_AFTER),
        ("ship", len(spec.ship), MAX_SHIPPED),
        ("mark", len(spec.mark or b""), MAX_MARK_BYTES),
    ):
        if count > most:
            message = f"{what} has {count} {_PARTS[what]}; {most} are allowed"
            raise JobSpecError(message)
    if not MIN_PRIORITY <= spec.priority <= MAX_PRIORITY:
        message = f"priority {spec.priority} is not within {MIN_PRIORITY} to {MAX_PRIORITY}"
        raise JobSpecError(message)
    for what, number, least in (
        ("limits.max_attempts", spec.limits.max_attempts, 1),
        ("limits.max_crashes", spec.limits.max_crashes, 1),
        ("limits.max_losses", spec.limits.max_losses, 1),
        ("key_limit", spec.key_limit, 1),
        ("width", spec.width, 1),
        ("timeout_s", spec.timeout_s, 0),
        ("ttl_s", spec.ttl_s, 0),
        ("delay_s", spec.delay_s, 0),
        ("key_delay_s", spec.key_delay_s, 0),
        ("retention_s", spec.retention_s, 0),
        ("backoff.first_s", spec.backoff.first_s, 0),
        ("backoff.factor", spec.backoff.factor, 0),
        ("backoff.max_s", spec.backoff.max_s, 0),
        ("backoff.jitter", spec.backoff.jitter, 0),
    ):
        # Written so that a NaN, which is neither, is refused as well.
        if number is not None and not least <= number <= MAX_NUMBER:
            message = f"{what} is {number}; it has to be {least} to {MAX_NUMBER:g}"
            raise JobSpecError(message)
    if spec.backoff.jitter > 1:
        message = f"backoff.jitter is {spec.backoff.jitter}; it has to be 0 to 1"
        raise JobSpecError(message)
    if spec.style not in _WITHOUT_FUNCTION and spec.function is None:
        message = f"a job of style {spec.style.value!r} needs a function"
        raise JobSpecError(message)
