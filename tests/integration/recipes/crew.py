import sys
import threading
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


def work(tasks, results):
    for n in iter(tasks.get, None):
        results.put(n * n)


def main():
    QueueManager.register("tasks")
    QueueManager.register("results")
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    tasks, results = manager.tasks(), manager.results()
    helper = threading.Thread(target=work, args=(tasks, results))
    helper.start()
    work(tasks, results)
    helper.join()
    print("done", flush=True)


if __name__ == "__main__":
    main()
