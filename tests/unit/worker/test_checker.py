"""What a sealed worker's process lets through, task by task."""

import pytest

from multihost.core.digest import digest_of
from multihost.core.ids import task_id
from multihost.core.job import Style
from multihost.core.outcome import Ending, Failure, decode_failure, encode_failure
from multihost.wire.seal import JobSeal, Seal, is_outcome, job_text, marked
from multihost.worker.checker import Checker
from multihost.worker.frames import TASK_HEAD

SECRET = b"s" * 32
JOB = JobSeal(Seal(SECRET), b"u" * 16)
CALL = b"the initializer's call"
TASK = task_id(42, 7)


def text(*, function=b"f" * 32, ship=(b"a" * 32,), style=Style.CALL, job=JOB):
    signed = job_text(style, function, digest_of(CALL), ship)
    return job.job_mark(signed) + signed


def entry(*, task=TASK, style="call", function=b"f" * 32, index=7, job=JOB, signed=None):
    data = marked(job.task_mark(index, b"args"), b"args")
    payload = TASK_HEAD.pack(function, 3) + b"fun" + data
    return task, 1, style, payload, text() if signed is None else signed


def context(call=CALL):
    return b"Worker-1\0" + call


PATHS = b"/cache/" + (b"a" * 32).hex().encode()


def test_what_is_signed_passes_with_all_that_its_child_begins_with():
    assert Checker(SECRET).refusal(entry(), PATHS, context()) is None
    assert Checker(SECRET).refusal(entry(), None, None) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ((entry(signed=b""), None, None), "function or options"),
        (((*entry()[:4], None), None, None), "function or options"),
        ((entry(function=b"g" * 32), None, None), "its function"),
        ((entry(signed=text(function=b"g" * 32)), None, None), "its function"),
        ((entry(style="map"), None, None), "its function"),
        ((entry(), None, context(b"another")), "initializer"),
        ((entry(), None, context(b"")), "initializer"),
        ((entry(), PATHS + b"\0/elsewhere", None), "ships"),
        ((entry(), b"/tmp/evil", None), "ships"),
        ((entry(task=task_id(42, 8)), None, None), "arguments"),
        ((entry(job=JobSeal(Seal(SECRET), b"v" * 16)), None, None), "arguments"),
        ((entry(job=JobSeal(Seal(b"t" * 32), b"u" * 16)), None, None), "arguments"),
    ],
)
def test_what_is_not_signed_for_this_task_is_refused_in_words(bad, why):
    refusal = Checker(SECRET).refusal(*bad)
    assert why in refusal
    assert "nothing of it was unpickled" in refusal


def test_outcomes_are_signed_for_the_task_that_was_let_through():
    checker = Checker(SECRET)
    checker.refusal(entry(), None, None)
    mark = JOB.task_mark(7, b"args")
    result = checker.sign(Ending.OK, b"result")
    assert is_outcome(JOB.seal, mark, result, is_error=False)
    failed = checker.sign(
        Ending.RAISED, encode_failure(Failure(Ending.RAISED, "E", "no", exception=b"error"))
    )
    assert is_outcome(JOB.seal, mark, decode_failure(failed).exception, is_error=True)
    plain = encode_failure(Failure(Ending.RAISED, "E", "no"))
    assert checker.sign(Ending.RAISED, plain) == plain


def test_nothing_is_signed_for_a_task_that_was_refused():
    checker = Checker(SECRET)
    checker.refusal(entry(), None, None)
    checker.refusal(entry(index=8), None, None)
    assert checker.sign(Ending.OK, b"result") == b"result"
