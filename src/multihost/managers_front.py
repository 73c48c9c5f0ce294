"""A manager's front: a multihost server that keeps a manager's queues.

Started by the manager's host process, which binds the manager's address and
hands it down, so that a front that dies can be replaced while clients that
connect just wait. It ends when its standard input does: with its host, however
that ends.
"""

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DROPPED = 3
"""Exit code: a client asked for shutdown, and the queues may go."""
KEPT = 4
"""Exit code: a client asked for shutdown, and the queues stay."""


def main() -> None:
    """Be the front: serve until standard input ends or a client asks for shutdown."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = json.loads(_read_line(0))
    from multihost.runtime import loop
    from multihost.runtime.memory import keep_freed_memory

    keep_freed_memory()
    sys.exit(loop.run(_serve(told)))


def _read_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 1)
        if not part:
            sys.exit(1)
        line += part
    return line


async def _serve(told: dict[str, Any]) -> int:
    from multihost.server import guard
    from multihost.server.app import Server, ServerOptions
    from multihost.server.managers.host import Host
    from multihost.server.managers.options import ManagersOptions

    guard.install_if_asked()
    codes = [0]

    def shut_down(*, keeps: bool) -> None:
        codes[0] = KEPT if keeps else DROPPED
        server.request_stop()

    host = told["host"]
    server = Server(
        ServerOptions(
            state=Path(told["state"]),
            port=0,
            durability="process",
            announces=False,
            managers=ManagersOptions(
                keys=(("", base64.b64decode(told["authkey"])),),
                listener=socket.socket(fileno=told["descriptor"]),
                objects=Host(
                    host if isinstance(host, str) else tuple(host),
                    base64.b64decode(told["token"]),
                    frozenset(told["typeids"]),
                ),
                on_shutdown=shut_down,
            ),
        )
    )
    event_loop = asyncio.get_running_loop()
    await server.start()
    os.write(1, b"ready\n")
    event_loop.add_reader(0, _when_ended, server.request_stop)
    event_loop.add_signal_handler(signal.SIGTERM, server.request_stop)
    await server.wait()
    event_loop.remove_reader(0)
    await server.stop()
    return codes[0]


def _when_ended(stop: Callable[[], None]) -> None:
    if not os.read(0, 1024):
        stop()


if __name__ == "__main__":
    main()
