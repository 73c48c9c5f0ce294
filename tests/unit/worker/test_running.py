"""Interruptions hit the task that they are meant for, and nothing half way."""

import signal
import threading

import pytest

from multihost.worker import output
from multihost.worker.frames import OUTPUT
from multihost.worker.running import Running, TaskInterrupted

TASK, TOKEN = 42, 7
LONG_S = 20


@pytest.fixture
def running():
    before = signal.getsignal(signal.SIGUSR1)
    running = Running()
    running.listen()
    running.task, running.token = TASK, TOKEN
    yield running
    running.task = 0
    signal.signal(signal.SIGUSR1, before)


class Agent:
    """Takes frames; the first is hit by the task's end while it is written."""

    is_closed = False

    def __init__(self, running):
        self.running = running
        self.begun = 0
        self.frames = []

    def send(self, kind, first, second, payload, *, detail=0):
        self.begun += 1
        if self.begun == 1:
            self.running.end(TOKEN)
        self.frames.append((kind, first, second, payload, detail))


def until_interrupted(act, *arguments):
    act(*arguments)
    for _ in range(LONG_S * 100):
        threading.Event().wait(0.01)


def printed(stream):
    stream.write("whole\n")


def flushed(stream):
    stream.write("whole\n"[:-1])
    stream.flush()


def written_as_bytes(stream):
    stream.buffer.write(b"whole")
    stream.buffer.flush()


@pytest.mark.parametrize("write", [printed, flushed, written_as_bytes])
def test_what_is_being_written_when_its_task_is_ended_is_written_whole_and_once(running, write):
    agent = Agent(running)
    stream = output._text(agent, running, 1)
    with pytest.raises(TaskInterrupted):
        until_interrupted(write, stream)
    stream.flush()
    assert agent.begun == 1
    ((kind, task, token, payload, number),) = agent.frames
    assert (kind, task, token, number) == (OUTPUT, TASK, TOKEN, 1)
    assert payload.strip() == b"whole"


def test_a_task_that_has_ended_is_not_interrupted_nor_is_the_next(running):
    running.end(TOKEN - 1)
    running.task = 0
    running.end(TOKEN)
    running.task, running.token = TASK, TOKEN + 1
    signal.raise_signal(signal.SIGUSR1)


def test_a_task_is_interrupted_once(running):
    with pytest.raises(TaskInterrupted):
        until_interrupted(running.end, TOKEN)
    signal.raise_signal(signal.SIGUSR1)


def test_an_interruption_that_another_thread_prints_through_comes_at_once(running):
    agent = Agent(running)
    stream = output._text(agent, running, 1)
    thread = threading.Thread(target=printed, args=(stream,))
    with pytest.raises(TaskInterrupted):
        until_interrupted(thread.start)
    thread.join(LONG_S)
    assert len(agent.frames) == 1
