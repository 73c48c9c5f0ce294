"""Claims about what the server counts of a worker that tells of its tasks."""

from unittest import mock

from multihost.core.outcome import Ending
from multihost.server.workers import WorkerPeer
from multihost.store.base import Settlement
from multihost.wire import message as m
from multihost.wire.keys import KeyRole


def let_go(finished, stale):
    """Tasks that the hub is told to have left the worker once these are said to be finished."""
    services = mock.Mock()
    connection = mock.Mock()
    connection.key.role = KeyRole.WORK
    peer = WorkerPeer(services, connection, m.Enlist(b"u" * 16, "w"))
    peer.received([m.Finished([m.Attempt(task, 1, Ending.OK, b"") for task in finished])])
    (operation,) = services.committer.submit.call_args.args
    store = mock.Mock()
    store.finish.return_value = Settlement([], [m.Held(task, 1) for task in stale], 0)
    operation.run(store, 0.0)
    (_, _, leases), _ = services.hub.let_go.call_args
    return [lease.task for lease in leases]


def test_what_a_worker_has_finished_takes_no_slot_any_more():
    assert let_go([1, 2], stale=[]) == [1, 2]


def test_what_was_cancelled_as_it_ended_is_let_go_of_once():
    assert let_go([1, 2, 3], stale=[2]) == [1, 3]
