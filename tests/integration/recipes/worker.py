import queue
import sys
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


def main():
    QueueManager.register("get_task_queue")
    QueueManager.register("get_result_queue")
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    while True:
        try:
            n = task.get(timeout=1)
        except queue.Empty:
            print("empty")
            return
        result.put(f"{n} * {n} = {n * n}")


if __name__ == "__main__":
    main()
