"""A pipeline of unchanged scripts whose workers, and whose server, are killed over and over."""

import queue
import random

import pytest
from managers_bench import Server

from multihost import managers
from multihost.testing import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ITEMS = 1500
STAGES = [("one", "two"), ("two", "three"), ("three", "end")]


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


class Client(managers.BaseManager):
    pass


for name in ("one", "end"):
    Client.register(name)


@pytest.mark.parametrize("kills_server", [False, True])
def test_each_item_reaches_the_end_of_a_pipeline_exactly_once(server, kills_server):
    chance = random.Random(5)
    client = Client(address=("127.0.0.1", server.port), authkey=b"abc")
    client.connect()
    one, end = client.one(), client.end()
    for number in range(ITEMS):
        one.put([number])
    workers = [server.run("stage", *stage) for stage in STAGES for _ in range(2)]
    seen = []
    kills = 0
    while len(seen) < ITEMS:
        try:
            seen.append(end.get(timeout=20))
        except queue.Empty:
            break
        if len(seen) % 60 == 0:
            place = chance.randrange(len(workers))
            workers[place].kill()
            kills += 1
            workers[place] = server.run("stage", *STAGES[place // 2])
        if kills_server and len(seen) % 400 == 0:
            server.kill()
            server.start()
            # The standard library's proxies keep their dead connections: these scripts end.
            for place, worker in enumerate(workers):
                wait_until(lambda worker=worker: worker.process.poll() is not None, "it ends")
                workers[place] = server.run("stage", *STAGES[place // 2])
    assert sorted(item[0] for item in seen) == list(range(ITEMS))
    assert all(item[1:] == ["two", "three", "end"] for item in seen)
    with pytest.raises(queue.Empty):
        end.get(timeout=1)
    assert kills > 10
