import sys
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


if __name__ == "__main__":
    Manager.register("tasks")
    Manager.register("results")
    manager = Manager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    tasks = manager.tasks()
    results = manager.results()
    print("ready", flush=True)
    while True:
        number = tasks.get()
        print(f"took {number}", flush=True)
        if number == "fall":
            sys.stdin.readline()
        results.put(number * 2)
        print("put", flush=True)
