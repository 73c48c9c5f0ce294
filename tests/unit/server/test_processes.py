"""Claims about processes beside the slots: who gets them, what is remembered of them."""

from multihost.core.ids import task_id
from multihost.core.resources import Offer
from multihost.server.printing import HELD_BYTES, HeldOutput, Piece, Unheard
from multihost.server.processes import Processes
from multihost.wire import message as m

TASK = task_id(7, 0)
OFFER = Offer(processes=2)


def test_a_process_is_known_from_its_lease_until_its_worker_lets_go():
    processes = Processes()
    processes.leased(TASK, 1, session=3)
    assert TASK in processes
    assert processes.told(7) == []
    process = processes.began(m.Began(TASK, 1, pid=42), 3, "host", "worker")
    assert (process.pid, process.host, process.worker) == (42, "host", "worker")
    assert processes.told(7) == [(0, process)]
    assert processes.let_go(TASK, 1, 3)
    assert TASK not in processes
    assert not processes.let_go(TASK, 1, 3)


def test_a_worker_that_comes_back_changes_nothing_of_what_is_known():
    processes = Processes()
    processes.leased(TASK, 1, session=3)
    process = processes.began(m.Began(TASK, 1, pid=42), 3, "host", "worker")
    processes.leased(TASK, 1, session=3)
    assert processes.find(TASK) is process


def test_what_a_lease_that_is_over_began_is_not_believed():
    processes = Processes()
    processes.leased(TASK, 2, session=3)
    assert processes.began(m.Began(TASK, 1, pid=42), 3, "host", "worker") is None


def test_what_another_worker_says_of_a_process_changes_nothing():
    processes = Processes()
    processes.leased(TASK, 1, session=3)
    assert processes.began(m.Began(TASK, 1, pid=42), 4, "host", "worker") is None
    assert processes.let_go(TASK, 1, 4)
    assert processes.let_go(TASK, 0, 3)
    assert processes.find(TASK) is not None
    assert processes.burden(3, 0, 1, Offer(processes=1)) == (True, 1.0)


def test_a_signal_is_kept_until_the_worker_is_back_and_forgotten_with_the_process():
    processes = Processes()
    processes.keep_signal(TASK, 15)
    processes.leased(TASK, 1, session=3)
    assert processes.take_signals(TASK) == [15]
    assert processes.take_signals(TASK) == []
    processes.keep_signal(TASK, 9)
    processes.let_go(TASK, 1, 3)
    assert processes.take_signals(TASK) == []


def test_the_lightest_laden_worker_is_the_best_unless_it_is_full():
    processes = Processes()
    assert processes.burden(1, 0, 4, OFFER) < processes.burden(2, 1, 4, OFFER)
    processes.leased(TASK, 1, session=1)
    assert processes.burden(2, 0, 1, OFFER) < processes.burden(1, 0, 4, OFFER)
    processes.leased(TASK + 1, 1, session=1)
    assert processes.burden(2, 100, 1, OFFER) < processes.burden(1, 0, 4, OFFER)


def test_the_processes_of_a_session_that_ended_are_forgotten():
    processes = Processes()
    processes.leased(TASK, 1, session=1)
    processes.leased(TASK + 1, 1, session=2)
    processes.forget(1)
    assert TASK not in processes
    assert TASK + 1 in processes
    assert processes.burden(1, 0, 4, OFFER) == (False, 0.0)


def test_only_what_a_client_started_is_told_of_its_end():
    processes = Processes()
    processes.leased(TASK, 1, session=1)
    processes.leased(TASK + 1, 1, session=1)
    processes.find(TASK).starter = 5
    assert [task for task, _ in processes.started_by(5)] == [TASK]


def test_held_output_comes_in_order_and_only_once():
    held = HeldOutput()
    pieces = [Piece(0, 1, b"a"), Piece(0, 2, b"b")]
    for piece in pieces:
        held.add(piece)
    assert held
    assert held.take() == pieces
    assert not held
    assert held.take() == []


def test_of_too_much_output_the_latest_is_held_and_that_is_said():
    held = HeldOutput()
    half = bytes(HELD_BYTES // 2)
    for number in range(3):
        held.add(Piece(number, 1, half))
    notice, *kept = held.take()
    assert f"{len(half)} bytes of output are not shown".encode() in notice.data
    assert [piece.task_index for piece in kept] == [1, 2]


def test_output_of_jobs_that_nobody_watches_is_bounded_as_a_whole():
    unheard = Unheard()
    data = bytes(HELD_BYTES // 2)
    for job in range(20):
        unheard.add(job, Piece(0, 1, data))
    assert unheard.take(0) == []
    assert unheard.take(19) == [Piece(0, 1, data)]
    assert unheard.take(19) == []
