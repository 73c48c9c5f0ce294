"""Runs jobs until there have been none for a while."""

import argparse
import os
import queue

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port of the master")
    parser.add_argument("--patience", type=float, default=5, help="seconds to wait for a job")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_dispatched_jobs")
    QueueManager.register("get_finished_jobs")
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.connect()
    dispatched, finished = manager.get_dispatched_jobs(), manager.get_finished_jobs()
    while True:
        try:
            job = dispatched.get(timeout=options.patience)
        except queue.Empty:
            print("no more jobs.")
            return
        except EOFError:
            print("the master has ended.")
            return
        print("run", job, flush=True)
        job.run()
        finished.put(job)


if __name__ == "__main__":
    main()
