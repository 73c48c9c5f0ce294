"""Pool on a real server with real workers: what its own processes do, and what dies."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.pool import MaybeEncodingError
from pathlib import Path

import pytest

from multihost import Pool, errors
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=2, slots=2, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def new_pool(cluster):
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            Pool(*args, **kwargs, url=cluster.url, authkey=cluster.key)
        )


def triple(x):
    return 3 * x


def where(_=None):
    return os.getpid()


def overlapping(directory):
    """How many calls of this are under way at once, itself included."""
    mine = Path(directory) / f"{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    count = len(list(Path(directory).iterdir()))
    mine.unlink()
    return count


def die(signal_number=signal.SIGKILL):
    os.kill(os.getpid(), signal_number)


def die_once(marker):
    with contextlib.suppress(FileExistsError):
        Path(marker).touch(exist_ok=False)
        die()
    return "alive"


STARTED = []


def note_start(value):
    STARTED.append(value)


def started(_):
    return list(STARTED)


def refuse_to_start():
    raise LookupError("no such licence")


def unpicklable(_):
    return threading.Lock()


def say(text):
    print(text)
    print(f"{text}!", file=sys.stderr)


def test_large_arguments_and_results_come_through(new_pool):
    data = os.urandom(3 << 20)
    pool = new_pool(2)
    assert pool.apply(bytes.__add__, (data, b"!")) == data + b"!"
    assert pool.map(len, [data, data[:100_000], b""]) == [3 << 20, 100_000, 0]


def test_no_more_than_its_width_run_at_once(new_pool, tmp_path):
    assert set(new_pool(1).map(overlapping, [str(tmp_path)] * 50, 1)) == {1}
    assert max(new_pool(2).map(overlapping, [str(tmp_path)] * 50, 1)) <= 2


def test_every_child_runs_the_initializer_once(new_pool):
    pool = new_pool(2, note_start, ("hello",))
    assert {tuple(values) for values in pool.map(started, range(40), 1)} == {("hello",)}


def test_a_pool_shows_the_children_that_serve_it(new_pool, cluster):
    pool = new_pool(2, note_start, ("hello",))

    def are_shown():
        pids = set(pool.map(where, range(40), 1))
        shown = pool._pool
        return len(shown) == 2 and pids <= {process.pid for process in shown}

    # A slot that is late may be stood in for, and the pool moves.
    wait_until(are_shown, "both of its children are shown")
    shown = pool._pool
    assert all(process.is_alive() and process.exitcode is None for process in shown)
    victim = shown[0]
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: victim.exitcode == 255, "the worker has told that the child is gone")
    assert victim.pid not in {process.pid for process in pool._pool}

    def listed():
        return [child["pid"] for row in cluster.get("/api/workers") for child in row["children"]]

    wait_until(lambda: len(listed()) == 4, "another has its slot")


def test_a_pool_that_is_wider_than_the_workers_shows_what_is_missing(new_pool):
    shown = new_pool(6)._pool
    assert len(shown) == 6
    assert [(p.pid, p.is_alive(), p.exitcode) for p in shown[4:]] == [(None, False, None)] * 2


def test_a_raising_initializer_is_raised_by_every_result_and_hangs_nothing(new_pool):
    pool = new_pool(2, refuse_to_start)
    results = [pool.apply_async(triple, (i,)) for i in range(5)]
    for result in results:
        with pytest.raises(LookupError, match="no such licence"):
            result.get(30)


def test_maxtasksperchild_counts_chunks(new_pool):
    pool = new_pool(1, maxtasksperchild=2)
    pids = pool.map(where, range(8), 1)
    assert len(set(pids)) == 4
    assert all(pids.count(pid) == 2 for pid in pids)


def test_a_task_that_kills_its_process_once_is_run_again(new_pool, tmp_path):
    assert new_pool(2).apply_async(die_once, (str(tmp_path / "died"),)).get(30) == "alive"


def test_a_task_that_always_kills_its_process_fails_with_its_certificates(new_pool):
    pool = new_pool(2)
    with pytest.raises(errors.TaskCrashed, match="signal 9") as caught:
        pool.apply_async(die).get(60)
    assert [certificate.exit_code for certificate in caught.value.certificates] == [-9, -9, -9]
    assert pool.apply(triple, (14,)) == 42


def test_sys_exit_in_a_task_is_its_error(new_pool):
    with pytest.raises(SystemExit):
        new_pool(1).apply_async(sys.exit, (3,)).get(30)


def test_a_result_that_cannot_be_pickled_is_a_maybe_encoding_error(new_pool):
    pool = new_pool(1)
    with pytest.raises(MaybeEncodingError, match="lock"):
        pool.apply(unpicklable, (1,))
    assert pool.apply(triple, (1,)) == 3


def test_a_missing_module_is_named_with_the_worker_and_the_remedy(new_pool, monkeypatch, tmp_path):
    (tmp_path / "only_here.py").write_text("def work(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pytest.raises(errors.MissingModule, match="only_here") as caught:
        new_pool(1).apply_async(only_here.work, (1,)).get(30)
    assert caught.value.module == "only_here"
    assert caught.value.worker
    assert "pip install" in str(caught.value)


def test_lambdas_and_closures_travel(new_pool):
    step = 5
    pool = new_pool(2)
    assert pool.map(lambda x: x + step, range(5)) == [5, 6, 7, 8, 9]
    step = 7
    assert pool.map(lambda x: x + step, range(2)) == [7, 8]


def test_what_tasks_print_appears_here(new_pool, capsys):
    with new_pool(1) as pool:
        pool.apply(say, ("printed elsewhere",))
        seen = ["", ""]

        def has_come():
            captured = capsys.readouterr()
            seen[0] += captured.out
            seen[1] += captured.err
            return "elsewhere\n" in seen[0] and "elsewhere!\n" in seen[1]

        wait_until(has_come)


def announce(words):
    print("begin:", words)
    print("half a line", end="")


def test_what_an_initializer_prints_appears_here_and_before_the_tasks_of_its_child(
    new_pool, capsys
):
    pool = new_pool(1, announce, ("words",))
    pool.apply(print, ("of the task",))
    seen = []
    wait_until(lambda: seen.append(capsys.readouterr().out) or "of the task" in "".join(seen))
    assert "".join(seen) == "begin: words\nhalf a lineof the task\n"


def test_what_tasks_print_is_kept_away_on_request(new_pool, capsys):
    with new_pool(1, output=False) as pool:
        pool.apply(say, ("not for here",))
        with new_pool(1) as other:
            other.apply(say, ("for here",))
            seen = []
            wait_until(lambda: seen.append(capsys.readouterr().out) or "for here" in "".join(seen))
    assert "not for here" not in "".join(seen)


def test_terminate_ends_what_runs(new_pool, tmp_path, cluster):
    pool = new_pool(2)
    results = pool.map_async(time.sleep, [3600] * 10, 1)
    wait_until(lambda: any(job["running"] for job in cluster.get("/api/jobs?state=open")))
    pool.terminate()
    pool.join()
    with pytest.raises(errors.TaskCancelled):
        results.get(30)
    other = new_pool(4)
    assert other.map(triple, range(8), 1) == [3 * i for i in range(8)]


def test_a_named_pool_run_again_does_nothing_twice(cluster, tmp_path):
    log = tmp_path / "log"
    for _ in range(2):
        with Pool(2, name="night", url=cluster.url, authkey=cluster.key) as pool:
            assert pool.starmap(append_line, [(str(log), i) for i in range(20)], 3) == list(
                range(20)
            )
    assert sorted(map(int, log.read_text().split())) == list(range(20))


def append_line(path, number):
    with Path(path).open("a") as file:
        file.write(f"{number}\n")
    return number


def test_a_server_that_is_killed_and_started_again_is_not_noticed(tmp_path):
    with (
        Cluster(workers=1, slots=2, python_path=HERE) as cluster,
        Pool(2, url=cluster.url, authkey=cluster.key) as pool,
    ):
        results = [pool.apply_async(triple, (i,)) for i in range(500)]
        cluster.kill_server()
        results += [pool.apply_async(triple, (i,)) for i in range(500, 1000)]
        cluster.start_server()
        assert [result.get(60) for result in results] == [3 * i for i in range(1000)]
