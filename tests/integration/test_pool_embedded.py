"""Programs that configure nothing: an embedded server, and nothing left behind."""

import re
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from multihost.testing import wait_until

pytestmark = pytest.mark.timeout(120)


def start(tmp_path, source, **options):
    """A program as a user has it: a file that is run."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(tmp_path, source):
    program = start(tmp_path, source)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    return out, err


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


def assert_gone(processes):
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in processes))


def test_functions_classes_and_closures_of_main_travel_both_ways(tmp_path):
    out, err = run(
        tmp_path,
        """
        from multihost import Pool

        class Point:
            def __init__(self, x):
                self.x = x
            def __eq__(self, other):
                return isinstance(other, Point) and self.x == other.x
            def moved(self, by):
                return Point(self.x + by)

        def twice(point):
            return Point(2 * point.x)

        if __name__ == "__main__":
            with Pool(2) as pool:
                assert pool.map(twice, [Point(1), Point(2)]) == [Point(2), Point(4)]
                assert pool.apply(Point(1).moved, (5,)) == Point(6)
                assert pool.apply(lambda: [Point(7)]) == [Point(7)]
                print("ok")
        """,
    )
    assert out == "ok\n"
    assert err == ""


def test_a_program_without_a_main_guard_runs_once(tmp_path):
    out, _ = run(
        tmp_path,
        """
        from multihost import Pool
        print("once")
        with Pool(2) as pool:
            print(pool.map(abs, [-1, 2]))
        """,
    )
    assert out == "once\n[1, 2]\n"


def test_what_tasks_print_appears_on_the_programs_own_output(tmp_path):
    out, err = run(
        tmp_path,
        """
        import sys
        from multihost import Pool
        def say(x):
            print("out", x)
            print("err", x, file=sys.stderr)
        if __name__ == "__main__":
            with Pool(1) as pool:
                pool.map(say, [1, 2])
        """,
    )
    assert out == "out 1\nout 2\n"
    assert err == "err 1\nerr 2\n"


def test_ctrl_c_while_the_program_ends_is_no_error(tmp_path):
    """Whoever is impatient presses it twice; what was started for the program ends by itself."""
    out, err = run(
        tmp_path,
        """
        import os, signal
        from multihost import Pool
        from multihost.client import client, embedded
        def interrupted(end):
            def interrupt(*args, **kwargs):
                os.kill(os.getpid(), signal.SIGINT)
                end(*args, **kwargs)
            return interrupt
        if __name__ == "__main__":
            with Pool(1) as pool:
                print(pool.apply(abs, (-1,)))
            client.Client.close = interrupted(client.Client.close)
            embedded.Embedded.stop = interrupted(embedded.Embedded.stop)
        """,
    )
    assert (out, err) == ("1\n", "")


def test_a_program_whose_users_server_has_died_says_that_it_uses_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIHOST_STATE", str(tmp_path / "state"))
    command = [sys.executable, "-m", "multihost", "server", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        wait_until((tmp_path / "state" / "server.json").exists, "the server is up")
        server.kill()
    out, err = run(
        tmp_path,
        """
        import multihost
        with multihost.Pool(1) as pool:
            print(pool.apply(abs, (-1,)))
        """,
    )
    assert out == "1\n"
    assert re.fullmatch(
        r"multihost: your server .*http.*, pid \d+\) has died, .*'multihost server'.*\n", err
    )


def test_a_program_that_forgets_its_pool_ends_and_leaves_nothing(tmp_path):
    program = start(
        tmp_path,
        """
        import sys, time
        from multihost import Pool
        pool = Pool(2)
        results = pool.map_async(time.sleep, [3600] * 4)
        print(pool.apply(abs, (-1,)) if False else "ready", flush=True)
        sys.stdin.readline()
        """,
        stdin=subprocess.PIPE,
    )
    assert program.stdout.readline() == "ready\n"
    processes = wait_until(lambda: descendants(program.pid))
    program.stdin.write("\n")
    program.stdin.close()
    assert program.wait(30) == 0
    program.stdout.close()
    program.stderr.close()
    assert_gone(processes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_leaves_nothing(tmp_path, number):
    program = start(
        tmp_path,
        """
        import os, time
        from multihost import Pool
        with Pool(2) as pool:
            print(pool.apply(os.getpid), flush=True)
            pool.map(time.sleep, [3600] * 4, 1)
        """,
    )
    assert int(program.stdout.readline())
    processes = wait_until(lambda: len(found := descendants(program.pid)) >= 3 and found)
    program.send_signal(number)
    program.wait(30)
    program.stdout.close()
    program.stderr.close()
    assert_gone(processes)


def test_a_forked_child_has_a_server_of_its_own_and_the_parents_lives_on(tmp_path):
    out, _ = run(
        tmp_path,
        """
        import os
        from multihost import Pool
        with Pool(1) as pool:
            print(pool.apply(abs, (-1,)), flush=True)
            child = os.fork()
            if child == 0:
                with Pool(1) as own:
                    print(own.apply(abs, (-2,)), flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print(pool.apply(abs, (-3,)), flush=True)
        """,
    )
    assert out == "1\n2\n3\n"


def test_an_embedded_server_that_dies_is_told_and_the_next_pool_starts_another(tmp_path):
    out, _ = run(
        tmp_path,
        """
        import os, signal, time
        from multihost import Pool
        from multihost.errors import MultihostError
        from multihost.client import embedded

        with Pool(1) as pool:
            result = pool.apply_async(time.sleep, (3600,))
            os.kill(embedded.start().process.pid, signal.SIGKILL)
            try:
                result.get(30)
            except MultihostError:
                print("told")
        with Pool(1) as pool:
            print(pool.apply(abs, (-4,)))
        """,
    )
    assert out == "told\n4\n"


def test_an_executor_finishes_its_work_when_the_interpreter_exits(tmp_path):
    out, err = run(
        tmp_path,
        """
        from multihost import Executor
        def late(word):
            print(word)
        Executor(1).submit(late, "apple")
        other = Executor(1)
        other.submit(late, "pear")
        other.shutdown(wait=False)
        """,
    )
    assert sorted(out.split()) == ["apple", "pear"]
    assert err == ""


def test_importing_the_package_is_cheap(tmp_path):
    out, _ = run(
        tmp_path,
        """
        import sys
        import multihost
        heavy = {"asyncio", "websockets", "msgspec", "uvloop", "multiprocessing", "cloudpickle"}
        print(sorted(heavy & set(sys.modules)))
        """,
    )
    assert out == "[]\n"


NESTED = """
    from multihost import Executor

    def inner(n):
        return n + 1

    def outer(n):
        with Executor(2) as executor:
            return list(executor.map(inner, [n, n]))

    if __name__ == "__main__":
        with Executor(2) as executor:
            print(list(executor.map(outer, range(4))))
"""


def test_a_task_may_use_an_executor_itself_while_all_slots_are_busy(tmp_path):
    out, _ = run(tmp_path, NESTED)
    assert out.strip() == "[[1, 1], [2, 2], [3, 3], [4, 4]]"


GLOBALS = """
    from multihost import Executor, Pool

    calls, cache = 0, {}

    def start(value):
        global chosen, calls
        chosen = value
        calls += 1
        cache["value"] = value

    def helper():
        return chosen

    class Asker:
        def ask(self):
            return helper()

    def ask(_):
        return helper(), Asker().ask(), calls, cache

    if __name__ == "__main__":
        with Pool(2, start, ("pool",)) as pool:
            print(pool.map(ask, range(3), 1))
        with Executor(2, initializer=start, initargs=("executor",)) as executor:
            print(list(executor.map(ask, range(3))))
"""


def test_tasks_see_the_globals_that_an_initializer_of_main_has_set(tmp_path):
    out, _ = run(tmp_path, GLOBALS)
    pool, executor = out.splitlines()
    assert pool == str([("pool", "pool", 1, {"value": "pool"})] * 3)
    assert executor == str([("executor", "executor", 1, {"value": "executor"})] * 3)


NAMES = """
    import multiprocessing

    from multihost import Pool, current_process, parent_process

    def early(_):
        process = current_process()
        return process.name, process._identity, parent_process().is_alive()

    def late(_):
        from multiprocessing.process import current_process as current
        return current().name

    if __name__ == "__main__":
        for initializer in (None, early):
            with Pool(1, initializer=initializer, initargs=(0,) if initializer else ()) as pool:
                print(pool.apply(late, (0,)), *pool.apply(early, (0,)))
        print(multiprocessing.current_process().name)
"""


def test_a_task_knows_that_it_is_in_a_numbered_process_of_a_pool_and_not_in_the_main_one(tmp_path):
    out, _ = run(tmp_path, NAMES)
    *pools, main = out.splitlines()
    worker = r"(SpawnPoolWorker-(\d+)) \1 \(\2,\) True"
    assert [bool(re.fullmatch(worker, pool)) for pool in pools] == [True, True], out
    assert main == "MainProcess"


def test_a_module_that_the_program_prefers_to_an_installed_one_is_the_tasks_too(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "colorsys.py").write_text("WHOSE = 'mine'\n")
    out, _ = run(
        tmp_path,
        """
        import pathlib, sys
        sys.path.insert(0, str(pathlib.Path(__file__).parent / "mine"))
        from multihost import Pool

        def whose(_):
            import colorsys
            return colorsys.WHOSE

        if __name__ == "__main__":
            with Pool(1) as pool:
                print(pool.map(whose, range(2)))
        """,
    )
    assert out == "['mine', 'mine']\n"


def test_a_program_with_a_thousand_open_files_has_a_pool_too(tmp_path):
    out, _ = run(
        tmp_path,
        """
        import os, resource
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
        for _ in range(1100):
            os.open(os.devnull, os.O_RDONLY)
        from multihost import Pool

        if __name__ == "__main__":
            with Pool(2) as pool:
                print(pool.map(abs, range(-3, 0)))
        """,
    )
    assert out == "[3, 2, 1]\n"


def test_a_program_that_may_use_one_core_has_one_slot(tmp_path):
    out, _ = run(
        tmp_path,
        """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import multihost

        if __name__ == "__main__":
            client = multihost.connect()
            with multihost.Pool() as pool:
                pool.apply(abs, (1,))  # the worker is there
                slots = client.listings.slots()
                print(multihost.cpu_count(), client.slots(), pool._processes, slots)
        """,
    )
    assert out == "1 1 1 1\n"


def test_how_much_of_a_map_is_left_is_seen_as_in_the_standard_library(tmp_path):
    out, _ = run(
        tmp_path,
        """
        from multihost import Pool

        with Pool(2) as pool:
            result = pool.map_async(abs, range(10), chunksize=3)
            while not result.ready():
                assert 0 <= result._number_left <= 4
                result.wait(0.01)
            print(result._number_left, result._chunksize)
            many = [pool.apply_async(abs, (n,)) for n in range(100)]
            while cached := len(pool._cache):
                assert pool._taskqueue.qsize() <= cached <= 100
            print(pool._taskqueue.qsize(), pool._taskqueue.empty(), len(many))
        """,
    )
    assert out == "0 3\n0 True 100\n"


def test_an_imap_of_several_arguments_that_is_built_from_the_pools_insides_works(tmp_path):
    out, _ = run(
        tmp_path,
        """
        from multihost import pool

        def star(self, kind, func, iterable, size):
            result = kind(self)
            tasks = pool.Pool._get_tasks(func, iterable, size)
            generation = self._guarded_task_generation(result._job, pool.starmapstar, tasks)
            self._taskqueue.put((generation, result._set_length))
            return (item for chunk in result for item in chunk)

        def power(base, exponent):
            return base**exponent

        pairs = [(n, 2) for n in range(7)]
        with pool.Pool(2) as two:
            print(list(star(two, pool.IMapIterator, power, iter(pairs), 3)))
            print(sorted(star(two, pool.IMapUnorderedIterator, power, pairs, 1)))
            try:
                list(star(two, pool.IMapIterator, power, [(0, -1)], 1))
            except ZeroDivisionError as error:
                print(error)
            single = pool.IMapIterator(two._cache)
            generation = two._guarded_task_generation(single._job, abs, [-1, 2])
            two._taskqueue.put((generation, single._set_length))
            print(*single)
            try:
                two._taskqueue.put(None)
            except NotImplementedError:
                print("refused")
        """,
    )
    squares = "[0, 1, 4, 9, 16, 25, 36]"
    assert out.splitlines()[:2] == [squares, squares]
    assert "negative power" in out.splitlines()[2]
    assert out.splitlines()[3:] == ["1 2", "refused"]


def test_a_program_without_stdin_stdout_and_stderr_runs(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import pathlib

            from multihost import Pool, Process

            Process(target=print, args=("unheard",)).start()
            with Pool(2) as pool:
                pathlib.Path("out").write_text(str(pool.map(abs, [-1, 2])))
            """
        )
    )
    closing = f'exec "{sys.executable}" "{program}" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", closing], cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "out").read_text() == "[1, 2]"


def test_a_program_whose_directory_was_removed_runs(tmp_path):
    out, _ = run(
        tmp_path,
        """
        import os, tempfile

        from multihost import Pool, Process

        if __name__ == "__main__":
            os.chdir(tempfile.mkdtemp())
            os.rmdir(os.getcwd())
            with Pool(2) as pool:
                print(pool.map(abs, [-1, 2]))
            process = Process(target=print, args=("there",))
            process.start()
            process.join()
        """,
    )
    assert out == "[1, 2]\nthere\n"
