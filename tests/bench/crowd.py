"""What ten thousand idle connections cost a server, and a client beside them.

    python tests/bench/crowd.py [--count 10000] [--json FILE]

Strangers first: they connect from many addresses, a part of them says a byte a
second of a request that never ends. Then members: they have the key, open a
session and say nothing more. Beside each crowd a client puts and takes items.
"""

import argparse
import json
import os
import resource
import socket
import statistics
import time
from pathlib import Path

import psutil

import multihost
from multihost.testing import Cluster
from multihost.testing.stranger import Stranger

ADDRESSES = 50
DRIBBLERS = 500
EXCHANGES = 300
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: dribble\r\n"


def beside(client):
    """Median time of an exchange, in milliseconds."""
    queue = client.queue(f"beside {os.urandom(4).hex()}")
    times = []
    for number in range(EXCHANGES):
        began = time.perf_counter()
        queue.put(number)
        assert queue.get() == number
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1000, 2)


def state(server, client):
    """Memory and open files of a server, and how a client beside the crowd fares."""
    exchange_ms = beside(client)
    return {
        "rss_mib": round(server.memory_info().rss / 2**20, 1),
        "open_files": len(list(Path(f"/proc/{server.pid}/fd").iterdir())),
        "exchange_ms": exchange_ms,
    }


def strangers(cluster, count):
    """Connections that show no key."""
    crowd = []
    for number in range(count):
        sock = socket.socket()
        sock.bind((f"127.0.1.{number % ADDRESSES + 1}", 0))
        sock.connect(("127.0.0.1", cluster.port))
        crowd.append(sock)
    return crowd


def dribble(crowd, seconds):
    """A byte a second from some of them."""
    for at in range(seconds):
        for sock in crowd[-DRIBBLERS:]:
            try:
                sock.send(REQUEST[at : at + 1])
            except OSError:
                continue
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = {"count": options.count}
    with Cluster(workers=0) as cluster, multihost.connect(cluster.url, cluster.key) as client:
        server = psutil.Process(cluster.server.pid)
        result["before"] = state(server, client)
        crowd = strangers(cluster, options.count)
        result["strangers"] = state(server, client)
        dribble(crowd, 12)
        result["strangers, 12 s later"] = state(server, client)
        for sock in crowd:
            sock.close()
        began, members = time.monotonic(), []
        for _ in range(options.count - 1):
            members.append(Stranger(cluster.url, cluster.key).enter())
            if time.monotonic() - began > 10:
                for member in members:
                    member.is_served()
                began = time.monotonic()
        result["members"] = state(server, client)
        for member in members:
            member.close()
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
