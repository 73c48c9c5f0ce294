"""Hands out ten numbers, shows what comes back."""

import argparse
import os
import queue
import random

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def make_queue():
    return queue.Queue()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port to listen on")
    parser.add_argument("--count", type=int, default=10, help="numbers to hand out")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_task_queue", callable=make_queue)
    QueueManager.register("get_result_queue", callable=make_queue)
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.start()
    task, result = manager.get_task_queue(), manager.get_result_queue()
    # Started again after it was killed, it finds its queues as they were.
    if task.empty() and result.empty():
        for _ in range(options.count):
            n = random.randint(0, 10000)
            print(f"put task {n} ...", flush=True)
            task.put(n)
    print("waiting for results ...", flush=True)
    for _ in range(options.count):
        print("result:", result.get(timeout=60), flush=True)
    manager.shutdown()
    print("master exits.")


if __name__ == "__main__":
    main()
