import sys
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


if __name__ == "__main__":
    before, after = sys.argv[2:4]
    Manager.register(before)
    Manager.register(after)
    manager = Manager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    source = getattr(manager, before)()
    target = getattr(manager, after)()
    while True:
        item = source.get()
        target.put([*item, after])
