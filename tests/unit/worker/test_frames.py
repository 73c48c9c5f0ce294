"""Frames on the pipes, whole and torn."""

import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from multihost.worker import frames

numbers = st.integers(0, 2**64 - 1)
small = st.integers(0, 255)
frame = st.tuples(small, small, numbers, numbers, st.binary(max_size=300))


def packed(kind, detail, first, second, payload):
    return frames.pack(kind, first, second, payload, detail)


def taken(buffer, data):
    return [
        (kind, detail, first, second, payload)
        for kind, detail, first, second, _, payload in buffer.feed(data)
    ]


@given(st.lists(frame, max_size=12), st.lists(st.integers(1, 200), max_size=60))
def test_frames_arrive_whole_and_in_order_however_the_pipe_tears_them(sent, sizes):
    data = b"".join(packed(*one) for one in sent)
    buffer = frames.FrameBuffer()
    got = []
    for size in sizes:
        got += taken(buffer, data[:size])
        data = data[size:]
    got += taken(buffer, data)
    assert got == sent


@given(frame, st.data())
def test_nothing_is_yielded_before_the_last_byte(one, data):
    whole = packed(*one)
    cut = data.draw(st.integers(0, len(whole) - 1))
    buffer = frames.FrameBuffer()
    assert taken(buffer, whole[:cut]) == []
    assert taken(buffer, whole[cut:]) == [one]


@given(
    st.tuples(numbers, numbers),
    st.sampled_from(frames.STYLES),
    st.binary(min_size=32, max_size=32),
    st.tuples(st.binary(max_size=100), st.binary(max_size=100)),
    st.integers(-1000, 1000),
)
def test_a_task_comes_out_as_it_was_put_in(lease, style, digest, contents, priority):
    function, payload = contents
    parts = frames.task_parts(lease, style, digest, function, payload, priority=priority)
    ((kind, detail, *got_lease, told, body),) = frames.FrameBuffer().feed(b"".join(parts))
    assert (kind, frames.STYLES[detail], tuple(got_lease)) == (frames.TASK, style, lease)
    assert told == priority
    got_digest, size = frames.TASK_HEAD.unpack_from(body)
    rest = body[frames.TASK_HEAD.size :]
    assert (got_digest, rest[:size], rest[size:]) == (digest, function, payload)


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 1000))
def test_what_is_left_after_a_short_write_is_exactly_the_rest(parts, written):
    whole = b"".join(parts)
    written = min(written, len(whole))
    assert b"".join(frames.unwritten(list(parts), written)) == whole[written:]


def test_more_than_a_pipe_holds_is_written_completely():
    reading, writing = os.pipe()
    sent = [os.urandom(300_000), b"", os.urandom(1)]
    got = bytearray()

    def read():
        while data := os.read(reading, 1 << 16):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    frames.write_all(writing, list(sent))
    os.close(writing)
    reader.join(20)
    os.close(reading)
    assert got == b"".join(sent)
