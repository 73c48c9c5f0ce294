"""A cluster whose leases last two seconds, for tests of what happens when one is over."""

import subprocess
import sys

from multihost.testing import Cluster, wait_until
from multihost.testing.cluster import HOST

SERVER = """
import asyncio, pathlib, sys
from multihost.server import guard
from multihost.server.app import Server, ServerOptions

async def main():
    state, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    server = Server(ServerOptions(state, port=port, heartbeat_s=0.4, lease_s=2.0))
    guard.install_if_asked()
    await server.start()
    await server.wait()

asyncio.run(main())
"""


class HastyCluster(Cluster):
    """Its leases last two seconds."""

    def start_server(self):
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.directory), str(self.port)],
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(self._is_up, f"the server answers at {HOST}:{self.port}")
