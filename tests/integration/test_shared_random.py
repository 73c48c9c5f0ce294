"""Whoever is killed: what programs share is as if each step on it had been done at one moment.

Programs do random things to events, values, arrays and pipes, while some of them and the server are
killed. What each of them was told must fit one order of all their steps, in which no step comes
before it was begun or after it was answered: of a step whose program was killed nobody knows.
"""

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from multihost import Client
from multihost.connection import Pipe
from multihost.sharedctypes import Value
from multihost.synchronize import Event
from multihost.testing import Cluster, wait_until

SHARER = Path(__file__).parent / "sharer.py"
PROGRAMS = 3
THREADS = 2
KILLS_AFTER = (150, 400, 700)
"""Steps after which a program, the server and another program are killed."""

pytestmark = pytest.mark.timeout(120)


class Step(NamedTuple):
    """What a thread did: when it began, when it knew (never: infinity), and what it was told."""

    began: float
    ended: float
    verb: str
    argument: object
    told: object

    def after(self, content):
        """What a register has after this step if it had ``content``; None: it can't be told so."""
        if self.verb == "write":
            return self.argument
        return content if self.told == content else None


def test_events_values_arrays_and_pipes_are_as_of_one_process_whoever_is_killed(tmp_path):
    chance = random.Random("sharers")
    with Cluster(workers=0) as cluster, Client(cluster.url, cluster.key) as client:
        ends = [Pipe(duplex=False, client=client) for _ in range(PROGRAMS * THREADS)]
        # An end that a killed program had would else be on its way to another.
        client.queue("pipes", confirm="get").put_many([sending for _, sending in ends])
        for _, sending in ends:
            sending.close()
        programs = [start(cluster, tmp_path, number) for number in range(PROGRAMS)]
        try:
            # One that is killed before may have an end that nobody has: it is on its way for ever.
            assert [program.stdout.readline() for program in programs] == ["ready\n"] * PROGRAMS
            Event(name="begin", client=client).set()
            for position, steps in enumerate(KILLS_AFTER):
                wait_until(lambda steps=steps: count(tmp_path) >= 2 * steps, "they have done much")
                if position == 1:
                    cluster.kill_server()
                    cluster.start_server()
                else:
                    end(programs.pop(chance.randrange(len(programs))))
            assert [program.wait(60) for program in programs] == [0]
            received = [messages(reader) for reader, _ in ends]
        finally:
            for program in programs:
                end(program)
        final = Value("q", name="count", client=client).value
    things = histories(tmp_path)
    for name, first in [("event-0", False), ("event-1", False), ("number", 0), ("row", 0)]:
        assert fits_an_order(things[name, None], first), name
    adds = [step.told for step in things["count", None] if step.ended < math.inf]
    assert len(set(adds)) == len(adds) <= final <= len(things["count", None])
    assert sum(map(len, received)) > PROGRAMS * THREADS
    sends = {sender: steps for (thing, sender), steps in things.items() if thing == "pipe"}
    for sender, steps in sends.items():
        numbers = next((found for found in received if found[:1] == [(sender, 0)]), [])
        assert numbers == [(sender, number) for number in range(len(numbers))]
        acknowledged = sum(step.ended < math.inf for step in steps)
        assert acknowledged <= len(numbers) <= len(steps)


def start(cluster, directory, number):
    arguments = [str(100 * number), str(directory / f"{number}.history"), str(THREADS)]
    environment = {**os.environ, **cluster.environment}
    command = [sys.executable, str(SHARER), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def end(program):
    program.kill()
    program.wait()
    program.stdout.close()


def messages(reader):
    """Who sent which number, up to the end; one that never comes is the test's timeout."""
    found = []
    while True:
        try:
            sender, number, _ = reader.recv()
        except EOFError:
            return found
        found.append((sender, number))


def count(directory):
    return sum(path.read_bytes().count(b"\n") for path in directory.glob("*.history"))


def histories(directory):
    """Steps by what was done them to; of pipes, by the sender too."""
    things = {}
    for path in directory.glob("*.history"):
        begun = {}
        for line in path.read_text().splitlines():
            name, moment, thing, verb, argument, *told = json.loads(line)
            steps = things.setdefault((thing, name if thing == "pipe" else None), [])
            if told:
                steps.append(Step(begun.pop(name)[1].began, moment, verb, argument, told[0]))
            else:
                begun[name] = (thing, Step(moment, math.inf, verb, argument, None))
        for name, (thing, step) in begun.items():
            things[thing, name if thing == "pipe" else None].append(step)
    return things


def fits_an_order(steps, first):
    """Whether a register that begins with ``first`` can have told all this (Wing and Gong)."""
    steps = sorted(step for step in steps if step.verb == "write" or step.ended < math.inf)
    seen = set()
    ways = [(0, frozenset(), first)]
    while ways:
        position, ahead, content = ways.pop()
        while position in ahead:
            ahead -= {position}
            position += 1
        if all(step.ended == math.inf for step in steps[position:]):
            return True
        if (position, ahead, content) in seen:
            continue
        seen.add((position, ahead, content))
        earliest = math.inf
        following = position
        while following < len(steps) and steps[following].began <= earliest:
            if following not in ahead:
                earliest = min(earliest, steps[following].ended)
                after = steps[following].after(content)
                if after is not None:
                    ways.append((position, ahead | {following}, after))
            following += 1
    return False


def test_the_search_tells_what_fits_an_order_from_what_does_not():
    first = Step(0, 3, "write", 1, None)
    second = Step(1, 4, "write", 2, None)
    unknown = Step(2, math.inf, "write", 3, None)
    for told in ([1, 1], [2, 2], [3, 3], [1, 3], [3, 1], [1, 2]):
        reads = [Step(5 + 2 * at, 6 + 2 * at, "read", None, each) for at, each in enumerate(told)]
        assert fits_an_order([first, second, unknown, *reads], 0) is (told in FITTING), told


FITTING = ([1, 1], [2, 2], [3, 3], [1, 3])
"""What two reads after two writes at a time, and one that may come at any later, may say."""
