import multiprocessing
import queue
import sys
import time
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


def new_queue():
    return queue.Queue()


if __name__ == "__main__":
    Manager.register("tasks", callable=new_queue)
    manager = Manager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.start()
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    print(f"child {child.pid}", flush=True)
    print("ready", flush=True)
    child.join()
