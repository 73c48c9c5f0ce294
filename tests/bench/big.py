"""Four gigabytes in and out, past a server and an agent that may have half of one.

``python tests/bench/big.py [GIB [LIMIT_MIB]]``. What is limited is the address space
(``RLIMIT_AS``), so also whatever libraries map. The child and this program hold what is
sent: three times the size of memory has to be free, and twice that of disk.
``MULTIHOST_BIG=1 pytest tests/faults/test_big.py`` is the same as a test.
"""

import os
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import psutil

import multihost
from multihost.testing import Cluster

MIB = 1 << 20
GIB = 1 << 30
LIMIT_BYTES = 512 * MIB


class Figures(NamedTuple):
    """What it took."""

    size_bytes: int
    in_s: float
    out_s: float
    server_mib: int
    """Most memory that it has had, as the agent's."""
    agent_mib: int


def digest(data):
    """Say what has come, in the child."""
    return len(data), blake2b(data).digest()


def repeat(block, times):
    """Make something large, in the child."""
    return block * times


def main() -> None:
    """Send so much there and back, and say what it took."""
    size = int(float(sys.argv[1] if len(sys.argv) > 1 else 4) * GIB)
    limit = int(sys.argv[2]) * MIB if len(sys.argv) > 2 else LIMIT_BYTES
    figures = measure(size, limit)
    print(f"{size / MIB:,.0f} MiB in: {figures.in_s:.1f} s, out: {figures.out_s:.1f} s")
    print(f"server: at most {figures.server_mib} MiB of memory, agent: {figures.agent_mib} MiB")


def measure(size: int, limit: int) -> Figures:
    """Send ``size`` bytes in, have as many sent out; raises AssertionError if they differ."""
    here = [str(Path(__file__).parent)]  # the worker imports this module from there
    with Cluster(workers=1, slots=1, durability="power", python_path=here) as cluster:
        assert cluster.server is not None
        server, agent = cluster.server.pid, cluster.workers[0].pid
        with multihost.connect(cluster.url, cluster.key) as client:
            client.submit(len, b"").result()  # its child is there, and not limited
            for pid in (server, agent):
                psutil.Process(pid).rlimit(psutil.RLIMIT_AS, (limit, limit))
            in_s, out_s = send(client, size), fetch(client, size)
        return Figures(size, in_s, out_s, peak_mib(server), peak_mib(agent))


def send(client: multihost.Client, size: int) -> float:
    """Send so much; seconds."""
    import big  # as the worker knows it, so that the function goes by name

    data = os.urandom(MIB) * (size // MIB)
    began = time.monotonic()
    got = client.submit(big.digest, data).result()
    took_s = time.monotonic() - began
    assert got == digest(data)
    return took_s


def fetch(client: multihost.Client, size: int) -> float:
    """Have so much sent; seconds."""
    import big

    block, times = os.urandom(MIB), size // MIB
    began = time.monotonic()
    got = client.submit(big.repeat, block, times).result()
    took_s = time.monotonic() - began
    assert len(got) == MIB * times
    assert all(got[at : at + MIB] == block for at in range(0, len(got), MIB))
    return took_s


def peak_mib(pid: int) -> int:
    """The most memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    main()
