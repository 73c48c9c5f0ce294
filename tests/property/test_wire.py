"""Whatever bytes come, the codec yields legal messages or a WireError."""

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.core.job import JobSpec, Style
from multihost.core.outcome import Ending
from multihost.wire import message as m
from multihost.wire.codec import (
    UNCOPIED_BYTES,
    WireError,
    decode_from_peer,
    decode_from_server,
    encode,
    encode_parts,
)

digests = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**63 - 1)
payloads = st.binary(max_size=200) | st.builds(m.Blob, digests, numbers)
held = st.builds(m.Held, numbers, numbers)
from_peer = st.one_of(
    st.builds(m.Hello, st.sampled_from(m.Role), st.binary(max_size=64), st.integers(0, 9)),
    st.builds(m.Add, numbers, numbers, st.lists(payloads, max_size=5), st.none()),
    st.builds(m.Open, numbers, digests, st.builds(JobSpec, st.sampled_from(Style), digests)),
    st.builds(m.Want, numbers),
    st.builds(
        m.Finished,
        st.lists(st.builds(m.Attempt, numbers, numbers, st.sampled_from(Ending), payloads)),
    ),
    st.builds(m.GiveBack, st.lists(held)),
)


@given(st.lists(from_peer, max_size=5))
def test_messages_survive_the_wire(messages):
    assert decode_from_peer(encode(messages)) == messages


@given(st.binary(max_size=500))
def test_random_bytes_are_messages_or_an_error(data):
    for decode in (decode_from_peer, decode_from_server):
        try:
            messages = decode(data)
        except WireError:
            continue
        assert all(isinstance(message, m.Message) for message in messages)


@given(st.lists(from_peer, min_size=1, max_size=3), st.data())
def test_a_mutated_frame_is_messages_or_an_error(messages, data):
    frame = bytearray(encode(messages))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_from_peer(bytes(frame))
    except WireError:
        return
    assert all(isinstance(message, m.Message) for message in decoded)


@given(st.lists(from_peer, min_size=1, max_size=3), st.data())
def test_a_torn_frame_is_an_error(messages, data):
    frame = encode(messages)
    with pytest.raises(WireError):
        decode_from_peer(frame[: data.draw(st.integers(0, len(frame) - 1))])


def test_a_frame_over_the_limit_is_refused_unread():
    with pytest.raises(WireError, match="max_frame_bytes"):
        decode_from_peer(bytes(m.MAX_FRAME_BYTES + 1))


def test_a_million_nested_arrays_are_an_error():
    with pytest.raises(WireError):
        decode_from_peer(b"\x91" * 1_000_000)


def test_a_length_bomb_is_an_error_before_it_is_memory():
    with pytest.raises(WireError):
        decode_from_peer(b"\xdd\xff\xff\xff\xff")


def test_newer_peers_may_append_fields():
    frame = msgspec.msgpack.encode([[100, 5, "a field of tomorrow"]])
    assert decode_from_peer(frame) == [m.Want(5)]


@given(st.lists(st.integers(0, 2 * UNCOPIED_BYTES), min_size=1, max_size=4), st.booleans())
def test_a_frame_in_parts_reads_as_one_that_was_copied_together(sizes, is_peer):
    kind = m.PutBlob if is_peer else m.BlobPart
    decode = decode_from_peer if is_peer else decode_from_server
    messages = [kind(bytes(32), size, 7, os.urandom(size)) for size in sizes]
    parts = encode_parts(messages)
    assert decode(b"".join(parts)) == messages
    assert (messages[-1].data in parts) is (sizes[-1] > UNCOPIED_BYTES)
