"""Numbers of tasks, tokens and uids."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.core.ids import (
    MAX_INDEX,
    MAX_JOB,
    first_task,
    first_token,
    index_of,
    is_task,
    job_of,
    last_task,
    make_uid,
    task_id,
    task_name,
)

jobs = st.integers(1, MAX_JOB)
indices = st.integers(0, MAX_INDEX)


@given(jobs, indices)
def test_a_tasks_number_holds_its_job_and_index_in_64_bits(job, index):
    task = task_id(job, index)
    assert (job_of(task), index_of(task)) == (job, index)
    assert first_task(job) <= task <= last_task(job) < 2**63
    assert is_task(task)


@given(jobs, indices)
def test_people_read_tasks_as_job_and_index(job, index):
    assert task_name(task_id(job, index)) == f"{job}/{index}"


@pytest.mark.parametrize("number", [-1, 0, MAX_INDEX, last_task(MAX_JOB) + 1, 2**64])
def test_numbers_that_no_task_has(number):
    assert not is_task(number)


@given(st.integers(0, 2**20), st.integers(0, 2**40 - 1))
def test_every_token_of_a_later_epoch_is_larger(epoch, count):
    assert first_token(epoch) + count < first_token(epoch + 1) < 2**63


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_uid_is_a_uuid_of_version_7_that_begins_with_the_time(now_ms, randomness):
    uid = make_uid(now_ms, randomness)
    parsed = uuid.UUID(bytes=uid)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert int.from_bytes(uid[:6], "big") == now_ms


def test_too_little_randomness_is_refused():
    with pytest.raises(ValueError, match="10 random bytes"):
        make_uid(1, b"short")
