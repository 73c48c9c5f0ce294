"""Functions to streams: one open job for each function and style.

Pool, Executor and the clients submit through this. A function is pickled once
and its job stays open, so that a further call costs a pickle of its arguments
and little more; jobs that have been idle longest are closed when there are many.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from multihost.client.arguments import text
from multihost.client.fingerprint import fingerprint
from multihost.client.packing import PYTHON, Bulk, Function, is_reusable, pack_function
from multihost.client.stream import Stream
from multihost.core.digest import digest_of
from multihost.core.job import MAX_NAME_CHARS, MAX_PRIORITY, JobSpec, Style
from multihost.runtime.waiting import nested_priority
from multihost.wire.message import Blob

if TYPE_CHECKING:
    from multihost.client.session import Session

MAX_OPEN = 64
"""Jobs that are kept open for further calls; beyond that idle ones are closed."""
MAX_FUNCTIONS = 256
"""Functions whose pickles are remembered."""


class _Key(NamedTuple):
    digest: bytes
    style: Style
    python: str | None


class Submitter:
    """Streams of one pool, executor or client, all with the same options."""

    def __init__(
        self,
        session: "Session",
        options: JobSpec,
        blobs: Sequence[Bulk] = (),
        *,
        is_watched: bool = False,
    ) -> None:
        """Open jobs like ``options``, which refer to ``blobs``.

        When ``options.name`` is set the jobs are lasting, and are named after it
        and their function.
        """
        self.session = session
        self._options = options
        self._blobs = tuple(blobs)
        self._is_watched = is_watched
        self._lock = threading.Lock()
        self._functions: OrderedDict[Callable[..., Any], Function] = OrderedDict()
        self._streams: OrderedDict[_Key, Stream] = OrderedDict()
        self._quick: dict[tuple[Any, Style], Stream] = {}
        context = options.context
        self._shares_globals = context is not None and context.initializer is not None

    def stream(
        self, function: Callable[..., Any], style: Style, *, is_bound: bool = False
    ) -> Stream:
        """The open job for a function; raises PayloadError if it can't be pickled.

        ``is_bound``: the payload holds code of this version of Python.
        """
        if not is_bound and is_reusable(function):
            stream = self._quick.get((function, style))
            if stream is not None and stream.failure is None:
                return stream
        packed = self.pack(function)
        python = PYTHON if is_bound else packed.python
        with self._lock:
            key = _Key(packed.digest, style, python)
            stream = self._streams.get(key)
            if stream is not None and stream.failure is not None:
                self.session.post(stream.close)
                stream = None
            if stream is None:
                name = self._job_name(packed.label, style)
                stream = self._new(
                    function, packed, style, python, name, is_watched=self._is_watched
                )
                self._streams[key] = stream
                self._close_idle()
            else:
                self._streams.move_to_end(key)
            if not is_bound and is_reusable(function):
                self._quick[function, style] = stream
        return stream

    def own_stream(
        self,
        function: Callable[..., Any],
        style: Style,
        *,
        name: str | None = None,
        is_watched: bool = False,
    ) -> Stream:
        """A job for this one purpose; lasting when it has a name or a unique key."""
        if name is not None:
            text("name", name)
        packed = self.pack(function)
        return self._new(function, packed, style, packed.python, name, is_watched=is_watched)

    def call_stream(self, function: Callable[..., Any], *, is_bound: bool) -> Stream:
        """The job for one call; one with a unique key is a job of its own."""
        if self._options.unique_key is None:
            return self.stream(function, Style.CALL, is_bound=is_bound)
        return self.own_stream(function, Style.CALL, is_watched=True)

    def called(self, stream: Stream) -> None:
        """The call was appended to what ``call_stream`` gave."""
        if self._options.unique_key is not None:
            self.session.post(stream.end_after_one)

    def pack(self, function: Callable[..., Any]) -> Function:
        """A function's pickle, remembered if it can't change."""
        if not is_reusable(function):
            return pack_function(function, shares_globals=self._shares_globals)
        with self._lock:
            packed = self._functions.get(function)
        if packed is None:
            packed = pack_function(function, shares_globals=self._shares_globals)
            with self._lock:
                self._functions[function] = packed
                if len(self._functions) > MAX_FUNCTIONS:
                    old, _ = self._functions.popitem(last=False)
                    self._forget_quick(lambda key, _: key[0] is old)
        return packed

    def streams(self) -> list[Stream]:
        """Every open job."""
        with self._lock:
            return list(self._streams.values())

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call ``then`` on the loop's thread when every task submitted so far has ended."""
        streams = self.streams()

        def wait_next() -> None:
            if streams:
                streams.pop().when_idle(wait_next)
            else:
                then()

        self.session.post(wait_next)

    def close(self, reason: str, *, is_sealing: bool = False) -> None:
        """Be done with every job; what is unfinished of transient ones is cancelled.

        ``is_sealing``: lasting jobs are complete as they are.
        """
        with self._lock:
            streams = list(self._streams.values())
            self._streams.clear()
            self._quick.clear()

        def run() -> None:
            for stream in streams:
                if is_sealing:
                    stream.seal()
                stream.close(reason)

        if streams:
            self.session.post(run)

    def _new(
        self,
        function: Callable[..., Any],
        packed: Function,
        style: Style,
        python: str | None,
        name: str | None,
        *,
        is_watched: bool,
    ) -> Stream:
        options = self._options
        requires = options.requires
        is_transient = name is None and options.unique_key is None
        if python is not None:
            requires = msgspec.structs.replace(requires, python=python)
        spec = msgspec.structs.replace(
            options,
            style=style,
            function=packed.digest,
            label=options.label or packed.label,
            priority=options.priority or min(nested_priority(), MAX_PRIORITY),
            requires=requires,
            name=name,
            is_transient=is_transient,
            fingerprint=None if is_transient else fingerprint(function),
        )
        code = Bulk(Blob(packed.digest, len(packed.data)), packed.data)
        return Stream(self.session, spec, (*self._blobs, code), is_watched=is_watched)

    def _job_name(self, label: str, style: Style) -> str | None:
        if self._options.name is None:
            return None
        name = f"{self._options.name}:{label}:{style.value}"
        if len(name) > MAX_NAME_CHARS:
            mark = digest_of(name.encode()).hex()[:16]
            name = f"{name[: MAX_NAME_CHARS - 17]}~{mark}"
        return name

    def _close_idle(self) -> None:
        """Close the jobs idle longest; called with the lock held."""
        if len(self._streams) <= MAX_OPEN or self._options.name is not None:
            return
        for key in list(self._streams):
            stream = self._streams[key]
            if len(self._streams) <= MAX_OPEN // 2:
                return
            if not stream.unfinished:
                del self._streams[key]
                self._forget_quick(lambda _, kept, gone=stream: kept is gone)  # type: ignore[misc]
                self.session.post(stream.close_when_idle)

    def _forget_quick(self, is_gone: Callable[[tuple[Any, Style], Stream], bool]) -> None:
        for key in [key for key, stream in self._quick.items() if is_gone(key, stream)]:
            del self._quick[key]
