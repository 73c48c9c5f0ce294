"""Which options of a job no server accepts."""

import math

import msgspec
import pytest

from multihost.core.job import MAX_NAME_CHARS, MAX_PRIORITY, JobSpec, JobSpecError, Style, check
from multihost.core.resources import Requirement
from multihost.core.retry import Backoff, Limits


def spec(**options):
    return JobSpec(**{"style": Style.COMMAND, **options})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "n" * MAX_NAME_CHARS, "priority": MAX_PRIORITY, "key_limit": 1},
        {"ttl_s": 0.0, "timeout_s": 0.5, "delay_s": 1e9, "retention_s": 0.0},
        {"style": Style.CALL, "function": b"digest"},
        {"backoff": Backoff(0.0, 0.0, 0.0, 1.0)},
    ],
)
def test_sensible_options_are_accepted(options):
    check(spec(**options))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"name": ""}, "name"),
        ({"queue": "q" * (MAX_NAME_CHARS + 1)}, "queue"),
        ({"unique_key": ""}, "unique_key"),
        ({"priority": MAX_PRIORITY + 1}, "priority"),
        ({"limits": Limits(max_attempts=0)}, "max_attempts"),
        ({"limits": Limits(max_crashes=0)}, "max_crashes"),
        ({"limits": Limits(max_losses=-1)}, "max_losses"),
        ({"key_limit": 0}, "key_limit"),
        ({"key_limit": 2**64}, "key_limit"),
        ({"width": 0}, "width"),
        ({"timeout_s": -1.0}, "timeout_s"),
        ({"delay_s": math.nan}, "delay_s"),
        ({"delay_s": math.inf}, "delay_s"),
        ({"ttl_s": -0.1}, "ttl_s"),
        ({"retention_s": math.nan}, "retention_s"),
        ({"key_delay_s": math.inf}, "key_delay_s"),
        ({"backoff": Backoff(first_s=math.nan)}, "first_s"),
        ({"backoff": Backoff(factor=-1.0)}, "factor"),
        ({"backoff": Backoff(max_s=math.inf)}, "max_s"),
        ({"backoff": Backoff(jitter=1.5)}, "jitter"),
        ({"style": Style.MAP}, "function"),
        ({"ship": (b"d" * 32,) * 101}, "101 archives"),
        ({"mark": b"m" * 65}, "65 bytes"),
    ],
)
def test_what_no_server_accepts_is_named(options, word):
    with pytest.raises(JobSpecError, match=word):
        check(spec(**options))


def test_a_spec_survives_msgpack():
    job = spec(name="n", limits=Limits(2, 3, 4), requires=Requirement(tags=("gpu",)), after=(1, 2))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=JobSpec) == job


def test_a_spec_takes_few_bytes_when_nothing_is_asked_for():
    assert len(msgspec.msgpack.encode(spec())) < 20
