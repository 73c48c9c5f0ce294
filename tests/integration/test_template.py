"""Children that are forked from a worker's template: as good as those that it starts itself."""

import contextlib
import os
import signal
from pathlib import Path

import process_tasks as tasks
import psutil
import pytest
from process_program import used

from multihost import Pool, Process
from multihost.testing import Cluster, wait_until
from multihost.testing.cluster import TEMPLATE

HERE = [str(Path(__file__).parent)]  # the workers import process_tasks from there
WAIT_S = 60

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def cluster(monkeypatch):
    with Cluster(python_path=HERE, workers=1, slots=1) as cluster, used(cluster, monkeypatch):
        yield cluster


def started(target, *args):
    process = Process(target=target, args=args)
    process.start()
    return process


def ended(process):
    process.join(WAIT_S)
    return process.exitcode


def templates(cluster):
    below = psutil.Process(cluster.workers[0].pid).children()
    return [child.pid for child in below if child.name() == TEMPLATE]


def warmed_up(cluster):
    """The template; a first process had it started, and this one's children are forked."""
    assert ended(started(os.getpid)) == 0
    (template,) = wait_until(lambda: templates(cluster))
    assert ended(started(os.getpid)) == 0
    return template


def is_forked(pid):
    return "template" in psutil.Process(pid).cmdline()


def is_gone(pid):
    return not psutil.pid_exists(pid)


def test_processes_are_forked_and_are_the_workers_own_children(cluster, tmp_path):
    warmed_up(cluster)
    several = [started(tasks.for_ever, tmp_path / str(number)) for number in range(4)]
    assert all(is_forked(process.pid) for process in several[1:])
    for process in several:
        child = psutil.Process(process.pid)
        assert child.ppid() == cluster.workers[0].pid
        name = psutil.Process(cluster.workers[0].pid).name()
        wait_until(lambda child=child, name=name: child.name() == name)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 4)
    several[0].kill()
    several[1].terminate()
    assert [ended(process) for process in several[:2]] == [-signal.SIGKILL, -signal.SIGTERM]


def test_a_process_can_be_ended_the_moment_it_is_started(cluster):
    warmed_up(cluster)
    several = [started(tasks.for_ever) for _ in range(5)]
    for process in several:
        process.kill()
    assert [ended(process) for process in several] == [-signal.SIGKILL] * 5


def test_forked_processes_share_no_secret_and_no_chance(cluster, tmp_path):
    warmed_up(cluster)
    paths = [tmp_path / str(number) for number in range(3)]
    assert [ended(started(tasks.tell_of_chance, path)) for path in paths] == [0] * 3
    told = [path.read_text().split() for path in paths]
    assert len({chance for chance, _, _ in told}) == 3
    assert all(is_leader == "True" for _, _, is_leader in told)


def test_what_c_code_left_in_its_buffer_is_written_at_the_end(cluster, capfd):
    warmed_up(cluster)
    assert ended(started(tasks.print_from_c, "words of C")) == 0
    assert capfd.readouterr().out == "words of C\n"


def test_the_template_may_die_and_its_children_go_on(cluster, tmp_path):
    template = warmed_up(cluster)
    stop = tmp_path / "stop"
    several = [
        started(tasks.until_there, tmp_path / str(number), stop, number) for number in range(3)
    ]
    assert is_forked(several[-1].pid)
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: is_gone(template))
    later = started(tasks.until_there, tmp_path / "later", stop, 7)
    stop.touch()
    assert [ended(process) for process in (*several, later)] == [0, 1, 2, 7]
    wait_until(lambda: templates(cluster), "there is another template")
    assert ended(started(os.getpid)) == 0


def test_a_killed_worker_leaves_neither_template_nor_forked_children(cluster, tmp_path):
    template = warmed_up(cluster)
    several = [started(tasks.for_ever, tmp_path / str(number)) for number in range(2)]
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    cluster.kill_worker()
    for pid in (template, *(process.pid for process in several)):
        wait_until(lambda pid=pid: is_gone(pid))


def test_what_a_process_leaves_behind_vanishes_when_it_ends(cluster, tmp_path):
    warmed_up(cluster)
    path = tmp_path / "orphan"
    assert ended(started(tasks.leave_an_orphan, path)) == 0
    orphan = int(path.read_text())
    assert psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE
    os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: is_gone(orphan), "it is no zombie of the worker's")


def test_a_pools_children_that_serve_few_tasks_are_forked(cluster):
    with Pool(1, maxtasksperchild=1) as pool:
        wait_until(lambda: "template" in pool.apply(tasks.command_line))
        assert len({pool.apply(os.getpid) for _ in range(3)}) == 3


def test_a_worker_that_leaves_takes_its_template_along(cluster):
    template = warmed_up(cluster)
    cluster.workers[0].terminate()
    cluster.workers[0].wait(WAIT_S)
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(template).status() == psutil.STATUS_ZOMBIE
