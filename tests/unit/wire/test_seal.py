"""Marks: what is signed for one place is good there and nowhere else."""

import io
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.core.job import Context, JobSpec, Style
from multihost.wire.seal import (
    PREFIX_BYTES,
    JobSeal,
    Seal,
    is_outcome,
    job_text,
    mark_of,
    marked,
    open_job,
    seal_outcome,
)

SEAL, OTHER = Seal(b"s" * 32), Seal(b"t" * 32)
UID = b"u" * 16
PAYLOAD = pickle.dumps(((1,), {}), 5)


def job(seal=SEAL, uid=UID):
    return JobSeal(seal, uid)


def signed(index=3, payload=PAYLOAD, made=None):
    made = made or job()
    return marked(made.task_mark(index, payload), payload)


def test_a_marked_pickle_is_a_pickle_of_the_same():
    for load in (pickle.loads, lambda data: pickle._Unpickler(io.BytesIO(data)).load()):
        assert load(signed()) == ((1,), {})
        large = pickle.dumps(list(range(100_000)), 5)
        assert load(signed(payload=large)) == list(range(100_000))
    assert signed()[PREFIX_BYTES:] == PAYLOAD


def test_a_task_is_good_in_its_own_place_alone():
    assert job().is_task(3, signed())
    assert not job().is_task(4, signed())
    assert not job(uid=b"v" * 16).is_task(3, signed())
    assert not job(seal=OTHER).is_task(3, signed())
    assert not job().is_task(3, PAYLOAD)
    assert not job().is_task(3, b"")


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data):
    good = bytearray(signed())
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    assert not job().is_task(3, bytes(good))


@given(st.binary(max_size=60))
def test_bytes_from_nowhere_are_never_good(data):
    assert not job().is_task(3, data)
    assert not SEAL.is_item("q", data)
    assert not is_outcome(SEAL, b"m" * 16, data, is_error=False)


def test_an_outcome_belongs_to_one_input_and_is_a_result_or_an_error():
    mark = mark_of(signed())
    result = seal_outcome(SEAL, mark, b"N.", is_error=False)
    assert is_outcome(SEAL, mark, result, is_error=False)
    assert not is_outcome(SEAL, mark, result, is_error=True)
    assert not is_outcome(SEAL, mark_of(signed(4)), result, is_error=False)
    assert not is_outcome(SEAL, mark_of(signed(payload=b"I2\n.")), result, is_error=False)
    assert not job().is_task(3, result)


def test_an_item_belongs_to_one_queue():
    item = SEAL.item("images", PAYLOAD)
    assert SEAL.is_item("images", item)
    assert not SEAL.is_item("image", item)
    assert not OTHER.is_item("images", item)
    assert not job().is_task(3, item)


CHANGES = {
    "style": (Style.MAP, b"f" * 32, b"i" * 32, (b"a" * 32,)),
    "function": (Style.CALL, b"g" * 32, b"i" * 32, (b"a" * 32,)),
    "initializer": (Style.CALL, b"f" * 32, None, (b"a" * 32,)),
    "code shipped": (Style.CALL, b"f" * 32, b"i" * 32, (b"b" * 32,)),
    "less code": (Style.CALL, b"f" * 32, b"i" * 32, ()),
    "more code": (Style.CALL, b"f" * 32, b"i" * 32, (b"a" * 32, b"b" * 32)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_of_a_job_can_be_exchanged(change):
    text = job_text(Style.CALL, b"f" * 32, b"i" * 32, (b"a" * 32,))
    mark = job().job_mark(text)
    assert open_job(SEAL, mark, text).identity == UID
    assert open_job(SEAL, mark, job_text(*CHANGES[change])) is None
    assert open_job(OTHER, mark, text) is None
    assert open_job(SEAL, mark[:-1], text) is None


def test_a_named_job_is_the_same_job_when_it_is_run_again():
    named = JobSpec(name="run-7", fingerprint=b"p" * 32)
    first = SEAL.identity(named, b"1" * 16)
    assert SEAL.identity(named, b"2" * 16) == first
    for other in (
        JobSpec(name="run-8", fingerprint=b"p" * 32),
        JobSpec(name="run-7", fingerprint=b"q" * 32),
        JobSpec(unique_key="run-7", fingerprint=b"p" * 32),
        JobSpec(name="run-7", fingerprint=b"p" * 32, style=Style.MAP),
    ):
        assert SEAL.identity(other, b"1" * 16) != first
    nameless = JobSpec(context=Context("c"))
    assert SEAL.identity(nameless, b"1" * 16) == b"1" * 16
    assert len(first) == 16


def test_the_secret_shows_nowhere():
    assert repr(SEAL) == f"Seal({SEAL.id.hex()})"
    with pytest.raises(ValueError, match="32 bytes"):
        Seal(b"short")
