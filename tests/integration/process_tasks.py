"""What processes of the tests run; the workers import it."""

import os
import signal
import subprocess
from pathlib import Path

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
