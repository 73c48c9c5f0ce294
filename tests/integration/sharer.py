"""A program that does random things to what it shares with others, and writes down each."""

import json
import os
import random
import sys
import threading
import time

from multihost import Array, Event, Queue, Value

SIZE = 50
STEPS = 300


class Sharer:
    """One thread of it: a line before each step, one after it."""

    def __init__(self, seed, history, name):
        self.chance = random.Random(seed)
        self.history = history
        self.name = name
        self.events = [Event(name=f"event-{number}") for number in range(2)]
        self.number = Value("q", name="number", lock=False)
        self.count = Value("q", name="count")
        self.row = Array("q", SIZE, name="row", lock=False)
        self.pipe = Queue(name="pipes").get()
        self.sent = 0

    def note(self, *line):
        os.write(
            self.history, (json.dumps([self.name, time.monotonic_ns(), *line]) + "\n").encode()
        )

    def run(self):
        for _ in range(STEPS):
            thing, verb, argument, step = self.chance.choice(self.steps())()
            self.note(thing, verb, argument)
            self.note(thing, verb, argument, step())
        self.pipe.close()

    def steps(self):
        return [
            self.set,
            self.clear,
            self.look,
            self.wait,
            self.keep,
            self.recall,
            self.add,
            self.fill,
            self.scan,
            self.send,
        ]

    def event(self):
        number = self.chance.randrange(len(self.events))
        return f"event-{number}", self.events[number]

    def set(self):
        name, event = self.event()
        return name, "write", True, event.set

    def clear(self):
        name, event = self.event()
        return name, "write", False, event.clear

    def look(self):
        name, event = self.event()
        return name, "read", None, event.is_set

    def wait(self):
        name, event = self.event()
        timeout = self.chance.choice([-1, 0, 0.001, 0.05])
        return name, "read", None, lambda: event.wait(timeout)

    def keep(self):
        number = self.chance.getrandbits(62)
        return "number", "write", number, lambda: setattr(self.number, "value", number)

    def recall(self):
        return "number", "read", None, lambda: self.number.value

    def fill(self):
        number = self.chance.getrandbits(62)
        return "row", "write", number, lambda: self.row.__setitem__(slice(None), [number] * SIZE)

    def scan(self):
        def step():
            (number,) = set(self.row[:])
            return number

        return "row", "read", None, step

    def add(self):
        def step():
            with self.count.get_lock():
                before = self.count.value
                self.count.value = before + 1
            return before

        return "count", "add", None, step

    def send(self):
        def step():
            self.pipe.send((self.name, self.sent, bytes(self.chance.choice([0, 100, 70_000]))))
            self.sent += 1

        return "pipe", "send", None, step


if __name__ == "__main__":
    seed, path, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    history = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sharers = [Sharer(seed + each, history, f"{seed}-{each}") for each in range(threads)]
    print("ready", flush=True)
    Event(name="begin").wait()
    running = [threading.Thread(target=sharer.run) for sharer in sharers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
