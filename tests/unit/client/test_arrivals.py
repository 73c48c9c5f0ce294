import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multihost.client import arrivals as module
from multihost.client.arrivals import Arrivals, BlockingArrivals
from multihost.client.outcomes import Raw
from multihost.core.outcome import Ending
from multihost.errors import TimeoutError as WaitTimeoutError


def item(position):
    return Raw(Ending.OK, b"%d" % position)


@given(st.permutations(range(12)))
def test_ordered_outcomes_are_taken_in_order_however_they_come(order):
    arrivals = Arrivals(is_ordered=True)
    taken = []
    for position in order:
        arrivals.settle(position, *item(position))
        while (got := arrivals.pop()) is not None:
            taken.append(got)
    arrivals.end(12)
    assert taken == [item(position) for position in range(12)]
    assert arrivals.is_exhausted


@given(st.permutations(range(12)))
def test_unordered_outcomes_are_taken_as_they_came(order):
    arrivals = Arrivals(is_ordered=False)
    for position in order:
        arrivals.settle(position, *item(position))
    assert [arrivals.pop() for _ in order] == [item(position) for position in order]
    assert arrivals.pop() is None


def test_a_take_that_waits_too_long_raises_multiprocessings_timeout_and_may_be_repeated():
    arrivals = BlockingArrivals(is_ordered=True)
    arrivals.settle(1, *item(1))
    with pytest.raises(WaitTimeoutError):
        arrivals.take(0.001)
    arrivals.settle(0, *item(0))
    arrivals.end(2)
    assert [arrivals.take(), arrivals.take()] == [item(0), item(1)]
    with pytest.raises(StopIteration):
        arrivals.take()


@pytest.fixture
def interrupted_at():
    """Raise where a signal's handler could in ``Arrivals``: n calls of functions from now."""

    def begin(number):
        def profile(frame, event, _):
            nonlocal number
            if event in ("call", "c_return") and frame.f_code.co_filename == module.__file__:
                number -= 1
                if number == 0:
                    raise KeyboardInterrupt

        sys.setprofile(profile)

    yield begin
    sys.setprofile(None)


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("number", range(1, 12))
def test_who_is_interrupted_in_a_take_loses_nothing(interrupted_at, is_ordered, number):
    arrivals = BlockingArrivals(is_ordered=is_ordered)
    for position in range(3):
        arrivals.settle(position, *item(position))
    arrivals.end(3)
    taken = []
    interrupted_at(number)
    while True:
        try:
            taken.append(arrivals.take(0))
        except KeyboardInterrupt:
            continue
        except StopIteration:
            break
    assert taken == [item(position) for position in range(3)]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_several_threads_share_the_outcomes_and_none_is_taken_twice(is_ordered):
    arrivals = BlockingArrivals(is_ordered=is_ordered)
    taken = [[] for _ in range(3)]

    def consume(mine):
        while True:
            try:
                mine.append(arrivals.take())
            except StopIteration:
                return

    threads = [threading.Thread(target=consume, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for position in range(300):
        arrivals.settle(position, *item(position))
    arrivals.end(300)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(got for mine in taken for got in mine) == sorted(
        item(position) for position in range(300)
    )
