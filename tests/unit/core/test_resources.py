"""Which worker may run which job, and why not."""

import pytest

from multihost.core.resources import Offer, Requirement, missing

OFFER = Offer(python="3.11", host="h1", tags=("gpu", "ssd"), cpus=4.0, memory_bytes=1 << 30, gpus=1)


@pytest.mark.parametrize(
    "need",
    [
        Requirement(),
        Requirement(python="3.11", host="h1", tags=("ssd",)),
        Requirement(cpus=4.0, memory_bytes=1 << 30, gpus=1),
        Requirement(context="pool-1"),
    ],
)
def test_an_offer_that_has_everything_will_do(need):
    assert missing(need, OFFER) is None


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (Requirement(python="3.12"), "needs Python 3.12, the worker has 3.11"),
        (Requirement(host="h2"), "needs host h2, the worker is on h1"),
        (Requirement(tags=("gpu", "tape", "fast")), "lacks the tag 'fast'"),
        (Requirement(cpus=4.5), "needs 4.5 cpus, the worker has 4"),
        (Requirement(memory_bytes=2 << 30), "bytes of memory"),
        (Requirement(gpus=2), "needs 2 gpus, the worker has 1"),
    ],
)
def test_what_is_missing_is_named(need, words):
    assert words in missing(need, OFFER)


def test_a_worker_that_says_nothing_has_nothing():
    assert "has none" in missing(Requirement(python="3.11"), Offer())


def test_equal_requirements_have_one_text():
    one = Requirement(python="3.11", tags=("a", "b"))
    assert one.encode() == Requirement(tags=("a", "b"), python="3.11").encode()
    assert Requirement.decode(one.encode()) == one
    assert Requirement().encode() == "{}"
