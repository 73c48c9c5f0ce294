"""People's own scripts with two queues, run with one line changed, and killed in the middle."""

import os
import signal
import sys

import psutil
import pytest
from managers_bench import Stage, pythons

from multihost.testing import wait_until

PYTHONS = pythons()
OLDEST = PYTHONS[min(PYTHONS, key=lambda version: int(version.split(".")[1]))]


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def squares(master):
    put = sorted(int(line.split()[1]) for line in master.lines if line.startswith("put "))
    return sorted(f"{n} * {n} = {n * n}" for n in put)


def front_of(script):
    """The process that keeps a script's queues."""
    for child in psutil.Process(script.process.pid).children(recursive=True):
        if "multihost.managers_front" in child.cmdline():
            return child
    return None


@pytest.mark.parametrize("ours", [True, False])
def test_master_and_workers_over_two_queues(stage, ours):
    master = stage.run("master", ours=True)
    master.wait_for("waiting")
    workers = [stage.run("worker", ours=ours, python=sys.executable) for _ in range(2)]
    master.end()
    assert master.results() == squares(master)
    assert master.lines[-1] == "master exit"
    for worker in workers:
        worker.process.wait(20)
    assert list((stage.state / "managers").glob("*")) == []


def test_workers_of_an_old_python_serve_a_master_of_ours(stage):
    master = stage.run("master", ours=True)
    master.wait_for("waiting")
    stage.run("worker", python=OLDEST)
    master.end()
    assert master.results() == squares(master)


def test_a_killed_master_finds_its_queues_as_they_were(stage):
    first = stage.run("master", ours=True)
    first.wait_for("waiting")
    first.kill()
    second = stage.run("master", ours=True)
    second.wait_for("waiting")
    worker = stage.run("worker", ours=True)
    second.end()
    # The first ten of twenty tasks are those of the killed master.
    assert second.results() == squares(first)
    worker.close()


def test_a_worker_killed_between_take_and_put_loses_nothing(stage):
    god = stage.run("god", ours=True)
    god.wait_for("ready")
    stage.run("producer", "1", "2", "3").end()
    consumers = [stage.run("consumer", ours=ours) for ours in (True, False)]
    for consumer in consumers:
        consumer.wait_for("ready")
    wait_until(lambda: len(god.results()) == 3, "three results")
    consumers[0].kill()
    stage.run("producer", "4", "5", ours=True).end()
    wait_until(lambda: god.results() == ["10", "2", "4", "6", "8"], "five results")


def test_the_queues_server_of_a_manager_is_replaced_when_it_is_killed(stage):
    god = stage.run("god", ours=True)
    god.wait_for("ready")
    stage.run("producer", "1", "2", "3").end()
    front = front_of(god)
    front.send_signal(signal.SIGKILL)
    front.wait(20)
    consumer = stage.run("consumer")
    consumer.wait_for("put", 3)
    wait_until(lambda: god.results() == ["2", "4", "6"], f"three results in {god.lines}")


def test_nothing_of_a_killed_program_stays_behind(stage):
    god = stage.run("god", ours=True)
    god.wait_for("ready")
    below = psutil.Process(god.process.pid).children(recursive=True)
    assert below
    god.kill()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert alive == []


def test_a_killed_masters_other_children_do_not_keep_its_address(stage):
    first = stage.run("family", ours=True)
    first.wait_for("ready")
    child = int(next(line for line in first.lines if line.startswith("child ")).split()[1])
    try:
        first.process.kill()
        second = stage.run("god", ours=True)
        second.wait_for("ready")
    finally:
        os.kill(child, signal.SIGKILL)
