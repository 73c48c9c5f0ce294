"""Claims about what the server counts of a worker that tells of its tasks."""

from unittest import mock

import pytest

from multihost.core.outcome import Ending
from multihost.server.workers import WorkerPeer
from multihost.store.base import Settlement
from multihost.wire import message as m
from multihost.wire.keys import KeyRole


def let_go(message, *, stale=(), times=1):
    """Tasks that the hub is told to have left the worker by a message that runs so many times."""
    services = mock.Mock()
    connection = mock.Mock()
    connection.key.role = KeyRole.WORK
    peer = WorkerPeer(services, connection, m.Enlist(b"u" * 16, "w"))
    peer.received([message])
    (operation,) = services.committer.submit.call_args.args
    store = mock.Mock()
    store.finish.return_value = Settlement([], [m.Held(task, 1) for task in stale], 0)
    store.release.side_effect = lambda _, held, __: [
        each for each in held if each.task not in stale
    ]
    for _ in range(times):
        operation.run(store, 0.0)
    return [lease.task for call in services.hub.let_go.call_args_list for lease in call.args[2]]


def finished(*tasks):
    return m.Finished([m.Attempt(task, 1, Ending.OK, b"") for task in tasks])


def given_back(*tasks):
    return m.GiveBack([m.Held(task, 1) for task in tasks])


def test_what_a_worker_has_finished_takes_no_slot_any_more():
    assert let_go(finished(1, 2)) == [1, 2]


def test_what_was_cancelled_as_it_ended_is_let_go_of_once():
    assert let_go(finished(1, 2, 3), stale=[2]) == [1, 3]


def test_what_was_cancelled_as_it_was_given_back_is_let_go_of_once():
    assert let_go(given_back(1, 2, 3), stale=[2]) == [1, 3]


@pytest.mark.parametrize("message", [finished(1, 2), given_back(1, 2)])
def test_a_transaction_that_is_done_again_lets_go_of_its_tasks_once(message):
    assert let_go(message, times=3) == [1, 2]
