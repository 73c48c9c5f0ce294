"""The note of a server that is gone is not taken for that of one that runs."""

import os
import subprocess
import sys

import pytest

from multihost.runtime.note import ServerNote, birth_of, read_server_note, write_server_note
from multihost.testing import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no more is told than a pid")


def note_of(pid, born=None):
    return ServerNote("http://127.0.0.1:7077", pid, born=born)


def test_a_note_is_true_while_its_process_lives(tmp_path):
    note = note_of(os.getpid(), birth_of(os.getpid()))
    write_server_note(tmp_path, note)
    assert read_server_note(tmp_path).born == note.born
    assert note_of(os.getpid()).is_true  # as servers wrote it before they said when they began


@linux
def test_another_process_that_has_got_the_number_is_not_the_server():
    """As after a power cut, when all numbers are given anew."""
    assert not note_of(os.getpid(), birth_of(os.getpid()) - 1).is_true


@linux
def test_a_server_that_was_killed_is_gone_though_nobody_has_asked_how_it_ended():
    """In a container whose first process never asks, that is for ever."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        note = note_of(server.pid, birth_of(server.pid))
        assert note.is_true
        server.kill()
        wait_until(lambda: not note.is_true, "it counts as dead", 20)
        assert server.returncode is None
