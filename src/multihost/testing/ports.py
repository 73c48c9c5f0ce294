"""Ports for servers that tests start, kill, and start again at the same place."""

import random
import socket
from typing import Final

PORTS: Final = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, of which other tests have many."""

# Its own, so that tests which seed Python's do not all choose the same.
_chance = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has at present."""
    while True:
        port = _chance.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
