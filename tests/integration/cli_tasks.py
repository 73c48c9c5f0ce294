"""What the jobs of the command line's tests run."""

import os
import signal
import sys
import time
from pathlib import Path


def double(n):
    return 2 * n


def fail_on_odd(n):
    print(f"looking at {n}", flush=True)
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n


def die(n):
    print("these are my last words")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def until_there(path):
    Path(f"{path}.begun").touch()
    deadline = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path
