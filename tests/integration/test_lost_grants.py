"""Claims about leases that were on their way when the worker's connection broke."""

import asyncio
import os
import sys

import multihost
from multihost.core.outcome import Ending
from multihost.core.resources import Offer
from multihost.runtime.peer import Peer
from multihost.testing import Cluster
from multihost.wire import message as m

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DEADLINE_S = 30.0


class RawWorker:
    """A worker of one slot that takes what it is granted and runs nothing."""

    def __init__(self, url, key):
        self.uid = os.urandom(16)
        self.held = ()
        self.peer = Peer(self, m.Role.WORKER, [url], key)
        self._granted = asyncio.Queue()
        self._revoked = asyncio.Queue()
        self._gone = asyncio.Event()

    def opening(self):
        return m.Enlist(self.uid, "raw", slots=1, offer=Offer(python=PYTHON), held=self.held)

    def connected(self, welcome):
        self._gone.clear()
        self.peer.send(m.Want(1))

    def received(self, messages):
        for message in messages:
            if isinstance(message, m.Grants):
                for grant in message.tasks:
                    self._granted.put_nowait(grant)
            elif isinstance(message, m.Revoked):
                for held in message.tasks:
                    self._revoked.put_nowait(held)

    def writable(self):
        pass

    def disconnected(self, reason):
        self._gone.set()

    async def granted(self):
        return await asyncio.wait_for(self._granted.get(), DEADLINE_S)

    async def revoked(self):
        return await asyncio.wait_for(self._revoked.get(), DEADLINE_S)

    async def cut(self):
        self.peer.drop("cut by the test")
        await asyncio.wait_for(self._gone.wait(), DEADLINE_S)


def with_pool(test):
    """Run ``test`` with a pool of one process and the raw worker of its server."""

    async def main(cluster, pool):
        worker = RawWorker(cluster.url, cluster.key)
        await worker.peer.connect()
        await test(pool, worker)
        worker.peer.close()

    with (
        Cluster(workers=0) as cluster,
        multihost.Pool(1, url=cluster.url, authkey=cluster.key) as pool,
    ):
        asyncio.run(main(cluster, pool))


def test_a_pool_whose_grant_was_lost_with_the_connection_is_served_again():
    async def test(pool, worker):
        pool.apply_async(abs, (-1,))
        lost = await worker.granted()
        await worker.cut()
        await worker.peer.connect()  # and knows of nothing
        again = await worker.granted()
        assert (again.task, again.token > lost.token) == (lost.task, True)
        worker.peer.send(m.Finished([m.Attempt(again.task, again.token, Ending.OK, b"")]))

    with_pool(test)
