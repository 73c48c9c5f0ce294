"""Takes numbers and sends their cubes back, until it is stopped."""

import argparse
import os
import queue
import time

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port of god")
    parser.add_argument("--seconds", type=float, default=0.05, help="time a number takes")
    parser.add_argument("--patience", type=float, default=None, help="leave after so long idle")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_numbers")
    QueueManager.register("get_results")
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.connect()
    numbers, results = manager.get_numbers(), manager.get_results()
    while True:
        try:
            n = numbers.get(timeout=options.patience)
        except queue.Empty:
            return
        except EOFError:
            print("god has ended.")
            return
        time.sleep(options.seconds)
        results.put((n, n**3))
        print(f"{n} ** 3", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("consumer leaves.")
