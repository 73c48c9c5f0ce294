"""Requests of the standard library's proxies, read without unpickling them.

A request is the pickle of ``(ident, method, args, kwds)``. This walks over its
opcodes with a stack of places instead of objects: names and numbers are read,
everything else stays a stretch of bytes. Nothing is imported, called or built,
so a request can hold what it likes. What is put into a queue is cut out as a
pickle of its own.

The usual ``put(item)`` is recognised by how it begins and ends, without a walk
over the item: whoever makes up one that looks so and is not hands nonsense to
the one who gets it, which anyone who may put can do anyway.
"""

import re
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

MAX_OPCODES = 2_000_000
"""Steps of one walk: bounds how long the server is busy with one request."""
MAX_TEXT_BYTES = 4096
"""Longer strings are not read, since no name is so long."""
MAX_NUMBER_BYTES = 16
MAX_KEPT = 12
"""Entries of the memo that may come before the item: names of the request, and what they name."""
FRAME_TARGET_BYTES = 1 << 16
"""Pickles below this size have at most one frame, at their beginning."""


class UnreadableError(Exception):
    """It is no request, or none that a proxy makes."""


class Opaque:
    """Something that is not looked into; ``state`` is what it was built with."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        """Know nothing of it."""
        self.state: Any = None


class Span(NamedTuple):
    """A value and where in the request it is."""

    value: Any
    start: int
    stop: int


class Kept(NamedTuple):
    """Where in the request something was kept, and the opcodes that pushed it and kept it."""

    at: int
    push: bytes
    keep: bytes


class Request(NamedTuple):
    """A request as far as it was read."""

    ident: Any
    method: Any
    args: tuple[Any, ...]
    kwds: dict[str, Any]
    spans: tuple[Span, ...]
    """Where the positional arguments are."""
    kwd_spans: dict[str, Span]
    raw: bytes
    kept: tuple["Kept", ...]
    """What went into the memo first."""

    def item(self, name: str, *others: str) -> bytes | None:
        """The first argument, or the one with a name, as a pickle of its own."""
        if self.spans:
            return self._cut(self.spans[0])
        for known in (name, *others):
            if known in self.kwd_spans:
                return self._cut(self.kwd_spans[known])
        return None

    def _cut(self, span: Span) -> bytes:
        body = self.raw[span.start : span.stop]
        version = self.raw[1:2] if self.raw[:1] == b"\x80" else b"\x02"
        before = [(kept.push, kept.keep) for kept in self.kept if kept.at < span.start]
        return _as_pickle(version, before, body, len(self.raw) - span.stop)


def _as_pickle(
    version: bytes, head: Iterable[tuple[bytes, bytes]], body: bytes, tail_bytes: int
) -> bytes:
    """Opcodes that push an object, made a pickle.

    What they may refer to in the memo is put there first. Frames within
    promise bytes beyond the object, so that as many follow, without effect.
    """
    parts = [b"\x80", version]
    if any(code in body for code in (b"h", b"j")):
        parts += [push + keep + b"0" for push, keep in head]
    parts.append(body)
    if len(body) >= FRAME_TARGET_BYTES:
        parts.append(b"N0" * ((tail_bytes + 1) // 2))
    parts.append(b".")
    return b"".join(parts)


# --- the usual put ---------------------------------------------------------------------

_NEW_HEAD = re.compile(
    rb"\x80([\x04\x05])\x95.{8}\((\x8c(.)(.{1,255}?))(\x94)(\x8c\x03put)(\x94)", re.DOTALL
)
_NEW_TAIL = b"\x85\x94}\x94t\x94."
_OLD_HEAD = re.compile(
    rb"\x80([\x02\x03])\((X(.)\x00\x00\x00(.{1,255}?))(q\x00)(X\x03\x00\x00\x00put)(q\x01)",
    re.DOTALL,
)
_OLD_TAIL = re.compile(rb"\x85(?:q.|r.{4})\}(?:q.|r.{4})t(?:q.|r.{4})\.\Z", re.DOTALL)


class UsualPut(NamedTuple):
    """A ``put`` of one item without anything else."""

    ident: str
    item: bytes


def read_usual_put(raw: bytes) -> UsualPut | None:
    """The put that a request is, if it is the usual one."""
    if raw.endswith(_NEW_TAIL):
        head, tail_bytes = _NEW_HEAD.match(raw), len(_NEW_TAIL)
    else:
        tail = _OLD_TAIL.search(raw, max(0, len(raw) - 19))
        if tail is None:
            return None
        head, tail_bytes = _OLD_HEAD.match(raw), len(raw) - tail.start()
    if head is None or head[3][0] != len(head[4]):
        return None
    body = raw[head.end() : len(raw) - tail_bytes]
    if not body:
        return None
    memo = ((head[2], head[5]), (head[6], head[7]))
    try:
        ident = head[4].decode()
    except UnicodeDecodeError:
        return None
    return UsualPut(ident, _as_pickle(head[1], memo, body, tail_bytes))


# --- the walk ----------------------------------------------------------------------------


def read_request(raw: bytes) -> Request:
    """Read any request; raises UnreadableError."""
    walk = _Walk(raw)
    try:
        top = walk.run()
    except (IndexError, struct.error, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise UnreadableError(f"it breaks off or is no pickle ({error})") from None
    if not isinstance(top, tuple) or len(top) != 4:  # noqa: PLR2004 - ident, method, args, kwds
        raise UnreadableError("it is not (ident, method, args, kwds)")
    ident, method, args, kwds = (span.value for span in top)
    if not isinstance(args, tuple | list) or not isinstance(kwds, dict):
        raise UnreadableError("its arguments are no tuple and dict")
    spans = tuple(args)
    if not all(isinstance(span, Span) for span in spans):
        raise UnreadableError("its arguments are no tuple")
    named = {str(plain(name)): span for name, span in kwds.items()}
    return Request(
        plain(ident),
        plain(method),
        tuple(plain(span.value) for span in spans),
        {name: plain(span.value) for name, span in named.items()},
        spans,
        named,
        raw,
        tuple(walk.kept),
    )


def plain(value: Any) -> Any:
    """A value without its places."""
    if isinstance(value, tuple | list):
        return tuple(plain(span.value) for span in value)
    return value


class _Mark:
    """A place on the stack that the containers after it end at."""


_MARK = _Mark()


class _Walk:
    """One walk over a pickle: a stack of (value, start), and what the memo got when."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.position = 0
        self.start = 0
        self.stack: list[tuple[Any, int]] = []
        self.memo: dict[int, tuple[Any, int]] = {}
        self.kept: list[Kept] = []

    def run(self) -> Any:
        raw, codes = self.raw, _CODES
        for _ in range(MAX_OPCODES):
            self.start = self.position
            code = raw[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack[-1][0]
            step = codes[code]
            if step is None:
                raise UnreadableError(f"opcode {code:#x} is none that a proxy's request has")
            step(self)
        raise UnreadableError(f"it has more than {MAX_OPCODES} opcodes")

    # reading ----------------------------------------------------------------------------

    def take(self, size_bytes: int) -> bytes:
        data = self.raw[self.position : self.position + size_bytes]
        if len(data) != size_bytes:
            raise UnreadableError("it breaks off")
        self.position += size_bytes
        return data

    def number(self, size_bytes: int) -> int:
        return int.from_bytes(self.take(size_bytes), "little")

    def line(self) -> None:
        self.position = self.raw.index(b"\n", self.position) + 1

    def skip(self, size_bytes: int) -> None:
        if self.position + size_bytes > len(self.raw):
            raise UnreadableError("it breaks off")
        self.position += size_bytes

    # the stack ----------------------------------------------------------------------------

    def push(self, value: Any, start: int | None = None) -> None:
        self.stack.append((value, self.start if start is None else start))

    def fold(self, count: int) -> None:
        """Replace some by one that is not looked into."""
        start = self.stack[-count][1]
        del self.stack[-count:]
        self.push(Opaque(), start)

    def drop(self, count: int) -> None:
        if len(self.stack) <= count:
            raise UnreadableError("its stack runs dry")
        del self.stack[-count:]

    def since_mark(self) -> tuple[tuple[Span, ...], int]:
        """What is above the last mark, and where the mark is; takes them off."""
        place = len(self.stack) - 1
        while self.stack[place][0] is not _MARK:
            place -= 1
            if place < 0:
                raise UnreadableError("a mark is missing")
        spans = self.spans(place + 1)
        start = self.stack[place][1]
        del self.stack[place:]
        return spans, start

    def spans(self, first: int) -> tuple[Span, ...]:
        """The values from a place of the stack on, each up to where the next begins."""
        above = self.stack[first:]
        if not above:
            return ()  # the last of several batches, when all of them are full
        stops = [start for _, start in above[1:]] + [self.start]
        return tuple(
            Span(value, start, stop) for (value, start), stop in zip(above, stops, strict=True)
        )

    def keep(self, index: int) -> None:
        value, start = self.stack[-1]
        self.memo[index] = (value, start)
        if len(self.kept) < MAX_KEPT:
            push = self.raw[start : self.start]
            self.kept.append(Kept(self.start, push, self.raw[self.start : self.position]))

    # containers ---------------------------------------------------------------------------

    def tuple_of(self, count: int) -> None:
        first = len(self.stack) - count
        if first < 0:
            raise UnreadableError("its stack runs dry")
        spans = self.spans(first)
        start = spans[0].start
        del self.stack[first:]
        self.push(spans, start)

    def set_items(self, spans: tuple[Span, ...]) -> None:
        target = self.stack[-1][0]
        if isinstance(target, dict):
            for name, value in zip(spans[::2], spans[1::2], strict=True):
                if isinstance(name.value, str):
                    target[name.value] = value


_Step = Callable[[_Walk], None]
_STOP = ord(".")


def _text(walk: _Walk, size_bytes: int) -> None:
    if size_bytes > MAX_TEXT_BYTES:
        walk.skip(size_bytes)
        walk.push(Opaque())
    else:
        walk.push(walk.take(size_bytes).decode("utf-8", "surrogatepass"))


def _opaque(walk: _Walk, size_bytes: int) -> None:
    walk.skip(size_bytes)
    walk.push(Opaque())


def _long(walk: _Walk, size_bytes: int) -> None:
    if size_bytes > MAX_NUMBER_BYTES:
        _opaque(walk, size_bytes)
    else:
        walk.push(int.from_bytes(walk.take(size_bytes), "little", signed=True))


def _marked_tuple(walk: _Walk) -> None:
    spans, start = walk.since_mark()
    walk.push(spans, start)


def _marked_opaque(walk: _Walk) -> None:
    _, start = walk.since_mark()
    walk.push(Opaque(), start)


def _set_item(walk: _Walk) -> None:
    spans = walk.spans(len(walk.stack) - 2)
    walk.drop(2)
    walk.set_items(spans)


def _set_items(walk: _Walk) -> None:
    spans, _ = walk.since_mark()
    walk.set_items(spans)


def _build(walk: _Walk) -> None:
    state = walk.stack[-1][0]
    walk.drop(1)
    target = walk.stack[-1][0]
    if isinstance(target, Opaque):
        target.state = plain(state)


def _get(walk: _Walk, index: int) -> None:
    walk.push(walk.memo[index][0])


def _global(walk: _Walk) -> None:
    walk.line()
    walk.line()
    walk.push(Opaque())


def _float(walk: _Walk) -> None:
    walk.push(struct.unpack(">d", walk.take(8))[0])


_STEPS: dict[bytes, _Step] = {
    b"\x80": lambda walk: walk.skip(1),
    b"\x95": lambda walk: walk.skip(8),
    b"N": lambda walk: walk.push(None),
    b"\x88": lambda walk: walk.push(True),
    b"\x89": lambda walk: walk.push(False),
    b"K": lambda walk: walk.push(walk.number(1)),
    b"M": lambda walk: walk.push(walk.number(2)),
    b"J": lambda walk: walk.push(int.from_bytes(walk.take(4), "little", signed=True)),
    b"\x8a": lambda walk: _long(walk, walk.number(1)),
    b"\x8b": lambda walk: _long(walk, walk.number(4)),
    b"G": _float,
    b"X": lambda walk: _text(walk, walk.number(4)),
    b"\x8c": lambda walk: _text(walk, walk.number(1)),
    b"\x8d": lambda walk: _text(walk, walk.number(8)),
    b"C": lambda walk: _opaque(walk, walk.number(1)),
    b"B": lambda walk: _opaque(walk, walk.number(4)),
    b"\x8e": lambda walk: _opaque(walk, walk.number(8)),
    b"\x96": lambda walk: _opaque(walk, walk.number(8)),
    b"U": lambda walk: _opaque(walk, walk.number(1)),
    b"T": lambda walk: _opaque(walk, walk.number(4)),
    b"\x82": lambda walk: _opaque(walk, 1),
    b"\x83": lambda walk: _opaque(walk, 2),
    b"\x84": lambda walk: _opaque(walk, 4),
    b"(": lambda walk: walk.push(_MARK),
    b"0": lambda walk: walk.drop(1),
    b"2": lambda walk: walk.push(walk.stack[-1][0]),
    b"R": lambda walk: walk.fold(2),
    b"\x81": lambda walk: walk.fold(2),
    b"\x92": lambda walk: walk.fold(3),
    b"\x93": lambda walk: walk.fold(2),
    b"c": _global,
    b"b": _build,
    b"]": lambda walk: walk.push(Opaque()),
    b"}": lambda walk: walk.push({}),
    b")": lambda walk: walk.push(()),
    b"\x8f": lambda walk: walk.push(Opaque()),
    b"a": lambda walk: walk.drop(1),
    b"e": lambda walk: _void(walk.since_mark()),
    b"\x90": lambda walk: _void(walk.since_mark()),
    b"\x91": _marked_opaque,
    b"l": _marked_opaque,
    b"d": _marked_opaque,
    b"t": _marked_tuple,
    b"\x85": lambda walk: walk.tuple_of(1),
    b"\x86": lambda walk: walk.tuple_of(2),
    b"\x87": lambda walk: walk.tuple_of(3),
    b"s": _set_item,
    b"u": _set_items,
    b"\x94": lambda walk: walk.keep(len(walk.memo)),
    b"q": lambda walk: walk.keep(walk.number(1)),
    b"r": lambda walk: walk.keep(walk.number(4)),
    b"h": lambda walk: _get(walk, walk.number(1)),
    b"j": lambda walk: _get(walk, walk.number(4)),
}
"""What each opcode of protocols 2 to 5 does to the stack; those of older ones no proxy sends."""


def _void(_: object) -> None:
    """Do nothing with a result."""


_CODES: list[_Step | None] = [_STEPS.get(bytes([code])) for code in range(256)]
