"""A map over any number of inputs in constant memory.

Inputs are pulled lazily, in the consumer's own thread, as long as fewer than
``window`` tasks are under way or waiting to be taken; so neither a slow
consumer nor endless input fills any memory. What differs between blocking and
asyncio is only how one waits.
"""

import shlex
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from multihost.client.arrivals import Arrivals
from multihost.client.outcomes import Decoded, Raw, for_iteration
from multihost.client.packing import Bulk, as_payload, pack_call, pack_items
from multihost.client.stream import Stream
from multihost.core.job import JobSpec, Style
from multihost.errors import InputChanged, PayloadError, Refused

WINDOW = 10_000
"""Tasks of a map that are under way or not yet taken."""
WINDOW_BYTES = 64 << 20
"""Bytes of their inputs."""
COUNTED_BYTES = 1 << 10
"""Smaller inputs are not counted in bytes: the window bounds them."""
PULLS = 2
"""Inputs pulled for each result handed out, so that a window fills while results flow."""


class MapRun:
    """The input side of one map: what to pull, when, and as which payload.

    Invariant: at most ``window`` positions are submitted and not taken.
    """

    def __init__(
        self,
        stream: Stream,
        arrivals: Arrivals,
        inputs: Iterator[tuple[Any, ...]],
        window: int,
        chunksize: int,
        *,
        returns_errors: bool = False,
    ) -> None:
        """Feed ``stream`` from ``inputs`` (tuples of arguments); outcomes go to ``arrivals``.

        ``returns_errors``: an input's error is its result.
        """
        if returns_errors and chunksize > 1:
            message = (
                "return_exceptions needs chunksize=1: of a chunk whose call fails nothing is left "
                f"but the error, and {chunksize} inputs would share it"
            )
            raise ValueError(message)
        self.returns_errors = returns_errors
        if window < 1 or chunksize < 1:
            message = f"window and chunksize have to be at least 1, not {window} and {chunksize}"
            raise ValueError(message)
        self.stream = stream
        self.arrivals = arrivals
        self._inputs = inputs
        self._window = max(1, window // chunksize)
        self._chunksize = chunksize
        self._pulled: list[tuple[Any, ...]] = []
        """Inputs that are to be submitted."""
        self._submitted = 0
        self._appended = 0
        """Tasks that they became; an input that can't be pickled is none."""
        self._items = 0
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._is_finished = False

    def fill(self) -> None:
        """Submit more inputs: until a result is ready, the window is full, or none is left.

        What the input raises, and an input that can't be pickled, takes the place
        of that input's result.
        """
        arrivals = self.arrivals
        pulls = 0
        while not self._is_finished and self._has_room():
            if arrivals.is_ready and pulls >= PULLS:
                return
            pulls += 1
            pulled = self._pulled
            try:
                pulled.extend(islice(self._inputs, self._chunksize - len(pulled)))
            except Exception as error:  # the user's iterable; raised in its place
                if pulled:
                    self._submit()
                self._put_error(error)
                self._finish(is_complete=False)
                return
            if not pulled:
                self._finish()
                return
            self._submit()

    def _submit(self) -> None:
        """Submit what was pulled; of whoever is interrupted it is done the next time, once."""
        items = self._pulled
        count, position, stream = len(items), self._submitted, self.stream
        try:
            payload = as_payload(self._pack(items))
        except Exception as error:  # raised in the input's place
            self._put_error(error)
            self._items += count
            self._pulled = []
            return
        try:
            stream.append(payload, self.arrivals, position)
        except BaseException:
            if stream.appended > self._appended:
                self._note_submitted(count)
            raise
        # As below, but without a call: a signal's handler may raise in one.
        self._pulled = []
        self._appended += 1
        self._submitted += 1
        self._items += count
        self._account(position, payload)

    def _note_submitted(self, count: int) -> None:
        self._pulled = []
        self._appended += 1
        self._submitted += 1
        self._items += count

    def _put_error(self, error: Exception) -> None:
        position = self._submitted
        self.stream.session.post(lambda: self.arrivals.refuse(position, error))
        self._submitted += 1

    def _pack(self, items: list[Any]) -> bytes:
        spec = self.stream.spec
        if spec.style is Style.CALL:
            return pack_call(items[0], {}, spec.label).data
        if spec.style is Style.MAP:
            items = [item for (item,) in items]
        return pack_items(items, self._items, spec.label).data

    def _has_room(self) -> bool:
        if self._sizes and self._submitted - self.arrivals.arrived < len(self._sizes):
            self._settle_sizes()
        return (
            self._submitted - self.arrivals.taken < self._window and self._bytes < WINDOW_BYTES
        ) or self._submitted == self.arrivals.taken

    def _account(self, position: int, payload: bytes | Bulk) -> None:
        size_bytes = len(payload) if isinstance(payload, bytes) else payload.blob.size_bytes
        if size_bytes >= COUNTED_BYTES:
            self._sizes[position] = size_bytes
            self._bytes += size_bytes

    def _settle_sizes(self) -> None:
        """Forget the oldest sizes, one for each input that is no longer under way."""
        excess = len(self._sizes) - (self._submitted - self.arrivals.arrived)
        for position in list(islice(self._sizes, excess)):
            self._bytes -= self._sizes.pop(position)

    def _finish(self, *, is_complete: bool = True) -> None:
        """All inputs are submitted, or if it is not complete all that will be."""
        total = self._submitted
        stream = self.stream

        def seal() -> None:
            kept = stream.earlier.count if stream.earlier is not None else 0
            if not is_complete:  # when the map is run again there may be more
                self.arrivals.end(total)
            elif kept > total:
                error = InputChanged(
                    f"job {stream.spec.name!r}: an earlier run had {kept} inputs or more, "
                    f"this one has {total}; use another name to start afresh",
                    (total,),
                )
                self.arrivals.length = total + 1
                self.arrivals.refuse(total, error)
            else:
                stream.seal()
                self.arrivals.end(total)

        if stream.spec.name is None:
            stream.session.post(seal)
        else:
            stream.session.post(lambda: stream.when_opened(seal))
        self._is_finished = True


def returned(error: Any, item: Raw | Decoded, run: MapRun) -> Any:
    """The error of an input, in its place; raises it, unless the map returns such."""
    error = noted(error, run.stream.spec)
    # What the server or the iterable of inputs says is of no single input.
    if run.returns_errors and (isinstance(item, Raw) or isinstance(error, PayloadError)):
        return error
    raise for_iteration(error)


def noted(error: BaseException, spec: JobSpec) -> BaseException:
    """The error of a map's task; of a lasting map, with how to have it run again."""
    name = spec.name
    if name is not None and isinstance(error, Exception) and not isinstance(error, Refused):
        note = (
            f"multihost: job {name!r} keeps this outcome for whoever runs the map again; to have "
            f"what failed or was cancelled run anew: multihost retry {shlex.quote(name)}"
        )
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    return error


def tuples(iterables: Iterable[Iterable[Any]]) -> Iterator[tuple[Any, ...]]:
    """Arguments call by call, as ``map`` pairs them."""
    return zip(*iterables, strict=False)


def style_for(chunksize: int, width: int) -> Style:
    """How a map's tasks are packed: one call each, or chunks of calls with ``width`` arguments."""
    if chunksize == 1:
        return Style.CALL
    return Style.MAP if width == 1 else Style.STARMAP
