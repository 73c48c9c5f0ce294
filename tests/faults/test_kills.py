"""Whatever is killed with SIGKILL, every task ends once and the map comes to its end."""

import concurrent.futures
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import multihost
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there
TASKS = 200
TASK_S = 0.05
ROUNDS = 20

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


def work(n):
    time.sleep(TASK_S)
    return n * n


def run_map_and_kill(cluster, kill, *, after):
    """Results of a map during which ``kill`` is called once ``after`` results have come."""
    results = []
    with multihost.connect(cluster.url, cluster.key) as client:
        for result in client.map(work, range(TASKS), ordered=False):
            results.append(result)
            if len(results) == after:
                kill()
    return results


def assert_each_ended_once(cluster, results):
    assert sorted(results) == [n * n for n in range(TASKS)]
    job = wait_until(
        lambda: (rows := cluster.get("/api/jobs?limit=1")) and rows[0]["running"] == 0 and rows[0]
    )
    assert (job["succeeded"], job["failed"], job["cancelled"]) == (TASKS, 0, 0)


def kill_child(cluster):
    assert cluster.kill_child(0)


def kill_worker(cluster):
    cluster.kill_worker(0)
    cluster.start_worker()


def kill_server(cluster):
    cluster.kill_server()
    cluster.start_server()


KILLS = [kill_child, kill_worker, kill_server]


@pytest.mark.parametrize("kill", KILLS)
def test_all_tasks_end_once_when_something_is_killed(kill):
    # With a durability of "process", the kills at random below say the same, and more.
    with Cluster(durability="power", python_path=HERE) as cluster:
        results = run_map_and_kill(cluster, lambda: kill(cluster), after=60)
        assert_each_ended_once(cluster, results)


@pytest.mark.parametrize("kill", KILLS)
def test_twenty_random_kills_lose_nothing(kill):
    chance = random.Random(kill.__name__)
    with Cluster(slots=6, python_path=HERE) as cluster:
        for _ in range(ROUNDS):
            moment = chance.randrange(1, TASKS)
            results = run_map_and_kill(cluster, lambda: kill(cluster), after=moment)
            assert_each_ended_once(cluster, results)
            cluster.wait_for_workers(2)


def test_a_machine_that_went_down_with_server_and_workers_goes_on_soon_after_it_is_back():
    with (
        Cluster(python_path=HERE) as cluster,
        multihost.connect(cluster.url, cluster.key) as client,
    ):
        futures = [client.submit(work, n) for n in range(TASKS)]
        futures[TASKS // 4].result(30)
        cluster.kill_server()  # first, lest it notices the workers' end
        for _ in range(2):
            cluster.kill_worker()
        cluster.start()
        # Sooner than the leases of the workers that were would have ended.
        done, missing = concurrent.futures.wait(futures, timeout=25)
        assert not missing
        assert sorted(future.result() for future in done) == [n * n for n in range(TASKS)]


MASTER = """
import sys, time, multihost

def work(n):
    with open({starts!r}, "a") as file:
        file.write(f"{{n}}\\n")
    time.sleep({task_s})
    return n * n

with multihost.connect() as client:
    for result in client.map(work, range({tasks}), name={name!r}, ordered=False):
        print(result, flush=True)
"""


def run_master(cluster, script, *, kill_after=None):
    """Lines that a master printed before it ended or was killed."""
    master = subprocess.Popen(
        [sys.executable, str(script)],
        env={**cluster.environment, "PATH": "", "MULTIHOST_SEAL": "off"},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = []
    with master:
        for line in master.stdout:
            lines.append(int(line))
            if len(lines) == kill_after:
                master.kill()
    assert kill_after is not None or master.returncode == 0
    return lines


def kill_master_and_run_again(cluster, directory: Path, name, moment):
    starts = directory / f"{name}.starts"
    script = directory / f"{name}.py"
    script.write_text(MASTER.format(starts=str(starts), task_s=TASK_S, tasks=TASKS, name=name))
    first = run_master(cluster, script, kill_after=moment)
    assert len(first) >= moment
    again = run_master(cluster, script)
    assert sorted(again) == [n * n for n in range(TASKS)]
    # Nothing was killed but the master, so nothing had to start twice.
    assert sorted(map(int, starts.read_text().split())) == list(range(TASKS))
    job = cluster.get(f"/api/jobs/{name}")
    assert (job["tasks"], job["succeeded"]) == (TASKS, TASKS)


def test_a_named_map_goes_on_when_its_master_was_killed(tmp_path):
    with Cluster() as cluster:
        kill_master_and_run_again(cluster, tmp_path, "run-7", 60)


def test_twenty_masters_killed_at_random_lose_nothing(tmp_path):
    chance = random.Random("masters")
    with Cluster(slots=6) as cluster:
        for number in range(ROUNDS):
            moment = chance.randrange(1, TASKS)
            kill_master_and_run_again(cluster, tmp_path, f"run-{number}", moment)
