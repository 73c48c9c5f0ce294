"""Puts a batch of numbers, as often as you like, from anywhere."""

import argparse
import os

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("count", type=int, nargs="?", default=20)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port of god")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_numbers")
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.connect()
    numbers = manager.get_numbers()
    for n in range(options.first, options.first + options.count):
        numbers.put(n)
    print(f"put {options.count} numbers from {options.first}")


if __name__ == "__main__":
    main()
