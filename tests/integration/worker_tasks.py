"""What the tests of the worker have run: tasks that die, hang, print, fork and misbehave."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from multihost.core.digest import digest_of

PATIENCE_S = 20


def append(path, line):
    """A line of a file, written at once, from whatever process."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")


def lines(path):
    try:
        return Path(path).read_text().split()
    except FileNotFoundError:
        return []


def wait_for(path):
    deadline = time.monotonic() + PATIENCE_S
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


# what ends well -------------------------------------------------------------------------


def triple(n):
    return 3 * n


def where(_=None):
    return os.getpid()


def until_there(path):
    """Runs until a file is there, and says by another that it has begun."""
    Path(f"{path}.begun").write_text(str(os.getpid()))
    wait_for(path)
    return os.getpid()


def note_and_make(log, number, made=None):
    append(log, number)
    if made is not None:
        Path(made).touch()
    return number


def note_and_sleep(log, number, seconds):
    append(log, number)
    time.sleep(seconds)
    return number


def nested_map(count):
    from multihost import Pool

    with Pool() as pool:
        return pool.map(triple, range(count), 1)


# what dies ------------------------------------------------------------------------------


def print_and_die(words):
    print(words)
    os.kill(os.getpid(), signal.SIGKILL)


def die_of(number):
    os.kill(os.getpid(), number)


def exit_at_once(code):
    os._exit(code)


def die_first(marker):
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def fork_and_die(path):
    """Dies while a process that it forked, and that has its descriptors, lives on."""
    if (pid := os.fork()) == 0:
        time.sleep(PATIENCE_S)
        os._exit(0)
    append(path, pid)
    os.kill(os.getpid(), signal.SIGKILL)


def fork_and_return(_):
    """Forgets to end the process that it forked."""
    return os.fork()


def start_program(path):
    """Starts a program that nobody waits for."""
    program = subprocess.Popen(["sleep", "1000"])
    append(path, program.pid)
    append(path, os.getpid())
    wait_for(f"{path}.never")


def start_program_and_hold_the_gil(path):
    program = subprocess.Popen(["sleep", "1000"])
    append(path, program.pid)
    append(path, os.getpid())
    hold_the_gil()


# what does not end ------------------------------------------------------------------------


def sleep_long(_=None):
    time.sleep(PATIENCE_S)


def ignore_the_interrupt(log):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            time.sleep(PATIENCE_S)
        except BaseException as error:
            append(log, type(error).__name__)


def hold_the_gil(_=None):
    """C code that lets no other thread run and looks at no signal."""
    library = ctypes.PyDLL(None)
    deadline = time.monotonic() + PATIENCE_S
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    while time.monotonic() < deadline:
        library.usleep(30_000_000)


def block_all_signals(_=None):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(PATIENCE_S)


def interrupt_myself(log):
    append(log, "started")
    os.kill(os.getpid(), signal.SIGUSR1)
    return "done"


# what prints ------------------------------------------------------------------------------


def print_in_every_way(words):
    print(f"{words} of Python")
    print(f"{words} of Python's stderr", file=sys.stderr)
    subprocess.run(["echo", f"{words} of a program"], check=True)
    os.write(1, f"{words} of a descriptor\n".encode())
    return words


def print_while_the_agent_stands_still(number, path):
    """Print what the agent can't read now; the first of several has it stopped."""
    if number == 0:
        agent = os.getppid()
        os.kill(agent, signal.SIGSTOP)
        while Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
    append(path, number)
    os.write(1, f"number {number} \n".encode())
    os.write(2, f"number {number}, aside\n".encode())


def print_much(megabytes):
    for number in range(megabytes * 1024):
        print(f"{number:06} ".ljust(1023, "."))


def print_from_forks(count):
    """Forked processes print while this one does."""
    pids = []
    for number in range(count):
        if (pid := os.fork()) == 0:
            for line in range(10):
                print(f"fork {number} line {line} ".ljust(2999, "."))
            os._exit(0)
        pids.append(pid)
    for line in range(10):
        print(f"parent line {line} ".ljust(9_999, "."))
    for pid in pids:
        os.waitpid(pid, 0)
    return count


# what can't be sent -------------------------------------------------------------------------


class OnlyHere(Exception):
    """Can't be unpickled: its constructor wants more than it gives."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


class NoRepr:
    """Neither pickled nor shown."""

    def __reduce__(self):
        raise TypeError("not for sending")

    def __repr__(self):
        raise ValueError("not for showing")


class Leaving(Exception):
    """Whoever unpickles it ends."""

    def __reduce__(self):
        return sys.exit, (7,)


class LeavesOnArrival:
    def __reduce__(self):
        return sys.exit, (7,)


def raise_only_here():
    raise OnlyHere("this", "that")


def raise_unspeakable():
    raise Unspeakable


def raise_leaving():
    raise Leaving("gone")


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


def leave(code):
    sys.exit(code)


def give_lock():
    return threading.Lock()


def give_what_cannot_be_shown():
    return NoRepr()


def give_bytes(size):
    return bytes(range(256)) * (size // 256)


def shut_all_descriptors():
    os.closerange(3, 256)


# pools --------------------------------------------------------------------------------------

SETTING = ["unset"]


def set_setting(value):
    SETTING[0] = value


def setting(_=None):
    return SETTING[0]


def fail_to_start():
    raise LookupError("no such licence")


def count_overlap(directory):
    """How many calls of this are under way at once, itself included."""
    mine = Path(directory) / str(os.getpid())
    mine.touch()
    time.sleep(0.01)
    count = len(list(Path(directory).iterdir()))
    mine.unlink()
    return count


def leave_program_behind():
    return subprocess.Popen(["sleep", "1000"]).pid


def until_there_then_bytes(path, size):
    Path(f"{path}.{size}.begun").touch()
    wait_for(path)
    return bytes(size)


def turn_first_byte(data):
    """As large a result as its argument, in as little memory as that takes."""
    return bytes([data[0] ^ 1]) + data[1:]


_ballast = []


def set_ballast(data):
    _ballast[:] = [data]


def digest_of_ballast():
    return digest_of(_ballast[0])


def leave_with_length(data):
    sys.exit(len(data) >> 20)
