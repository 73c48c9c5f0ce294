"""What is told of tasks that can't be begun or whose outcome is no ordinary one."""

import contextlib
import errno
import fcntl
import os
import pickle
import signal
import stat
import time
from multiprocessing.pool import MaybeEncodingError
from pathlib import Path

import psutil
import pytest
from lone_worker import lone_worker, run, turns

from multihost.core.ids import task_id
from multihost.core.job import Style
from multihost.core.outcome import Ending
from multihost.errors import KeyRevoked
from multihost.runtime.memory import KEPT_BY_CHILD
from multihost.wire import message as m
from multihost.worker import children, frames
from multihost.worker.current import current_task
from multihost.worker.failures import EXCEPTION_BYTES, MESSAGE_CHARS, TRACEBACK_CHARS

pytestmark = pytest.mark.timeout(60)


class NeedsModule:
    """A function that can't be unpickled where a module is missing."""

    def __call__(self):
        return 1

    def __reduce__(self):
        return __import__, ("a_module_that_nobody_has",)


class Unpicklable:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text

    def __reduce__(self):
        raise RuntimeError(self.text)


class Unshowable(Unpicklable):
    def __repr__(self):
        raise ValueError("no repr either")


def is_small(attempt):
    return len(attempt.payload) < EXCEPTION_BYTES + 4 * (MESSAGE_CHARS + TRACEBACK_CHARS)


def test_every_task_of_a_function_that_cannot_be_read_names_what_is_missing():
    async def main():
        async with lone_worker() as lone:
            job = lone.job(NeedsModule())
            for held in lone.grant(job, *(((), {}),) * 3):
                failure = await lone.failure(held)
                assert failure.ending == Ending.UNRUNNABLE
                assert failure.message == "No module named 'a_module_that_nobody_has'"
                assert failure.worker == lone.worker.name

    run(main())


def test_a_function_can_be_read_once_its_module_is_there(tmp_path):
    async def main():
        async with lone_worker(sys_path=(str(tmp_path),)) as lone:
            job = lone.job(None)
            # The pickle of comes_late.answer, which is not to be found here either.
            digest = lone.blob(b"\x80\x04\x8c\ncomes_late\x8c\x06answer\x93.")
            lone._jobs[job] = m.JobInfo(job, Style.CALL, digest)
            (held,) = lone.grant(job, ((), {}))
            assert (await lone.failure(held)).ending == Ending.UNRUNNABLE
            (tmp_path / "comes_late.py").write_text("def answer():\n    return 42\n")
            (held,) = lone.grant(job, ((), {}), first=1)
            assert await lone.result(held) == 42

    run(main())


class Unaskable(Exception):
    """Fails whoever asks it for what it does not have, as formatting a traceback does."""

    def __getattr__(self, name):
        raise LookupError(name)


def test_an_exception_of_what_cannot_be_written_is_told_and_its_child_goes_on():
    def name_a_file():
        error = ValueError("no such file: \udcff.txt")
        error.pid = os.getpid()
        raise error

    async def main():
        async with lone_worker() as lone:
            job = lone.job(name_a_file)
            failures = [await lone.failure(held) for held in lone.grant(job, *(((), {}),) * 2)]
            errors = [pickle.loads(failure.exception) for failure in failures]
            for failure, error in zip(failures, errors, strict=True):
                assert failure.ending == Ending.RAISED
                assert failure.message == "no such file: \\udcff.txt"
                assert "\\udcff.txt" in failure.traceback
                assert str(error) == "no such file: \udcff.txt"
            assert errors[0].pid == errors[1].pid

    run(main())


def test_an_exception_whose_attributes_raise_is_told():
    def fail():
        raise Unaskable("on purpose")

    async def main():
        async with lone_worker() as lone:
            (held,) = lone.grant(lone.job(fail), ((), {}))
            failure = await lone.failure(held)
            assert (failure.ending, failure.message) == (Ending.RAISED, "on purpose")

    run(main())


def say_nonsense(kind, detail, payload):
    """Write something to the pipe on which the agent hears of outcomes, and nothing more."""
    task = current_task()
    number = task_id(task.job, task.index)
    frame = frames.HEADER.pack(len(payload), kind, detail, number, task.token, 0.0) + payload
    for descriptor in range(3, 10_000):
        with contextlib.suppress(OSError):
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
            if mode == os.O_WRONLY and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, frame)
    signal.pause()


@pytest.mark.parametrize(
    ("said", "ending"),
    [
        ((frames.DONE, 200, b""), Ending.CRASHED),
        ((frames.DONE_IN_FILE, Ending.OK, b"short"), Ending.CRASHED),
        ((frames.DONE, Ending.UNRUNNABLE, b"no failure"), Ending.UNRUNNABLE),
    ],
)
def test_a_child_that_says_nonsense_of_its_task_ends_it(said, ending):
    async def main():
        async with lone_worker() as lone:
            (held,) = lone.grant(lone.job(say_nonsense), (said, {}))
            assert (await lone.failure(held)).ending == ending

    run(main())


def test_a_huge_exception_is_told_in_words_that_fit_a_frame():
    def fail():
        raise ValueError("x" * 20_000_000)

    async def main():
        async with lone_worker() as lone:
            held = lone.call(fail)
            failure = await lone.failure(held)
            assert is_small(lone.attempts[held.task])
            assert failure.type_name == "ValueError"
            assert "characters ...]" in failure.message
            assert "Traceback (most recent call last)" in failure.traceback
            assert failure.exception is None

    run(main())


@pytest.mark.parametrize("kind", [Unpicklable, Unshowable])
def test_a_result_that_cannot_be_pickled_is_told_though_it_is_huge(kind):
    async def main():
        async with lone_worker() as lone:
            held = lone.call(lambda: kind("y" * 5_000_000))
            failure = await lone.failure(held)
            assert is_small(lone.attempts[held.task])
            assert failure.type_name == "multiprocessing.pool.MaybeEncodingError"
            assert isinstance(pickle.loads(failure.exception), MaybeEncodingError)

    run(main())


def test_a_large_result_travels_as_a_blob_and_counts_once_it_is_stored():
    async def main():
        async with lone_worker() as lone:
            held = lone.call(lambda: b"z" * 3_000_000)
            assert await lone.result(held) == b"z" * 3_000_000
            assert isinstance(lone.attempts[held.task].payload, m.Blob)

    run(main())


def test_the_time_of_an_initializer_is_not_the_tasks(tmp_path):
    path = tmp_path / "go"

    def wait(path):
        Path(f"{path}.begun").touch()
        while not Path(path).exists():
            time.sleep(0.005)

    async def main():
        async with lone_worker() as lone:
            job = lone.job(abs, pool="p", initializer=(wait, (str(path),)), timeout_s=30.0)
            (held,) = lone.grant(job, ((-1,), {}))
            await turns(lambda: Path(f"{path}.begun").exists())
            (work,) = lone.worker._leases.works.values()
            assert work.slot is not None
            assert work.timer is None
            path.touch()
            assert await lone.result(held) == 1

    run(main())


def test_a_stream_that_a_task_left_behind_broken_breaks_no_other_task():
    def leave_it_broken():
        import sys

        class Broken:
            def write(self, text):
                raise RuntimeError(text)

            def flush(self):
                raise RuntimeError("not even this")

        sys.stdout = Broken()

    async def main():
        async with lone_worker() as lone:
            pids = lone.pids
            await lone.result(lone.call(leave_it_broken))
            assert await lone.result(lone.call(abs, -1)) == 1
            assert lone.pids == pids

    run(main())


def test_a_task_knows_its_name_and_its_token():
    def look():
        from multihost.worker.current import current_task

        task = current_task()
        return task.name, task.job, task.index, task.token

    async def main():
        async with lone_worker() as lone:
            (held,) = lone.grant(lone.job(look), ((), {}), first=7)
            assert await lone.result(held) == ("1/7", 1, 7, held.token)

    run(main())
    assert current_task() is None


def test_what_a_child_s_memory_is_told_reaches_no_program_that_a_task_starts(monkeypatch):
    wish, own = KEPT_BY_CHILD
    monkeypatch.setenv(wish, "12345678")  # the user's, which stays

    def look():
        import os

        return {name: value for name, value in os.environ.items() if name.startswith("MALLOC")}

    async def main():
        async with lone_worker() as lone:
            seen = await lone.result(lone.call(look))
            assert seen[wish] == "12345678"
            assert own not in seen

    run(main())


def descriptors():
    return {*Path("/proc/self/fd").iterdir()}


def test_a_worker_that_can_not_start_all_its_children_leaves_none_behind(tmp_path, monkeypatch):
    started, real = [], children.Slot

    def start(owner, setup):
        if len(started) == 2:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(real(owner, setup))
        return started[-1]

    async def main():
        before = descriptors()
        with pytest.raises(BlockingIOError):
            async with lone_worker(3, spool=tmp_path):
                pass
        assert descriptors() == before

    monkeypatch.setattr(children, "Slot", start)
    run(main())
    assert [slot.pid for slot in started if psutil.pid_exists(slot.pid)] == []
    assert [*tmp_path.iterdir()] == []


def test_a_worker_whose_session_is_refused_leaves_no_file_behind(tmp_path):
    async def main():
        with pytest.raises(KeyRevoked):
            async with lone_worker(spool=tmp_path) as lone:
                lone.peer._closed.set_exception(KeyRevoked("the key was revoked"))

    run(main())
    assert [*tmp_path.iterdir()] == []
