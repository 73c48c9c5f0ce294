import queue
import random
import sys
from multiprocessing.managers import BaseManager

task_queue = queue.Queue()
result_queue = queue.Queue()


def get_task_queue():
    return task_queue


class QueueManager(BaseManager):
    pass


def main():
    QueueManager.register("get_task_queue", callable=get_task_queue)
    QueueManager.register("get_result_queue", callable=lambda: result_queue)
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.start()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    for _ in range(10):
        n = random.randint(0, 10000)
        print(f"put {n}")
        task.put(n)
    print("waiting", flush=True)
    for _ in range(10):
        print(f"result {result.get(timeout=20)}", flush=True)
    manager.shutdown()
    print("master exit")


if __name__ == "__main__":
    main()
