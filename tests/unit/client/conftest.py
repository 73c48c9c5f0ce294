from collections.abc import Iterator

import pytest
from fake_server import KEY, FakeServer

from multihost import Client, Pool


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def client(server) -> Iterator[Client]:
    client = Client(server.url, KEY, patience_s=10)
    yield client
    server.gate.set()
    client.close()


@pytest.fixture
def pool(server) -> Iterator[Pool]:
    with Pool(3, url=server.url, authkey=KEY) as pool:
        yield pool
        server.gate.set()
    pool.join()
