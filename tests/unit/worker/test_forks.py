"""What becomes of a request to a template that is none, refuses, dies or is stopped."""

import asyncio
import errno
import os
import socket
import subprocess

import pytest

from multihost.worker import forks as forks_module
from multihost.worker import launch as launch_module
from multihost.worker import template
from multihost.worker.forks import Forks
from multihost.worker.launch import ChildSetup, ForkLost, command_line


class FakeProcess:
    """A template's process that was killed or not."""

    def __init__(self):
        self.pid = 1
        self.was_killed = False

    def kill(self):
        self.was_killed = True

    def wait(self):
        return -9


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def made(loop):
    """Forks with a template that stands, its process, and the template's end of the socket."""

    async def within():
        forks, process = Forks(ChildSetup()), FakeProcess()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        forks._socket, forks._process, forks._is_ready = ours, process, True
        return forks, process, theirs

    forks, process, theirs = loop.run_until_complete(within())
    yield forks, process, theirs
    theirs.close()
    if forks._socket is not None:
        forks._socket.close()


def forked(loop, forks):
    async def within():
        return forks.fork(7, [0])

    return loop.run_until_complete(within())


def test_without_a_template_children_are_started(loop):
    assert forked(loop, Forks(ChildSetup())) is None


def test_only_in_a_process_of_its_own_is_there_ever_a_template(loop):
    async def within():
        forks = Forks(ChildSetup())
        forks.start()
        called = []
        forks.when_settled(lambda: called.append(True))
        return forks.is_starting, called

    assert loop.run_until_complete(within()) == (False, [True])


def test_a_fork_is_told_its_number_and_answered_with_its_process_id(loop, made):
    forks, _, theirs = made
    theirs.send(template.ANSWER.pack(4711))
    assert forked(loop, forks) == 4711
    request, descriptors, _, _ = socket.recv_fds(theirs, 100, 10)
    assert (template.REQUEST.unpack(request), len(descriptors)) == ((7,), 1)
    os.close(descriptors[0])


def test_what_the_system_refuses_the_template_is_raised_as_at_a_start(loop, made):
    forks, process, theirs = made
    theirs.send(template.ANSWER.pack(-errno.EAGAIN))
    with pytest.raises(BlockingIOError):
        forked(loop, forks)
    assert not process.was_killed


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "stopped"])
def test_a_template_that_does_not_answer_is_killed_and_missed(loop, made, monkeypatch, is_gone):
    forks, process, theirs = made
    monkeypatch.setattr(forks_module, "ANSWER_S", 0.001)
    if is_gone:
        theirs.close()
    with pytest.raises(ForkLost):
        forked(loop, forks)
    assert process.was_killed
    assert forked(loop, forks) is None


def test_a_child_that_may_have_been_forked_gets_none_of_the_next_ones_pipes(monkeypatch):
    seen = []

    def fork(number, descriptors):
        seen.append([os.fstat(descriptor).st_ino for descriptor in descriptors])
        raise ForkLost

    def start(setup, number, descriptors):
        seen.append([os.fstat(descriptor).st_ino for descriptor in descriptors])
        raise OSError(errno.EAGAIN, "enough seen")

    monkeypatch.setattr(launch_module, "_start", start)
    setup = ChildSetup()
    setup.fork = fork
    with pytest.raises(BlockingIOError):
        launch_module.launch(setup)
    lost, started = seen
    assert len(lost) == len(started) == template.DESCRIPTORS
    assert not {*lost} & {*started}
    assert setup.numbers == set()


def test_a_template_whose_agent_has_gone_meanwhile_ends_without_a_word(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [*command_line(), "template", str(theirs.fileno()), str(tmp_path), ""],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    ours.close()
    assert process.communicate(b"") == (None, b"")
    assert process.returncode == 0
