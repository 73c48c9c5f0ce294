"""The server of a program that has none: started with it, gone with it.

One process holds a server and a worker. It tells its address and key on one
pipe and watches another: when the program's end of that is closed, because it
finished or was killed, this process and all it started are gone within
moments. Its store is a real one, in a directory that is removed at the end.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from multihost.runtime import loop
from multihost.runtime.memory import keep_freed_memory, look_less_for_cycles
from multihost.runtime.quota import usable_cores
from multihost.server import guard
from multihost.server.app import Server, ServerOptions
from multihost.worker.options import WorkerOptions
from multihost.worker.worker import Worker

OPTIONS_VARIABLE = "MULTIHOST_EMBEDDED"


def main() -> None:
    """Run until the parent is gone; arguments: where to say that it is ready, what to watch."""
    ready_fd, parent_fd = map(int, sys.argv[1:])
    options = json.loads(os.environ.pop(OPTIONS_VARIABLE, "{}"))
    # Ctrl-C reaches the whole foreground group; what happens then is the program's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    guard.install_if_asked()
    directory = Path(tempfile.mkdtemp(prefix="multihost-"))
    try:
        loop.run(_serve(directory, ready_fd, parent_fd, options))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _serve(directory: Path, ready_fd: int, parent_fd: int, options: dict) -> None:  # type: ignore[type-arg]
    server = Server(
        ServerOptions(
            state=directory,
            port=0,
            durability="process",
            key=secrets.token_urlsafe(32).encode(),
            announces=False,
        )
    )
    await server.start()
    look_less_for_cycles()
    worker = Worker(
        WorkerOptions(
            urls=(server.url,),
            key=server.key,
            socket=server.socket,
            slots=usable_cores(),
            is_elastic=True,
            has_process=True,
            sys_path=tuple(options.get("sys_path", ())),
            cwd=options.get("cwd"),
            argv=tuple(options.get("argv", ())),
            spool=directory,
        )
    )
    working = asyncio.create_task(worker.run())
    note = json.dumps({"url": server.url, "key": server.key.decode(), "socket": server.socket})
    with os.fdopen(ready_fd, "w") as ready:
        ready.write(note + "\n")
    _when_closed(parent_fd, server.request_stop)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, server.request_stop)
    working.add_done_callback(lambda _: server.request_stop())
    await server.wait()
    worker.leave()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await server.stop()


def _when_closed(descriptor: int, call) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Call ``call`` once the other end of a pipe is gone."""
    event_loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(descriptor, 1024):
            event_loop.remove_reader(descriptor)
            call()

    event_loop.add_reader(descriptor, readable)


if __name__ == "__main__":
    main()
