"""Dispatches jobs, ten at a time: the next ten when all ten are finished."""

import argparse
import getpass
import os
import queue
import sys

from job import Job

from multihost.managers import BaseManager


class QueueManager(BaseManager):
    pass


def make_queue():
    return queue.Queue()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5000", help="host:port to listen on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=10, help="jobs a round")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)

    QueueManager.register("get_dispatched_jobs", callable=make_queue)
    QueueManager.register("get_finished_jobs", callable=make_queue)
    manager = QueueManager(
        address=(host, int(port)), authkey=os.environ.get("AUTHKEY", "abc").encode()
    )
    manager.start()
    dispatched, finished = manager.get_dispatched_jobs(), manager.get_finished_jobs()

    number = 0
    for _ in range(options.rounds):
        waiting = set()
        for _ in range(options.size):
            number += 1
            command = [sys.executable, "-c", f"print('hello from job {number}')"]
            job = Job(number, command, getpass.getuser())
            print("dispatch", job, flush=True)
            dispatched.put(job)
            waiting.add(number)
        while waiting:
            job = finished.get(timeout=120)
            waiting.remove(job.number)
            print("came back:", job, "|", job.output.strip(), flush=True)
        print("all of them are finished.", flush=True)
    manager.shutdown()


if __name__ == "__main__":
    main()
