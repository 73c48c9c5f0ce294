"""Takes numbers, puts their squares back, until there are none."""

import argparse
import os
import queue
import time

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port of the master")
    parser.add_argument("--seconds", type=float, default=0.1, help="time a number takes")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_task_queue")
    QueueManager.register("get_result_queue")
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    print(f"connect to {options.address} ...", flush=True)
    manager.connect()
    task, result = manager.get_task_queue(), manager.get_result_queue()
    while True:
        try:
            n = task.get(timeout=1)
        except queue.Empty:
            print("task queue is empty.")
            break
        except EOFError:
            print("the master has ended.")
            break
        print(f"run task {n} * {n} ...", flush=True)
        time.sleep(options.seconds)
        result.put(f"{n} * {n} = {n * n}")
    print("worker exits.")


if __name__ == "__main__":
    main()
