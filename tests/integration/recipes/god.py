import queue
import sys
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


tasks = queue.Queue()
results = queue.Queue()

if __name__ == "__main__":
    Manager.register("tasks", callable=lambda: tasks)
    Manager.register("results", callable=lambda: results)
    manager = Manager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.start()
    print("ready", flush=True)
    mine = manager.results()
    while True:
        try:
            print(f"result {mine.get(timeout=1)}", flush=True)
        except queue.Empty:
            print("waiting for results", flush=True)
