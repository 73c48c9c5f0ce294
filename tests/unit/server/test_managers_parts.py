"""The parts of the managers' protocol that decide: frames, the handshake, departures."""

import hmac
import os
import struct
from multiprocessing import connection as standard

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.server.managers.departure import Departures, Leaver
from multihost.server.managers.framing import Framer, FramingError, TooLong, frame
from multihost.server.managers.handshake import CHALLENGE, FAILURE, WELCOME, Handshake


@given(st.lists(st.binary(max_size=300)), st.integers(1, 50))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(messages, step):
    stream = b"".join(map(frame, messages))
    framer = Framer(limit_bytes=300)
    seen = []
    for start in range(0, len(stream), step):
        seen += framer.feed(stream[start : start + step])
    assert seen == messages
    assert not framer.is_within


@pytest.mark.parametrize(
    "head", [b"\x7f\xff\xff\xff", b"\x00\x00\x01\x2d", b"\xff\xff\xff\xfe", b"\xff" * 12]
)
def test_a_message_beyond_the_limit_is_refused_by_its_length_alone(head):
    with pytest.raises(FramingError):
        Framer(limit_bytes=300).feed(head)


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), max_size=8), st.integers(1, 700))
def test_a_message_beyond_the_limit_is_passed_over_and_the_others_come_through(sizes, step):
    stream = b"".join(
        struct.pack("!iQ", -1, size) + b"x" * size if is_long else frame(b"x" * size)
        for size, is_long in sizes
    )
    framer = Framer(limit_bytes=300)
    framer.passes_over = True
    seen, kept = [], 0
    for start in range(0, len(stream), step):
        seen += framer.feed(stream[start : start + step])
        kept = max(kept, len(framer._buffer))
    assert seen == [TooLong(n, 300) if n > 300 else b"x" * n for n, _ in sizes]
    assert not framer.is_within
    assert kept <= 300 + 12


class Pipe:
    """A connection for the standard library's half of the handshake, played in one thread."""

    def __init__(self, server):
        self.server = server
        self.to_client = [server.begin()]

    def recv_bytes(self, limit=None):
        return self.to_client.pop(0)

    def send_bytes(self, data):
        answer = self.server.received(bytes(data))
        if answer is not None:
            self.to_client.append(answer)


def shake(server_keys, client_key):
    server = Handshake(server_keys, os.urandom(40))
    pipe = Pipe(server)
    standard.answer_challenge(pipe, client_key)
    standard.deliver_challenge(pipe, client_key)
    return server


def test_the_standard_librarys_client_is_let_in_by_its_key():
    server = shake({b"abc": 1, b"other": 2}, b"abc")
    assert server.is_done
    assert server.key == b"abc"


def test_a_wrong_key_is_refused():
    with pytest.raises(standard.AuthenticationError):
        shake({b"abc": 1}, b"wrong")


@pytest.mark.parametrize("name", ["md5", "sha256", "sha384", "sha3_256"])
def test_answers_with_a_named_digest_are_taken(name):
    server = Handshake({b"abc": 1}, os.urandom(40))
    challenge = server.begin()[len(CHALLENGE) :]
    mac = hmac.new(b"abc", challenge, name).digest()
    assert server.received(b"{%s}" % name.encode() + mac) == WELCOME


@pytest.mark.parametrize("answer", [b"", b"{sha1}" + b"x" * 20, b"{sha256}", b"x" * 16, WELCOME])
def test_other_answers_are_refused(answer):
    server = Handshake({b"abc": 1}, os.urandom(40))
    server.begin()
    assert server.received(answer) == FAILURE
    assert server.is_refused


def test_a_prefixed_challenge_is_answered_with_its_digest_and_an_old_one_with_bare_md5():
    for challenge in (b"{sha256}" + b"n" * 40, b"n" * 20):
        server = Handshake({b"abc": 1}, os.urandom(40))
        raw = hmac.new(b"abc", server.begin()[len(CHALLENGE) :], "md5").digest()
        assert server.received(raw) == WELCOME
        answer = server.received(CHALLENGE + challenge)
        name = "sha256" if challenge.startswith(b"{") else "md5"
        prefix = b"{sha256}" if challenge.startswith(b"{") else b""
        assert answer == prefix + hmac.new(b"abc", challenge, name).digest()
        assert not server.is_refused


# --- departures -----------------------------------------------------------------------------


def leaver(ends, *, took, put=(), has_begun=False, host="h", at=10.0):
    return Leaver(host, at, frozenset(took), frozenset(put), has_begun, ends.append)


def decide(*leavers, given_up=(), closed_at=10.001, now=20.0):
    departures = Departures()
    for host, ident in given_up:
        departures.gave_up(host, ident, 9.99).closed_at = closed_at
    for each in leavers:
        departures.left(each)
    departures.settle(now)


def test_a_reader_that_hangs_up_as_it_gives_up_its_reference_was_done_with_its_item():
    ends = []
    decide(leaver(ends, took={"r"}), given_up=[("h", "r")], now=10.2)
    assert ends == [True]


def test_a_reader_that_was_killed_was_not():
    ends = []
    decide(leaver(ends, took={"r"}))
    assert ends == [False]


def test_a_worker_that_ends_before_it_puts_was_not_done_even_if_it_gives_up_its_references():
    ends = []
    decide(leaver(ends, took={"t"}), given_up=[("h", "t"), ("h", "r")], now=10.2)
    assert ends == [False]


def test_a_master_that_put_tasks_and_read_results_was_done():
    ends = []
    both = [("h", "t"), ("h", "r")]
    decide(leaver(ends, took={"r"}, put={"t"}, has_begun=True), given_up=both, now=10.2)
    assert ends == [True]


def test_a_goodbye_serves_one_connection():
    ends = []
    twins = [leaver(ends, took={"r"}), leaver(ends, took={"r"})]
    decide(*twins, given_up=[("h", "r")], now=10.2)
    assert ends == [True, False]


def test_references_given_up_elsewhere_or_over_and_done_with_say_nothing():
    ends = []
    decide(leaver(ends, took={"r"}), given_up=[("other", "r")], now=10.2)
    decide(leaver(ends, took={"r"}), given_up=[("h", "r")], closed_at=9.992, now=10.2)
    assert ends == [False, False]


def test_the_reference_that_is_given_up_when_a_proxy_is_made_says_nothing():
    departures = Departures()
    departures.created("h", "r")
    assert departures.gave_up("h", "r", 1.0) is None
    assert departures.gave_up("h", "r", 1.1) is not None


def test_nothing_is_decided_before_others_had_time_to_close():
    ends = []
    decide(leaver(ends, took={"r"}), now=10.01)
    assert ends == []
