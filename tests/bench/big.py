"""Four gigabytes in and out, past a server and an agent that may have half of one.

``python tests/bench/big.py [GIB [LIMIT_MIB]]``. What is limited is the address space
(``RLIMIT_AS``), so also whatever libraries map; the child and this program need
twice the size in memory.
"""

import os
import sys
import time
from pathlib import Path

import psutil

import multihost
from multihost.testing import Cluster

MIB = 1 << 20


def turn_first_byte(data):
    """Give back as much as was given, in as little memory as that takes."""
    data = bytearray(data)
    data[0] ^= 1
    return data


def main() -> None:
    """Send so much there and back, and say what it took."""
    size = int(float(sys.argv[1] if len(sys.argv) > 1 else 4) * (1 << 30))
    limit = int(sys.argv[2] if len(sys.argv) > 2 else 512) * MIB
    here = [str(Path(__file__).parent)]  # the worker imports this module from there
    with Cluster(workers=1, slots=1, durability="power", python_path=here) as cluster:
        assert cluster.server is not None
        watched = {"server": cluster.server.pid, "agent": cluster.workers[0].pid}
        with multihost.connect(cluster.url, cluster.key) as client:
            client.submit(len, b"").result()
            for pid in watched.values():
                psutil.Process(pid).rlimit(psutil.RLIMIT_AS, (limit, limit))
            send(client, size)
        for name, pid in watched.items():
            print(f"{name}: at most {peak_mib(pid)} MiB of memory")


def send(client: multihost.Client, size: int) -> None:
    """Send ``size`` bytes, and bring them back."""
    import big  # as the worker knows it, so that the function goes by name

    data = os.urandom(MIB) * (size // MIB)
    began = time.monotonic()
    print(f"{size / MIB:,.0f} MiB in: ", end="", flush=True)
    assert client.submit(len, data).result() == size
    print(f"{time.monotonic() - began:.1f} s")
    began = time.monotonic()
    print("known already, and out: ", end="", flush=True)
    turned = client.submit(big.turn_first_byte, data).result()
    print(f"{time.monotonic() - began:.1f} s")
    assert len(turned) == size
    assert (turned[0], turned[1:]) == (data[0] ^ 1, data[1:])


def peak_mib(pid: int) -> int:
    """The most memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    main()
