"""What becomes of a proxy's reference when it is collected, in whatever thread that happens."""

import _thread
import queue
import threading
from types import SimpleNamespace

import pytest

from multihost.managers import proxies

SOON_S = 20


def in_a_thread_of_ours(call):
    threading.Thread(target=call, name="multihost-managers", daemon=True).start()


def in_a_thread_that_is_not_known_yet(call):
    _thread.start_new_thread(call, ())


@pytest.mark.parametrize("begin", [in_a_thread_of_ours, in_a_thread_that_is_not_known_yet])
def test_a_thread_that_others_may_wait_for_does_not_wait_for_a_manager(begin):
    waiting: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    collected, answered = threading.Event(), threading.Event()

    def connect(address, authkey):
        waiting.put(threading.current_thread())
        answered.wait(SOON_S)
        raise EOFError

    def collect():
        token = SimpleNamespace(id="1", address="there")
        proxies._give_up(token, b"", None, SimpleNamespace(), set(), connect)
        collected.set()

    begin(collect)
    assert collected.wait(SOON_S), "the collection waited for the manager"
    helper = waiting.get(timeout=SOON_S)
    answered.set()
    helper.join(SOON_S)
