"""Tasks have the arguments and settings of the program that they come from."""

import subprocess
import sys
from pathlib import Path

import pytest

from multihost.testing import Cluster

PROGRAM = """
import sys
import multihost

seen = []

def initialize():
    seen[:] = sys.argv

def arguments(_):
    return sys.argv[1:], seen[1:]

if __name__ == "__main__":
    with multihost.Pool(1, initialize) as pool:
        print(pool.map(arguments, [0]))
    with multihost.Executor(1) as executor:
        print(executor.submit(arguments, 0).result()[0])
    with multihost.connect() as client:
        print(*(found for found, _ in client.map(arguments, [0], name="lasting")))
"""


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=1, slots=1, python_path=[str(Path(__file__).parent)]) as cluster:
        yield cluster


def run(cluster, path, *arguments):
    command = [sys.executable, str(path), *arguments]
    output = subprocess.check_output(command, env=cluster.environment, timeout=40, text=True)
    return output.splitlines()


def test_tasks_see_the_arguments_of_the_program_that_they_come_from(cluster, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    own = "['--first', 'x']"
    assert run(cluster, path, "--first", "x") == [f"[({own}, {own})]", own, own]
    # One slot serves both programs, and a named map goes on whatever its program is told.
    other = "['--other']"
    assert run(cluster, path, "--other") == [f"[({other}, {other})]", other, own]


def test_very_long_arguments_stay_with_the_program(cluster, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    found = run(cluster, path, "x" * 20_000)
    assert "xxx" not in "".join(found)


LOGGING = """
import logging
import socket
import sys

import multihost

logging.basicConfig(
    level=logging.INFO,
    format="{levelname}:{processName}:{message}",
    style="{",
    handlers=[logging.StreamHandler(sys.stdout), logging.FileHandler("all.log")],
)
logging.getLogger("app.loud").setLevel(logging.DEBUG)
sys.setrecursionlimit(4321)
socket.setdefaulttimeout(7)

def work(where):
    logging.info("in a %s", where)
    logging.getLogger("app.loud").debug("all of a %s", where)
    logging.debug("unheard")
    return sys.getrecursionlimit(), socket.getdefaulttimeout()

if __name__ == "__main__":
    with multihost.Pool(1) as pool:
        print(pool.apply(work, ("task",)))
    process = multihost.Process(target=work, args=("process",))
    process.start()
    process.join()
"""

SILENT = """
import logging
import sys

import multihost

def settings():
    loud = logging.getLogger("app.loud")
    loud.info("unheard")
    return sys.getrecursionlimit(), len(logging.root.handlers), logging.root.level, loud.level

if __name__ == "__main__":
    with multihost.Pool(1) as pool:
        print(pool.apply(settings))
"""


def test_tasks_and_processes_log_as_their_program_does_and_no_others(cluster, tmp_path):
    loud, silent = tmp_path / "loud.py", tmp_path / "silent.py"
    loud.write_text(LOGGING)
    silent.write_text(SILENT)
    command = [sys.executable, str(loud)]
    output = subprocess.check_output(
        command, env=cluster.environment, cwd=tmp_path, timeout=40, text=True
    )
    number = output.partition("SpawnPoolWorker-")[2].partition(":")[0]
    logged = [
        f"INFO:SpawnPoolWorker-{number}:in a task",
        f"DEBUG:SpawnPoolWorker-{number}:all of a task",
        "INFO:Process-1:in a process",
        "DEBUG:Process-1:all of a process",
    ]
    assert sorted(output.splitlines()) == sorted(["(4321, 7.0)", *logged])
    assert sorted((tmp_path / "all.log").read_text().splitlines()) == sorted(logged)
    # The one slot serves the other program, too.
    assert run(cluster, silent) == ["(1000, 0, 30, 0)"]
