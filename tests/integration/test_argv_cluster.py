"""Tasks see the arguments of the program that they come from, not those of their worker."""

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
