import threading

from multihost.client.latch import Latch


def test_it_lets_everybody_through_once_open():
    latch = Latch()
    through = []
    threads = [
        threading.Thread(target=lambda: through.append(latch.wait_open(20))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert not latch.is_open()
    latch.open()
    for thread in threads:
        thread.join(20)
    assert through == [True] * 8
    assert latch.wait_open()
    latch.open()


def test_a_wait_ends_with_its_timeout_and_may_be_repeated():
    latch = Latch()
    assert not latch.wait_open(0)
    assert not latch.wait_open(-5)
    assert not latch.wait_open(0.001)
    latch.open()
    assert latch.wait_open(0)
    assert latch.wait_open(1e20)


def test_opening_and_waiting_at_the_same_time_never_leaves_anyone_behind():
    for _ in range(500):
        latch = Latch()
        waiter = threading.Thread(target=latch.wait_open)
        waiter.start()
        latch.open()
        waiter.join(20)
        assert not waiter.is_alive()
