"""What a cluster costs that has nothing to do: a server, two workers, many connected clients.

``idle.py hold COUNT`` is the process that holds the clients' connections; its
own CPU time is that of as many other machines and does not count.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import cluster
import meter

from multihost.runtime import loop
from multihost.runtime.config import find_target
from multihost.runtime.peer import Peer
from multihost.wire import message as m

SETTLE_S = 2.0
"""After the last connection, before the clock starts."""
OPENING_AT_ONCE = 20


def idle(connections: int, seconds: float) -> dict[str, float]:
    """Percent of a core that the server and two workers use over ``seconds``."""
    with cluster.running("power", slots=1) as home:
        home.start_worker(slots=1)
        holder = subprocess.Popen(
            [sys.executable, __file__, "hold", str(connections)],
            env=home.environment(),
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "holding\n":
                raise RuntimeError(f"{connections} connections could not be opened")
            time.sleep(SETTLE_S)
            family = meter.family(home.pids)
            before = meter.cpu_s(family)
            time.sleep(seconds)
            used_s = meter.cpu_s(family) - before
        finally:
            holder.kill()
            holder.communicate()
    return {"percent": used_s / seconds * 100}


class Client:
    """A client that has nothing to say."""

    def __init__(self) -> None:
        self.uid = os.urandom(16)

    def opening(self) -> m.Attach:
        return m.Attach(self.uid, "bench", "bench", os.getpid())

    def connected(self, welcome: m.Welcome) -> None:
        """Nothing to do."""

    def received(self, messages: Sequence[Any]) -> None:
        """Nothing to do."""

    def writable(self) -> None:
        """Nothing to do."""

    def disconnected(self, reason: str) -> None:
        """Nothing to do: the peer comes back."""


async def hold(count: int) -> None:
    """Open ``count`` sessions, say so, and keep them until killed."""
    target = find_target()
    assert target is not None
    peers = [Peer(Client(), m.Role.CLIENT, target.urls, target.key) for _ in range(count)]
    for first in range(0, count, OPENING_AT_ONCE):
        await asyncio.gather(*(peer.connect() for peer in peers[first : first + OPENING_AT_ONCE]))
    print("holding", flush=True)
    await asyncio.gather(*(peer.run() for peer in peers))


if __name__ == "__main__":
    loop.run(hold(int(sys.argv[2])))
