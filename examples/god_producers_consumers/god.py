"""The one who stays: keeps the queues, shows results as they come."""

import argparse
import os
import queue

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def make_queue():
    return queue.Queue()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port to listen on")
    parser.add_argument("--idle", type=float, default=1, help="seconds until it says it waits")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_numbers", callable=make_queue)
    QueueManager.register("get_results", callable=make_queue)
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.start()
    results = manager.get_results()
    while True:
        try:
            print("result:", results.get(timeout=options.idle), flush=True)
        except queue.Empty:
            print("waiting for results ...", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("good night.")
