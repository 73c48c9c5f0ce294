"""The tasks of the benchmark; workers import this module by its name."""

import os
import time


def tiny(number: int) -> int:
    """As close to no work as can be checked."""
    return number + 1


def rotate(data: bytes) -> bytes:
    """As many bytes back as came, and not the same ones (no store may keep them only once)."""
    return data[1:] + data[:1]


def nap(path: str, index: int, seconds: float) -> int:
    """Take ``seconds``, after a note in the file ``path`` that ``index`` was started here."""
    note = f"{index} {os.getpid()}\n".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, note)
    finally:
        os.close(descriptor)
    time.sleep(seconds)
    return index
