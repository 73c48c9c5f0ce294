"""Three stages of a pipeline, killed at random: each item comes out once, and nothing is stuck."""

import os
import random
import subprocess
import sys
import threading

import pytest

import multihost
from multihost.testing import Cluster, wait_until

ITEMS = 10_000
STAGES = ["raw", "read", "counted", "written"]
PROCESSES = 2
"""Of each stage."""
KILLS = 20
WAVE = 100

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

STAGE = """
import sys, multihost

with multihost.connect() as client:
    source, target = client.queue(sys.argv[1]), client.queue(sys.argv[2])
    while True:
        number, path = source.get()
        target.put((number, [*path, sys.argv[1]]))
"""


class Pipeline:
    """The processes of all stages, and who kills them."""

    def __init__(self, cluster, chance):
        self.cluster = cluster
        self.chance = chance
        self.running = [(stage, self._start(stage)) for stage in range(3) for _ in range(PROCESSES)]

    def _start(self, stage):
        return subprocess.Popen(
            [sys.executable, "-c", STAGE, STAGES[stage], STAGES[stage + 1]],
            env={**os.environ, **self.cluster.environment},
            stderr=subprocess.DEVNULL,
        )

    def kill_something(self):
        if self.chance.random() < 0.2:
            self.cluster.kill_server()
            self.cluster.start_server()
            return
        position = self.chance.randrange(len(self.running))
        stage, process = self.running[position]
        process.kill()
        process.wait()
        self.running[position] = stage, self._start(stage)

    def mend(self):
        """Start again what was started when there was no server to connect to."""
        for position, (stage, process) in enumerate(self.running):
            if process.poll() is not None:
                self.running[position] = stage, self._start(stage)

    def has_come(self, queue, count):
        self.mend()
        return queue.qsize() >= count

    def stop(self):
        for _, process in self.running:
            process.kill()
            process.wait()

    def counts(self):
        rows = {row["queue"]: row for row in self.cluster.get("/api/item-queues")}
        return [rows[name] for name in STAGES]


def feed(queue):
    for first in range(0, ITEMS, WAVE):
        queue.put_many([(number, []) for number in range(first, first + WAVE)])


@pytest.mark.parametrize("durability", ["process", "power"])
def test_ten_thousand_items_pass_three_stages_once_under_random_kills(durability):
    chance = random.Random(durability)
    with Cluster(workers=0, durability=durability) as cluster:
        with multihost.connect(cluster.url, cluster.key) as client:
            first, *_, last = [client.queue(name) for name in STAGES]
            feeder = threading.Thread(target=feed, args=[first])
            feeder.start()
            pipeline = Pipeline(cluster, chance)
            try:
                for moment in sorted(chance.sample(range(ITEMS), KILLS)):
                    wait_until(lambda m=moment: pipeline.has_come(last, m), "items come out", 60)
                    pipeline.kill_something()
                feeder.join()
                wait_until(lambda: pipeline.has_come(last, ITEMS), "all have come out", 60)
                results = []
                while len(results) < ITEMS:
                    results += last.get_many(1000)
                wait_until(
                    lambda: all(not row["held"] for row in pipeline.counts()[:-1]),
                    "everything is confirmed",
                )
                assert [row["waiting"] for row in pipeline.counts()] == [0] * 4
            finally:
                pipeline.stop()
        assert sorted(results) == [(number, STAGES[:-1]) for number in range(ITEMS)]
