import sys
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


if __name__ == "__main__":
    Manager.register("tasks")
    manager = Manager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    tasks = manager.tasks()
    for number in map(int, sys.argv[2:]):
        tasks.put(number)
    print("produced", flush=True)
