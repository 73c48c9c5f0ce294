import sys
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


if __name__ == "__main__":
    Manager.register(sys.argv[2])
    manager = Manager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    queue = getattr(manager, sys.argv[2])()
    for _ in range(int(sys.argv[3])):
        print(f"read {queue.get(timeout=20)}", flush=True)
    if len(sys.argv) > 4:
        sys.stdin.readline()
