"""Outcomes on their way, until the server has settled them."""

from multihost.core.outcome import Ending
from multihost.wire import message as m
from multihost.worker.outbox import ATTEMPT_BYTES, MESSAGE_BYTES, Outbox


def attempt(task, payload=b"result", token=1):
    return m.Attempt(task, token, Ending.OK, payload)


def make_outbox():
    sent = []
    return Outbox(sent.append), sent


def test_what_came_in_one_turn_leaves_in_one_message_and_only_once():
    outbox, sent = make_outbox()
    one, two = attempt(1), attempt(2)
    outbox.add(one)
    outbox.add(two)
    outbox.flush()
    outbox.flush()
    assert sent == [m.Finished([one, two])]


def test_an_outcome_is_kept_until_it_is_settled():
    outbox, _ = make_outbox()
    outbox.add(attempt(1))
    outbox.flush()
    assert (len(outbox), outbox.held) == (1, [m.Held(1, 1)])
    outbox.settle([m.Held(1, 1)])
    assert (len(outbox), outbox.held, outbox.size_bytes) == (0, [], 0)


def test_another_token_settles_nothing():
    outbox, _ = make_outbox()
    outbox.add(attempt(1, token=7))
    outbox.settle([m.Held(1, 6), m.Held(2, 7)])
    assert outbox.held == [m.Held(1, 7)]


def test_over_a_new_connection_everything_unsettled_goes_again_and_nothing_else():
    outbox, sent = make_outbox()
    for task in range(3):
        outbox.add(attempt(task))
    outbox.flush()
    outbox.settle([m.Held(1, 1)])
    outbox.add(attempt(3))
    sent.clear()
    outbox.send_again()
    outbox.flush()
    assert sent == [m.Finished([attempt(0), attempt(2), attempt(3)])]


def test_nothing_is_sent_again_when_nothing_is_unsettled():
    outbox, sent = make_outbox()
    outbox.send_again()
    assert sent == []


def test_its_size_counts_inline_results_and_hardly_those_that_the_server_has():
    outbox, _ = make_outbox()
    outbox.add(attempt(1, b"x" * 1000))
    outbox.add(attempt(2, m.Blob(bytes(32), 1 << 30)))
    assert outbox.size_bytes == 1000 + 2 * ATTEMPT_BYTES
    outbox.settle([m.Held(1, 1), m.Held(1, 1), m.Held(2, 1)])
    assert outbox.size_bytes == 0


def test_a_long_batch_of_tiny_outcomes_leaves_in_several_messages_too():
    outbox, sent = make_outbox()
    for number in range(2 * m.BATCH_TASKS):
        outbox.add(attempt(number, b""))
    outbox.flush()
    assert sum(len(message.attempts) for message in sent) == 2 * m.BATCH_TASKS
    assert max(len(message.attempts) for message in sent) <= m.BATCH_TASKS


def test_a_large_batch_leaves_in_several_messages_in_order():
    outbox, sent = make_outbox()
    attempts = [attempt(number, b"x" * (MESSAGE_BYTES // 3 - ATTEMPT_BYTES)) for number in range(7)]
    for one in attempts:
        outbox.add(one)
    outbox.flush()
    assert [len(message.attempts) for message in sent] == [3, 3, 1]
    assert [one for message in sent for one in message.attempts] == attempts
    outbox.send_again()
    assert len(sent) == 6
