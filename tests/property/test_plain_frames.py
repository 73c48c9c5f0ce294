"""The short cut for plain WebSocket frames: what it takes, and what it leaves to the library."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from multihost.runtime.plain import PlainReader, plain_frame

LIMIT_BYTES = 70_000

payloads = st.one_of(
    st.binary(max_size=300),
    st.integers(0, LIMIT_BYTES).map(
        lambda size: bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    ),
)
frames = st.lists(
    st.one_of(
        payloads.map(lambda data: Frame(Opcode.BINARY, data)),
        st.binary(max_size=125).map(lambda data: Frame(Opcode.PING, data)),
        st.binary(max_size=50).map(lambda data: Frame(Opcode.BINARY, data, fin=False)),
        st.just(Frame(Opcode.BINARY, b"y" * (LIMIT_BYTES + 1))),
    ),
    max_size=6,
)


def in_pieces(data, cuts):
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(frames, st.lists(st.integers(0, 200_000), max_size=8), st.booleans())
def test_plain_frames_come_out_and_the_rest_is_left_untouched(frames, cuts, is_masked):
    data = b"".join(bytes(frame.serialize(mask=is_masked)) for frame in frames)
    plain = []
    for frame in frames:
        if frame.opcode is not Opcode.BINARY or not frame.fin or len(frame.data) > LIMIT_BYTES:
            break
        plain.append(bytes(frame.data))
    reader, got, left = PlainReader(is_masked=is_masked, limit_bytes=LIMIT_BYTES), [], b""
    for piece in in_pieces(data, cuts):
        if left:
            left += piece  # the library's from here on
            continue
        came, rest = reader.feed(piece)
        got += [bytes(payload) for payload in came]
        left = bytes(rest)
    taken = len(plain)
    # A header that is torn goes to the library, with all that follows.
    assert got == plain[: len(got)]
    behind = b"".join(bytes(frame.serialize(mask=False)) for frame in frames[len(got) :])
    if is_masked:
        assert len(left) == len(behind) + 4 * len(frames[len(got) :])
    else:
        assert left == behind
    if not cuts:
        assert len(got) == taken


@given(payloads, st.booleans(), st.booleans())
def test_a_written_frame_is_read_back(payload, is_masked, is_nearby):
    data = b"".join(plain_frame(payload, is_masked=is_masked, is_nearby=is_nearby))
    came, rest = PlainReader(is_masked=is_masked, limit_bytes=LIMIT_BYTES).feed(data)
    assert ([bytes(part) for part in came], bytes(rest)) == ([payload], b"")
