"""Process in programs that configure nothing: an embedded server, and nothing left behind."""

import os
import signal
import subprocess

import psutil
import pytest
from programs import run, start

from multihost.testing import wait_until

pytestmark = pytest.mark.timeout(120)

HEAD = "import multihost as multiprocessing\nfrom multihost import Process\n"


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


def assert_gone(processes):
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in processes))


def test_a_process_runs_its_target_under_its_name_and_number(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
def tell(word, *, mark):
    me = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    print(word + mark, me.name, me.pid, me.daemon, bytes(me.authkey).hex())
    print(parent.name, parent.pid)

if __name__ == "__main__":
    import os
    process = Process(target=tell, args=("hello",), kwargs={"mark": "!"})
    assert not process.is_alive() and process.pid is None and process.exitcode is None
    process.start()
    process.join()
    assert not process.is_alive() and process.exitcode == 0
    me = multiprocessing.current_process()
    print(process.name, process.pid, process.daemon, bytes(me.authkey).hex())
    print(me.name, os.getpid())
""",
    )
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"hello! {lines[2]}"
    assert lines[2].startswith("Process-1 ")
    assert lines[1] == lines[3]


def test_a_subclass_with_run_defined_in_the_program_works_without_a_guard(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
print("once")

class Greeter(Process):
    def __init__(self, whom):
        super().__init__(name="greeter of " + whom)
        self.whom = whom

    def run(self):
        print("hello", self.whom, "from", multiprocessing.current_process().name)

processes = [Greeter(whom) for whom in ("ann",)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
""",
    )
    assert err == ""
    assert out == "once\nhello ann from greeter of ann\n[0]\n"


def test_more_processes_than_slots_run_at_the_same_time(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
from pathlib import Path
from multihost.testing import wait_until

def meet(number, count):
    Path(f"here-{number}").touch()
    wait_until(lambda: len(list(Path().glob("here-*"))) == count)

processes = [Process(target=meet, args=(number, 10)) for number in range(10)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print([process.exitcode for process in processes])
""",
    )
    assert out == f"{[0] * 10}\n"


ENDS = [
    ("sys.exit()", 0, ""),
    ("sys.exit(8)", 8, ""),
    ("sys.exit(True)", 1, ""),
    ("sys.exit('no more')", 1, "no more\n"),
    ("os._exit(7)", 7, ""),
    ("os.kill(os.getpid(), 15)", -15, ""),
    ("os.kill(os.getpid(), 9)", -9, ""),
    ("os.abort()", -6, ""),
    ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
]


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What a program that has processes end in each way shows of them, on stdout and on stderr."""
    outputs = run(
        tmp_path_factory.mktemp("ends"),
        HEAD
        + f"""
import os, sys
for end in {[end for end, _, _ in ENDS]!r}:
    process = Process(target=exec, args=("import os, sys; " + end,), name="Ender")
    process.start()
    process.join()
    print(process.exitcode, end="---", flush=True)
    print(end="---", file=sys.stderr, flush=True)
""",
    )
    return [output.split("---") for output in outputs]


@pytest.mark.parametrize("number", range(len(ENDS)), ids=[end for end, _, _ in ENDS])
def test_the_exit_code_tells_how_a_process_ended(ends, number):
    end, code, says = ENDS[number]
    out, err = ends[0][number], ends[1][number]
    assert out == f"{code}"
    if "/" in end:
        assert err.startswith("Process Ender:\nTraceback (most recent call last):\n")
        assert err.endswith(says)
    else:
        assert err == says


def test_a_process_can_be_ended(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import time
for end in (Process.terminate, Process.kill):
    process = Process(target=time.sleep, args=(3600,))
    process.start()
    assert process.is_alive() and multiprocessing.active_children() == [process]
    process.join(0)
    assert process.exitcode is None
    end(process)
    process.join()
    assert not process.is_alive() and multiprocessing.active_children() == []
    print(process.exitcode)
""",
    )
    assert out == "-15\n-9\n"


def test_a_process_that_handles_sigterm_ends_as_it_likes(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import os, signal, sys, time
from pathlib import Path
from multihost.testing import wait_until
def stubborn():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    Path("ready").touch()
    time.sleep(3600)
process = Process(target=stubborn)
process.start()
wait_until(Path("ready").exists)
process.terminate()
process.join()
print(process.exitcode)
""",
    )
    assert out == "5\n"


def test_what_a_process_prints_appears_at_once_and_stdout_is_told_from_stderr(tmp_path):
    os.mkfifo(tmp_path / "go-on")
    program = start(
        tmp_path,
        HEAD
        + """
import os, subprocess, sys
def talk():
    print("first")
    print("oops", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo from a program; echo its trouble >&2"])
    os.write(1, b"from the descriptor\\n")
    sys.stdin = open(os.environ["GO_ON"])
    sys.stdin.readline()
    print("no end of line, then gone", end="", flush=True)
    os._exit(0)
process = Process(target=talk)
process.start()
process.join()
print()
print("joined", process.exitcode)
""",
        environment={"GO_ON": str(tmp_path / "go-on")},
    )
    shown = [program.stdout.readline() for _ in range(3)]
    assert sorted(shown) == ["first\n", "from a program\n", "from the descriptor\n"]
    with (tmp_path / "go-on").open("w") as go_on:
        go_on.write("\n")
    out, err = program.communicate(timeout=60)
    assert out == "no end of line, then gone\njoined 0\n"
    assert sorted(err.splitlines()) == ["its trouble", "oops"]


def test_no_byte_is_lost_however_much_is_printed_right_before_the_end(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import os
def talk(how):
    if how == "print":
        for number in range(100_000):
            print(number)
    else:
        data = b"".join(b"%d\\n" % number for number in range(100_000))
        while data:
            data = data[os.write(1, data):]
    os._exit(0)
for how in ("print", "write"):
    process = Process(target=talk, args=(how,))
    process.start()
    process.join()
    print("joined")
""",
    )
    once = "".join(f"{number}\n" for number in range(100_000)) + "joined\n"
    assert out == once + once


@pytest.mark.parametrize(
    ("options", "environment", "shown"),
    [
        ("", {}, "hello\n"),
        (", output=False", {}, ""),
        ("", {"MULTIHOST_OUTPUT": "none"}, ""),
        ("", {"MULTIHOST_OUTPUT": "named"}, "[Talker@{host}] hello\n"),
    ],
)
def test_output_can_be_turned_off_or_attributed(tmp_path, options, environment, shown):
    out, _ = run(
        tmp_path,
        HEAD
        + f"""
process = Process(target=print, args=("hello",), name="Talker"{options})
process.start()
process.join()
print("exit code", process.exitcode)
""",
        environment=environment,
    )
    assert out == shown.format(host=os.uname().nodename) + "exit code 0\n"


def test_a_pools_prints_come_before_what_the_program_prints_next(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
with multiprocessing.Pool(2) as pool:
    for number in range(50):
        pool.apply(print, ("task", number))
        print("main", number)
""",
    )
    assert out == "".join(f"task {number}\nmain {number}\n" for number in range(50))


def test_daemons_are_terminated_and_others_joined_when_the_program_ends(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
import time
from pathlib import Path
from multihost.testing import wait_until
def finish():
    wait_until(Path("go-on").exists)
    print("finished")
daemon = Process(target=time.sleep, args=(3600,), daemon=True)
daemon.start()
other = Process(target=finish)
other.start()
print(daemon.pid)
Path("go-on").touch()
""",
    )
    pid, word = out.split()
    assert (word, err) == ("finished", "")
    assert not psutil.pid_exists(int(pid))


def test_a_daemon_may_have_no_children(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
def parent():
    Process(target=print).start()
process = Process(target=parent, daemon=True)
process.start()
process.join()
print(process.exitcode)
""",
    )
    assert out == "1\n"
    assert err.endswith("AssertionError: daemonic processes are not allowed to have children\n")


def test_processes_start_processes_and_join_them(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
def count(path):
    print(multiprocessing.current_process().name, path, flush=True)
    if len(path) < 2:
        for step in "ab":
            process = Process(target=count, args=(path + step,))
            process.start()
            process.join()
count("")
""",
    )
    assert err == ""
    assert out.splitlines() == [
        "MainProcess ",
        "Process-1 a",
        "Process-1:1 aa",
        "Process-1:2 ab",
        "Process-2 b",
        "Process-2:1 ba",
        "Process-2:2 bb",
    ]


@pytest.mark.parametrize("then", ["process.join()", "time.sleep(3600)"])
def test_ctrl_c_reaches_the_processes_too(tmp_path, then):
    program = start(
        tmp_path,
        HEAD
        + f"""
import time
def work():
    try:
        print("working", flush=True)
        time.sleep(3600)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
process = Process(target=work)
process.start()
{then}
""",
    )
    assert program.stdout.readline() == "working\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert out == "interrupted\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


def test_a_forked_copy_of_the_program_ends_without_minding_the_processes(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
import os, sys, time
process = Process(target=time.sleep, args=(3600,))
process.start()
fork = os.fork()
if not fork:
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), process.is_alive())
process.kill()
""",
    )
    assert (out, err) == ("3 True\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_leaves_no_process(tmp_path, number):
    program = start(
        tmp_path,
        HEAD
        + """
import time
for _ in range(3):
    Process(target=time.sleep, args=(3600,)).start()
print("started", flush=True)
time.sleep(3600)
""",
    )
    assert program.stdout.readline() == "started\n"
    processes = descendants(program.pid)
    assert len(processes) >= 4
    program.send_signal(number)
    assert program.wait(30) == -number
    program.communicate()
    assert_gone(processes)


def test_a_child_sees_the_directory_environment_and_arguments_of_the_program(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    out, _ = run(
        tmp_path,
        HEAD
        + """
import os, sys
os.environ["WORD"] = "hello"
os.chdir("elsewhere")
sys.argv.append("argument")
def tell():
    print(os.environ["WORD"], os.path.basename(os.getcwd()), sys.argv[-1])
process = Process(target=tell)
process.start()
process.join()
""",
    )
    assert out == "hello elsewhere argument\n"


def test_a_sentinel_is_waited_for_with_others(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import time
from multiprocessing.connection import wait
slow = Process(target=time.sleep, args=(3600,))
quick = Process(target=time.sleep, args=(0,))
try:
    quick.sentinel
except ValueError as error:
    print(error)
slow.start()
quick.start()
print(wait([slow.sentinel, quick.sentinel]) == [quick.sentinel])
quick.join()
print(wait([slow.sentinel], 0))
slow.kill()
print(wait([slow.sentinel], 60) == [slow.sentinel])
""",
    )
    assert out == "process not started\nTrue\n[]\nTrue\n"


def test_a_process_is_started_once_and_closed_only_when_it_has_ended(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import time
def refused(call):
    try:
        call()
    except (AssertionError, ValueError) as error:
        print(type(error).__name__, error)
process = Process(target=time.sleep, args=(3600,))
refused(process.join)
process.start()
refused(process.start)
refused(process.close)
process.kill()
process.join()
process.close()
refused(process.is_alive)
""",
    )
    lines = out.splitlines()
    assert lines.pop(2).startswith("ValueError Cannot close a process while it is still running.")
    assert lines == [
        "AssertionError can only join a started process",
        "AssertionError cannot start a process twice",
        "ValueError process object is closed",
    ]


def test_an_argument_that_cannot_be_pickled_is_named_and_nothing_is_started(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import threading
process = Process(target=print, args=(1, threading.Lock()))
try:
    process.start()
except TypeError as error:
    print(error)
print(process.exitcode, multiprocessing.active_children())
""",
    )
    assert out.startswith("argument 1 of print (_thread.lock) can't be pickled")
    assert out.endswith("None []\n")


def test_locks_that_are_globals_are_each_processes_own_as_after_a_fork(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import queue, threading
lock, numbers = threading.Lock(), queue.Queue()
def work():
    with lock:
        numbers.put(42)
        print(numbers.get())
lock.acquire()
process = Process(target=work)
process.start()
process.join()
print(process.exitcode, numbers.qsize())
with multiprocessing.Pool(1) as pool:
    pool.apply(work)
""",
    )
    assert out == "42\n0 0\n42\n"


def test_a_large_argument_travels(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
def size(data):
    print(len(data))
process = Process(target=size, args=(bytes(20_000_000),))
process.start()
process.join()
""",
    )
    assert out == "20000000\n"


def test_a_process_started_by_a_pools_task_works(tmp_path):
    out, err = run(
        tmp_path,
        HEAD
        + """
def task(word):
    process = Process(target=print, args=(word,))
    process.start()
    process.join()
    return process.exitcode
with multiprocessing.Pool(1) as pool:
    print(pool.map(task, ["hello"]))
""",
    )
    assert (out, err) == ("hello\n[0]\n", "")


def test_contexts_and_their_processes_are_accepted(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
multiprocessing.set_start_method("spawn")
context = multiprocessing.get_context("fork")

class Mine(context.Process):
    def run(self):
        print(self.name, multiprocessing.get_start_method())

spawn = multiprocessing.get_context("spawn")
for make in (Mine, spawn.Process, multiprocessing.get_context().Process):
    process = make()
    process.start()
    process.join()
    print(process.name, process.exitcode)
""",
    )
    assert out == "Mine-1 spawn\nMine-1 0\nProcess-2 0\nProcess-3 0\n"


def test_the_logger_of_a_child_writes_where_its_parents_does(tmp_path):
    _, err = run(
        tmp_path,
        HEAD
        + """
import logging
def work():
    multiprocessing.get_logger().warning("from the child")
multiprocessing.log_to_stderr(logging.WARNING)
process = Process(target=work)
process.start()
process.join()
""",
    )
    assert err == "[WARNING/Process-1] from the child\n"


def test_an_interpreter_of_its_own_that_a_child_starts_is_heard(tmp_path):
    out, _ = run(
        tmp_path,
        HEAD
        + """
import os
def fork():
    if os.fork() == 0:
        print("from the fork", flush=True)
        os._exit(0)
    os.wait()
process = Process(target=fork)
process.start()
process.join()
""",
        stderr=subprocess.STDOUT,
    )
    assert out == "from the fork\n"
