"""A manager's front: a multihost server that keeps its queues, in a process of its own.

The manager's address is bound by the host process and inherited, so that a
front that dies is replaced while clients that connect just wait. The front
ends when its standard input does: with its host, however that ends.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multihost.managers_front import DROPPED, KEPT

READY_S = 30.0
STOP_S = 5.0
AGAIN_S = 0.2
"""Pause before a front that died is replaced."""


@dataclass(frozen=True, slots=True)
class FrontPlan:
    """What a front is told."""

    state: Path
    authkey: bytes
    host: Any
    """Where the host process listens."""
    token: bytes
    typeids: tuple[str, ...]
    """What the host can make."""
    realm: str | None = None
    """What the names of its queues begin with where there are others; None: they end with it."""

    def as_line(self, descriptor: int) -> bytes:
        """The line that the front's process reads first."""
        told = {
            "state": str(self.state),
            "authkey": base64.b64encode(self.authkey).decode(),
            "host": self.host,
            "token": base64.b64encode(self.token).decode(),
            "typeids": self.typeids,
            "descriptor": descriptor,
        }
        return json.dumps(told).encode() + b"\n"


class Front:
    """The front's process, kept alive by a thread of the host."""

    def __init__(
        self, plan: FrontPlan, listener: socket.socket, on_dropped: Callable[[], None]
    ) -> None:
        """Serve at ``listener``; ``on_dropped`` is called when a client asked for shutdown."""
        self._plan = plan
        self._listener = listener
        self._on_dropped = on_dropped
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="multihost-front")

    def start(self) -> None:
        """Start it and wait until it answers; raises RuntimeError when it can't."""
        self._process = self._spawn()
        self._watcher.start()

    def stop(self) -> int | None:
        """End it; the exit code with which it did."""
        self._is_stopping.set()
        front = self._process
        if front is None:
            return None
        assert front.stdin is not None
        front.stdin.close()
        try:
            return front.wait(STOP_S)
        except subprocess.TimeoutExpired:
            front.kill()
            return front.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "multihost.managers_front"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        descriptor = self._listener.fileno()
        front = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(descriptor,),
        )
        assert front.stdin is not None
        assert front.stdout is not None
        front.stdin.write(self._plan.as_line(descriptor))
        front.stdin.flush()
        line = front.stdout.readline()
        front.stdout.close()
        if line != b"ready\n":
            front.stdin.close()
            raise RuntimeError(
                f"the server of the manager's queues ended with exit code {front.wait()} before "
                f"it was ready; its state is in {self._plan.state}, and above is why"
            )
        return front

    def _watch(self) -> None:
        while True:
            assert self._process is not None
            code = self._process.wait()
            if code in (DROPPED, KEPT):
                self._on_dropped()
                return
            if self._is_stopping.wait(AGAIN_S):
                return
            self._process = self._spawn()
