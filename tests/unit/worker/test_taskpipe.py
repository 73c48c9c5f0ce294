"""The agent's end of a child's tasks: whole, in order, without waiting."""

import asyncio
import os

import pytest

from multihost.core.ids import task_id
from multihost.core.job import Context, Style
from multihost.wire import message as m
from multihost.worker.frames import FUNCTIONS
from multihost.worker.inbox import Inbox
from multihost.worker.taskpipe import TaskPipe
from multihost.worker.work import Work


@pytest.fixture
def ends():
    """A pipe into which a child would look, and the end to write to."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield reading, writing
    os.close(reading)


def digest(number):
    return number.to_bytes(32, "big")


def work(index, function=1, payload=b"payload", **job):
    info = m.JobInfo(1, Style.CALL, digest(function), **job)
    return Work(m.Grant(task_id(1, index), index + 1, payload), info, payload)


def all_of(inbox):
    while (entry := inbox.next()) is not None:
        yield entry


def test_tasks_come_in_order_each_with_a_function_only_if_that_is_new(ends):
    reading, writing = ends

    async def main():
        pipe = TaskPipe(writing)
        for index in range(3):
            pipe.add(work(index), None if pipe.knows(digest(1)) else b"a function")
        pipe.flush()
        pipe.end()

    asyncio.run(main())
    entries = list(all_of(Inbox(reading)))
    assert [task for task, *_ in entries] == [task_id(1, index) for index in range(3)]
    assert [b"a function" in payload for _, _, _, payload, _ in entries] == [True, False, False]


def test_more_than_a_pipe_holds_goes_on_when_the_child_reads_and_then_the_pipe_is_closed(ends):
    reading, writing = ends
    payload = os.urandom(300_000)

    async def main():
        pipe = TaskPipe(writing)
        for index in range(3):
            pipe.add(work(index, payload=payload), b"")
            pipe.flush()
        pipe.end()
        return await asyncio.to_thread(lambda: list(all_of(Inbox(reading))))

    entries = asyncio.run(main())
    assert [bytes(entry[3]).endswith(payload) for entry in entries] == [True] * 3
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)


def test_a_pipe_that_is_closed_with_something_unwritten_leaves_nothing_in_the_loop(ends):
    _, writing = ends

    async def main():
        pipe = TaskPipe(writing)
        pipe.add(work(0, payload=bytes(1 << 20)), b"")
        pipe.flush()
        pipe.close()
        assert not asyncio.get_running_loop().remove_writer(writing)
        pipe.flush()
        pipe.end()

    asyncio.run(main())


def test_what_a_dead_child_should_get_is_dropped(ends):
    reading, writing = ends

    async def main():
        pipe = TaskPipe(writing)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, reading)
        os.close(nothing)
        pipe.add(work(0), b"")
        pipe.flush()
        pipe.end()

    asyncio.run(main())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)


def test_the_least_recently_used_function_is_forgotten_and_all_when_one_came_back_unseen(ends):
    async def main():
        pipe = TaskPipe(ends[1])
        for number in range(FUNCTIONS):
            pipe.add(work(0, number), b"f")
        pipe.add(work(0, 0), None)
        pipe.add(work(0, FUNCTIONS), b"f")
        known = [pipe.knows(digest(number)) for number in (0, 1, 2, FUNCTIONS)]
        pipe.forget_functions()
        pipe.close()
        return known, pipe.knows(digest(0))

    assert asyncio.run(main()) == ([True, False, True, True], False)


def test_what_a_child_is_to_begin_with_comes_before_its_first_task(ends):
    reading, writing = ends

    async def main():
        pipe = TaskPipe(writing)
        pipe.add_paths(["/a", "/b"])
        pipe.add_pool(b"name", b"initializer")
        pipe.add(work(0, context=Context("pool", None)), b"f")
        pipe.end()

    asyncio.run(main())
    inbox = Inbox(reading)
    assert inbox.next() is not None
    assert (inbox.paths, inbox.context) == (b"/a\0/b", b"name\0initializer")
