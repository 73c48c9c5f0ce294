"""Claims about how wrong keys are slowed."""

from multihost.server.patience import FORGIVE_S, FREE_FAILURES, MAX_SLOW_S, FailureLog


def failing(times, now=0.0):
    log = FailureLog()
    for _ in range(times):
        log.note("1.2.3.4", now)
    return log


def test_a_few_wrong_keys_are_not_slowed():
    assert failing(FREE_FAILURES - 1).slow_s("1.2.3.4", 0.0) == 0


def test_repeated_wrong_keys_are_slowed_more_and_more_up_to_a_bound():
    delays = [failing(n).slow_s("1.2.3.4", 0.0) for n in range(FREE_FAILURES, FREE_FAILURES + 20)]
    assert delays == sorted(delays)
    assert 0 < delays[0] < delays[-1] == MAX_SLOW_S


def test_other_addresses_are_not_slowed():
    assert failing(50).slow_s("5.6.7.8", 0.0) == 0


def test_failures_are_forgiven_after_a_while():
    assert failing(50).slow_s("1.2.3.4", FORGIVE_S + 1) == 0
