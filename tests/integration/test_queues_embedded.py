"""A program for the standard library, its import line changed, with nothing configured."""

import programs
import pytest

pytestmark = pytest.mark.timeout(120)


def test_processes_share_queues_locks_values_and_pipes(tmp_path):
    out, err = programs.run(
        tmp_path,
        """
        import multihost as multiprocessing

        def work(tasks, results, lock, total, pipe):
            for item in iter(tasks.get, None):
                with lock:
                    total.value += item
                results.put((item, item * item))
            pipe.send("done")

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            tasks, results = context.Queue(), context.JoinableQueue()
            lock, total = context.Lock(), context.Value("i", 0)
            mine, theirs = context.Pipe()
            arguments = (tasks, results, lock, total, theirs)
            processes = [multiprocessing.Process(target=work, args=arguments) for _ in range(2)]
            for process in processes:
                process.start()
            theirs.close()
            for number in range(20):
                tasks.put(number)
            for _ in processes:
                tasks.put(None)
            got = sorted(results.get() for _ in range(20))
            for _ in range(20):
                results.task_done()
            results.join()
            assert got == [(number, number * number) for number in range(20)]
            assert total.value == 190
            print([mine.recv() for _ in processes])
            try:
                mine.recv()
            except EOFError:
                print("end")
            for process in processes:
                process.join()
            print([process.exitcode for process in processes], tasks.qsize())
        """,
    )
    assert out.splitlines() == ["['done', 'done']", "end", "[0, 0] 0"]
    assert err == ""


def test_a_process_that_is_killed_ends_its_pipe(tmp_path):
    out, err = programs.run(
        tmp_path,
        """
        import multihost as multiprocessing

        def hold(end):
            end.send("here")
            end.recv()

        if __name__ == "__main__":
            mine, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=hold, args=(theirs,))
            process.start()
            theirs.close()
            print(mine.recv())
            process.kill()
            try:
                mine.recv()
            except EOFError:
                print("end")
            process.join()
        """,
    )
    assert (out, err) == ("here\nend\n", "")


def test_everything_may_be_logged_through_a_queue(tmp_path):
    out, err = programs.run(
        tmp_path,
        """
        import logging
        import logging.handlers

        import multihost as multiprocessing

        def work(records):
            root = logging.getLogger()
            root.addHandler(logging.handlers.QueueHandler(records))
            root.setLevel(logging.DEBUG)
            for n in range(3):
                logging.debug("%d from %s", n, multiprocessing.current_process().name)

        if __name__ == "__main__":
            records = multiprocessing.Queue(-1)
            process = multiprocessing.Process(target=work, args=(records,), name="Ann")
            process.start()
            process.join()
            records.put(None)
            print([record.getMessage() for record in iter(records.get, None)])
        """,
    )
    assert out == "['0 from Ann', '1 from Ann', '2 from Ann']\n"
    assert err == ""


def test_processes_connect_to_the_manager_of_the_program_that_started_them(tmp_path):
    out, err = programs.run(
        tmp_path,
        """
        import queue
        import multihost as multiprocessing
        from multihost.managers import BaseManager

        tasks, results = queue.Queue(), queue.Queue()

        class QueueManager(BaseManager):
            pass

        QueueManager.register("tasks", callable=lambda: tasks)
        QueueManager.register("results", callable=lambda: results)

        def work(address):
            manager = QueueManager(address=address, authkey=b"abc")
            manager.connect()
            n = manager.tasks().get(timeout=20)
            manager.results().put(n * n)

        if __name__ == "__main__":
            with QueueManager(address=("127.0.0.1", 0), authkey=b"abc") as manager:
                manager.tasks().put(7)
                process = multiprocessing.Process(target=work, args=(manager.address,))
                process.start()
                print(manager.results().get(timeout=20))
                process.join()
        """,
    )
    assert (out, err) == ("49\n", "")


def test_what_is_put_after_a_queue_that_nobody_has_any_more_stays(tmp_path):
    out, err = programs.run(
        tmp_path,
        """
        import multihost

        def ask():
            answers = multihost.Queue()
            answers.put("an answer")
            return answers.get()  # held, until something else is taken or put

        if __name__ == "__main__":
            results = multihost.Queue()
            for _ in range(40):
                ask()
                results.put(1)
            print(sum(results.get(timeout=10) for _ in range(40)))
        """,
    )
    assert (out, err) == ("40\n", "")
