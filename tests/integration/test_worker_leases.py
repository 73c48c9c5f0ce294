"""What a worker asks for, holds, gives back and stops, with the test as its server."""

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest
from lone_worker import DEADLINE_S, lone_worker, run, turns

from multihost.core.job import Style
from multihost.core.lease import LEASE_S
from multihost.core.outcome import Ending
from multihost.wire import message as m
from multihost.worker import roster
from multihost.worker.outbox import MESSAGE_BYTES

pytestmark = pytest.mark.timeout(60)


def until_there(path):
    """Run until a file is there."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():
        time.sleep(0.005)
    return os.getpid()


def chatter():
    """Print more at once than a pipe holds, over and over, until somebody ends it."""
    while True:
        print("x" * 5_000_000)


def has_begun(path):
    return Path(f"{path}.begun").exists()


def overlapping(directory):
    """How many calls of this are under way at once, itself included."""
    mine = Path(directory) / f"{os.getpid()}"
    mine.touch()
    count = len(list(Path(directory).iterdir()))
    mine.unlink()
    return count


def is_running(pid):
    return Path(f"/proc/{pid}").exists()


async def learn_that_tasks_are_tiny(lone):
    """Have so many tiny tasks run that they are fed ahead."""
    # One that started late would have some given back, and granted again, right now.
    await turns(lambda: all(slot.is_ready for slot in lone.worker.roster.children))
    job, first = lone.job(abs), 0
    # One that a machine keeps waiting is long, and then some more are needed.
    while not first or lone.worker.roster.pace.ahead < 10:
        held = lone.grant(job, *(((n,), {}) for n in range(300)), first=first)
        for one in held:
            await lone.attempt(one)
        first += len(held)


def test_children_that_are_replaced_after_each_task_are_never_more_than_the_slots(tmp_path):
    async def main():
        async with lone_worker(2) as lone:
            await learn_that_tasks_are_tiny(lone)
            job = lone.job(overlapping, pool="p", max_tasks=1)
            held = lone.grant(job, *(((str(tmp_path),), {}) for _ in range(30)))
            for one in held:
                assert await lone.result(one) <= 2
                assert len(lone.worker.roster.children) == 2
                assert sum(1 for slot in lone.worker.roster._everyone() if slot.fed) <= 2

    run(main())


def test_a_worker_whose_tasks_got_long_takes_its_invitation_back(tmp_path):
    async def main():
        async with lone_worker(2) as lone:
            await learn_that_tasks_are_tiny(lone)
            invited = max(message.room for message in lone.of(m.Want))
            assert invited > 10
            lone.sent.clear()
            path = tmp_path / "go"
            held = lone.grant(lone.job(until_there), *(((str(path),), {}),) * 2)
            # Both slots are busy with what goes on and on: more would only wait here.
            await lone.until(lambda: [w for w in lone.of(m.Want) if w.room == 0])
            path.touch()
            for one in held:
                await lone.result(one)

    run(main())


def test_what_no_slot_gets_to_soon_is_given_back_and_not_invited_again(tmp_path):
    async def main():
        async with lone_worker(2) as lone:
            await learn_that_tasks_are_tiny(lone)
            path = tmp_path / "go"
            job = lone.job(until_there)
            held = lone.grant(job, *(((str(path),), {}),) * 10)
            # Of the tiny ones some may have been given back, too, where the slots had to wait.
            await lone.until(lambda: lone.given_back >= {*held[2:]})
            assert not lone.given_back & {*held[:2]}
            await turns(lambda: lone.worker._demand.told == 0)
            path.touch()
            for one in held:
                await lone.result(one)

    run(main())


def test_outcomes_larger_than_a_frame_leave_in_several():
    payload = b"x" * 50_000

    async def main():
        async with lone_worker(2) as lone:
            lone.settles = False
            held = lone.grant(lone.job(lambda: payload), *(((), {}),) * 60)
            for one in held:
                assert await lone.result(one) == payload
            lone.peer.go_away()
            lone.sent.clear()
            lone.peer.come_back()
            await lone.until(lambda: len(lone.attempts) == len(held))
            sizes = [sum(len(a.payload) for a in f.attempts) for f in lone.of(m.Finished)]
            assert max(sizes) <= MESSAGE_BYTES
            assert {one.token for one in lone.peer.enlisted.held} >= {
                attempt.token for attempt in lone.attempts.values()
            }

    run(main())


def test_a_lease_that_is_not_renewed_ends_the_task_though_the_line_seems_open(tmp_path):
    path = tmp_path / "go"

    async def main():
        async with lone_worker() as lone:
            # Nothing was acknowledged for long, as when a cable is pulled.
            lone.peer.renewed_at -= LEASE_S
            held = lone.call(until_there, str(path))
            await lone.until(lambda: lone.peer.drops)
            assert not lone.worker._leases.works
            lone.peer.come_back()
            assert held not in lone.peer.enlisted.held
            assert await lone.result(lone.call(abs, -1)) == 1
            assert held.task not in lone.attempts

    run(main())


def test_a_broken_connection_ends_nothing_while_the_lease_lasts(tmp_path):
    path = tmp_path / "go"

    async def main():
        async with lone_worker() as lone:
            held = lone.call(until_there, str(path))
            lone.peer.go_away()
            lone.peer.come_back()
            assert lone.peer.enlisted.held == (held,)
            path.touch()
            assert await lone.result(held) in lone.pids

    run(main())


def test_an_outcome_of_a_time_without_connection_is_delivered_afterwards(tmp_path):
    path = tmp_path / "go"

    async def main():
        async with lone_worker() as lone:
            held = lone.call(until_there, str(path))
            await turns(lambda: has_begun(path))
            lone.peer.go_away()
            path.touch()
            await turns(lambda: lone.worker._outbox)
            lone.peer.come_back()
            assert held in lone.peer.enlisted.held
            await lone.result(held)

    run(main())


def test_leases_of_one_store_mean_nothing_to_another(tmp_path):
    async def main():
        async with lone_worker() as lone:
            held = lone.call(until_there, str(tmp_path / "never"))
            lone.peer.go_away()
            lone.peer.come_back(server=b"another store...")
            assert not lone.worker._leases.works
            assert await lone.result(lone.call(abs, -1)) == 1
            assert held.task not in lone.attempts

    run(main())


def test_a_worker_that_leaves_gives_back_and_leaves_no_process(tmp_path):
    async def main():
        async with lone_worker(2) as lone:
            path = tmp_path / "never"
            held = lone.call(until_there, str(path))
            await turns(lambda: has_begun(path))
            pids = lone.pids
            lone.worker.leave()
            assert held in lone.given_back
        assert lone.peer.goodbye
        return pids

    pids = run(main())
    assert pids
    assert not [pid for pid in pids if is_running(pid)]


def test_fewer_slots_are_kept_once_busy_ones_are_idle(tmp_path):
    async def main():
        async with lone_worker(3) as lone:
            path = tmp_path / "go"
            job = lone.job(until_there)
            held = lone.grant(job, *(((str(path),), {}),) * 3)
            await turns(lambda: all(slot.fed for slot in lone.worker.roster.children))
            lone.tell(m.SetSlots(1))
            assert len(lone.worker.roster.children) == 3
            path.touch()
            for one in held:
                await lone.result(one)
            await lone.until(lambda: len(lone.worker.roster.children) == 1)
            await lone.result(lone.call(abs, -1))

    run(main())


@pytest.fixture
def patient(monkeypatch):
    """A worker that waits as long as it takes until a child has ended what it is told to end."""
    monkeypatch.setattr(roster, "INTERRUPT_S", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_task_that_is_interrupted_while_it_prints_tears_nothing():
    async def main():
        async with lone_worker(1) as lone:
            (pid,) = lone.pids
            for _ in range(10):
                failure = await lone.failure(lone.call(chatter, timeout_s=0.02))
                assert failure.ending == Ending.TIMED_OUT
                assert await lone.result(lone.call(os.getpid)) == pid

    run(main())


def note(path, word):
    with Path(path).open("a") as file:
        file.write(f"{word}\n")


class Dawdler:
    """Takes its time when a module written in C imports another; notes if that is broken off."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        if name == "msgspec._utils":
            note(self.path, "begun")
            try:
                time.sleep(0.3)
            except BaseException:
                note(self.path, "broken off")
                raise


def import_for_long(path):
    """Import a module written in C, which takes long; then run on."""
    assert "msgspec" not in sys.modules
    sys.meta_path.insert(0, Dawdler(path))
    import msgspec  # noqa: F401

    while True:
        time.sleep(1)


@pytest.mark.usefixtures("patient")
def test_a_task_is_not_interrupted_amid_the_import_of_native_code_but_right_after(tmp_path):
    path = tmp_path / "told"

    async def main():
        async with lone_worker(1) as lone:
            (pid,) = lone.pids
            held = lone.call(import_for_long, str(path))
            await turns(path.exists)
            lone.tell(m.Revoked([held]))
            # The child is free only when that has ended, which it does not by itself.
            assert await lone.result(lone.call(os.getpid)) == pid
            assert path.read_text() == "begun\n"

    run(main())


@pytest.mark.usefixtures("patient")
def test_a_task_that_is_ended_before_its_child_comes_to_begin_it_takes_nothing_along(tmp_path):
    (tmp_path / "there").touch()

    async def main():
        async with lone_worker(1) as lone:
            await lone.result(lone.call(abs, -1))
            (pid,) = lone.pids
            ended, end = [], lone.worker.roster.end
            lone.worker.roster.end = lambda work: (end(work), ended.append(work))
            for _ in range(10):
                ended.clear()
                os.kill(pid, signal.SIGSTOP)
                held = lone.call(until_there, str(tmp_path / "never"), timeout_s=0.001)
                await turns(lambda: ended)
                # The child finds both at once: the task, and that it is to end.
                os.kill(pid, signal.SIGCONT)
                assert (await lone.failure(held)).ending == Ending.TIMED_OUT
            # Neither the child nor the function, which was sent along with the first of them.
            assert await lone.result(lone.call(until_there, str(tmp_path / "there"))) == pid

    run(main())


def test_a_process_whose_arguments_come_when_the_worker_drains_is_begun_elsewhere():
    async def main():
        async with lone_worker() as lone:
            data = b"what it is given"
            blob = m.Blob(lone.blob(data), len(data))
            (held,) = lone.grant(lone.job(None, Style.PROCESS), blob)
            lone.worker.drain()
            await lone.until(lambda: lone.given_back or lone.of(m.Began))
            assert lone.given_back == {held}

    run(main())


def test_a_task_that_ended_in_time_did_so_though_the_worker_was_held_up(tmp_path):
    path = tmp_path / "go"

    async def main():
        async with lone_worker() as lone:
            held = lone.call(until_there, str(path), timeout_s=DEADLINE_S)
            (work,) = lone.worker._leases.works.values()
            await turns(lambda: work.timer is not None and has_begun(path))
            path.touch()
            # The loop does not turn; when it does, what is due comes before what is to be read.
            select.select([work.slot._outcomes], [], [], DEADLINE_S)
            lone.worker._timed_out(work.slot, work)
            assert await lone.result(held) in lone.pids

    run(main())
