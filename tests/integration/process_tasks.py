"""What processes of the tests run; the workers import it."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import multihost
from multihost.testing import wait_until


def begin(path):
    """Say in a file that this runs, and in which process."""
    part = Path(f"{path}.{os.getpid()}")
    part.write_text(str(os.getpid()))
    part.rename(path)


def until_there(begun, path, code=0):
    """Run until ``path`` is there."""
    begin(begun)
    wait_until(Path(path).exists, timeout_s=60.0)
    os._exit(code)


def for_ever(begun=None):
    """Run until somebody ends it."""
    if begun is not None:
        begin(begun)
    while True:
        signal.pause()


def note(path):
    """Write down that this was started, again or not."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    for_ever(f"{path}.begun")


def say(word):
    print(word, flush=True)


def say_when(ready, path, word):
    """Say something as soon as ``path`` is there."""
    begin(ready)
    wait_until(Path(path).exists, timeout_s=60.0)
    print(word, flush=True)


def with_a_program(path):
    """Start a program that would run on, and wait for it."""
    with subprocess.Popen(["sleep", "3600"]) as program:
        part = Path(f"{path}.part")
        part.write_text(str(program.pid))
        part.rename(path)


def with_an_orphan(begun, noticed):
    """Start a process that says when this one is gone, and run until then."""
    multihost.Process(target=notice, args=(begun, noticed)).start()
    for_ever()


def notice(begun, noticed):
    """Say that this runs, and then that the parent is gone."""
    parent = multihost.parent_process()
    if parent.is_alive():
        begin(begun)
    parent.join()
    if not parent.is_alive():
        Path(noticed).touch()


def set_by_a_thread(event, path):
    """Leave behind a thread that sets ``event`` as soon as ``path`` is there."""

    def run():
        wait_until(Path(path).exists)
        event.set()

    threading.Thread(target=run).start()


def print_from_c(word):
    """Print as C code does into a pipe: it is written when the process ends, not before."""
    import ctypes

    ctypes.CDLL(None).printf(b"%s\n", word.encode())


def tell_of_chance(path):
    """Write down what must be no other process's."""
    import multiprocessing
    import random

    secret = bytes(multiprocessing.current_process().authkey).hex()
    part = Path(f"{path}.part")
    part.write_text(f"{random.random()} {secret} {os.getpgrp() == os.getpid()}")
    part.rename(path)


def leave_an_orphan(path):
    """Start a program that outlives this, in a session of its own."""
    with Path(path).open("w") as file:
        orphan = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        file.write(str(orphan.pid))
    os._exit(0)


def command_line():
    """Arguments of this process."""
    return Path("/proc/self/cmdline").read_text().split("\0")
