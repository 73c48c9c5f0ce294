"""Requests are read without unpickling, and what is put is cut out whole."""

import io
import os
import pickle
import pickletools
import struct
from multiprocessing.managers import Token
from multiprocessing.reduction import ForkingPickler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.server.managers.reading import UnreadableError, read_request, read_usual_put
from multihost.server.managers.requests import read_answer
from multihost.server.managers.writing import returned, returned_item


class Canary:
    """Unpickling it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


simple = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()
)
anything = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.sampled_from(["put", "q:a", "item"]),
    ),
    max_leaves=12,
)


def request(*parts, protocol=4):
    return pickle.dumps(parts, protocol)


@given(anything, st.sampled_from([2, 3, 4, 5]))
def test_an_item_is_cut_out_of_a_put_as_it_was(item, protocol):
    raw = request("q:a", "put", (item,), {}, protocol=protocol)
    walked = read_request(raw)
    assert pickle.loads(walked.item("item")) == item
    usual = read_usual_put(raw)
    if usual is not None:
        assert usual.ident == "q:a"
        assert pickle.loads(usual.item) == item
    assert pickle.loads(returned_item(walked.item("item"))) == ("#RETURN", item)


@given(anything, st.sampled_from([2, 3, 4, 5]))
def test_an_item_given_by_name_after_others_is_cut_out_too(item, protocol):
    raw = request("q:a", "put", (), {"timeout": 2.5, "obj": item}, protocol=protocol)
    walked = read_request(raw)
    assert walked.kwds["timeout"] == 2.5
    assert pickle.loads(walked.item("item", "obj")) == item


@pytest.mark.parametrize("protocol", [3, 4])
def test_the_usual_put_is_recognised_without_a_walk(protocol):
    raw = request("q:a", "put", ([1, 2, "put"],), {}, protocol=protocol)
    assert pickle.loads(read_usual_put(raw).item) == [1, 2, "put"]


@pytest.mark.parametrize("of", [dict.fromkeys, list, set])
@pytest.mark.parametrize("size", [999, 1000, 1001, 2000])
def test_containers_that_fill_their_batches_are_cut_out(of, size):
    # A dict's batches of 1000 end with one of fewer: of none, when the last is full.
    raw = request("q:a", "put", (), {"item": of(range(size)), "timeout": 1})
    assert pickle.loads(read_request(raw).item("item")) == of(range(size))


@pytest.mark.parametrize("size", [10, 65_000, 66_000, 1_000_000])
def test_items_that_span_frames_are_cut_out_by_c_and_python_alike(size):
    item = [b"x" * size, "y" * size, list(range(1000))]
    cut = read_usual_put(bytes(ForkingPickler.dumps(("q:a", "put", (item,), {})))).item
    assert pickle.loads(cut) == item
    assert pickle._loads(cut) == item
    assert pickle._loads(returned_item(cut)) == ("#RETURN", item)


def test_a_harmful_item_does_nothing_here_and_arrives_as_it_is(tmp_path):
    path = tmp_path / "canary"
    raw = request("q:a", "put", (Canary(path),), {})
    item = read_usual_put(raw).item
    assert read_request(raw).item("item") is not None
    returned_item(item)
    assert not path.exists()
    pickle.loads(item)
    assert path.exists()


def test_a_harmful_pickle_in_place_of_a_request_runs_nothing(tmp_path):
    path = tmp_path / "canary"
    with pytest.raises(UnreadableError):
        read_request(pickle.dumps(Canary(path)))
    read_request(request(None, "create", ("name", Canary(path)), {"a": Canary(path)}))
    assert not path.exists()


def test_the_ident_of_a_token_is_found_in_it():
    raw = request(None, "get_methods", (Token("name", ("host", 1), "q:name"),), {})
    assert read_request(raw).args[0].state == ("name", ("host", 1), "q:name")


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else_happens(raw):
    read_usual_put(raw)
    with pytest.raises(UnreadableError):
        read_request(raw)


@given(st.data())
def test_a_damaged_request_is_refused_or_read_and_never_breaks_the_reader(data):
    raw = bytearray(request("q:a", "put", ([1, "a", {"b": (None, 2.5)}], True, 3), {"x": "y"}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_request(bytes(raw))
    except UnreadableError:
        return


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x04" + b"(" * 100_000 + b".",
        b"\x80\x04" + b"N0" * 3_000_000 + b".",
        b"\x80\x04\x8b" + struct.pack("<i", -5) + b".",
        b"cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_sizes_that_lie_and_endless_opcodes_are_refused(raw):
    with pytest.raises(UnreadableError):
        read_request(raw)


@pytest.mark.parametrize("value", [None, True, False, 0, -1, 2**31, -(2**70), 1.5, "é", ("a", 1)])
def test_what_is_answered_by_hand_is_what_pickle_reads(value):
    assert pickle.loads(returned(value)) == ("#RETURN", value)
    pickletools.dis(returned(value), io.StringIO())


@pytest.mark.parametrize("value", ["text", 5, None])
def test_the_plain_value_of_an_answer_is_read(value):
    assert read_answer(bytes(ForkingPickler.dumps(("#RETURN", value)))) == value


def test_an_item_of_protocol_5_is_announced_as_4_for_old_clients():
    answer = returned_item(pickle.dumps([1, "a"], 5))
    assert answer.startswith(b"\x80\x04")
    assert pickle.loads(answer) == ("#RETURN", [1, "a"])
