"""What a child has been given and has not begun."""

import os

from multihost.worker.inbox import Inbox


def test_nothing_begins_before_the_agent_is_told_what_was_given_back():
    # Else the outcome of what came behind overtakes the return, and the agent, which
    # knows what runs by the order of what it hears, waits for ever.
    reading, writing = os.pipe()
    inbox = Inbox(reading)
    could_begin = []

    def tell(_):
        could_begin.append(inbox._lock.acquire(blocking=False))

    inbox.give_back(tell)
    os.close(reading)
    os.close(writing)
    assert could_begin == [False]
