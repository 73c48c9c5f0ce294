"""Servers and workers of ours, as a user starts them: processes, in a directory of their own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from multihost.runtime.secret import SEAL_OFF, SEAL_VARIABLE

HERE = Path(__file__).parent
START_S = 20.0
"""Time for a server or a worker to stand."""
LOOK_S = 0.01
"""Between two looks at whether something has happened."""


def environment(home: Path) -> dict[str, str]:
    """Environment in which no server but those started below ``home`` is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MULTIHOST_")}
    paths = [str(HERE), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "MULTIHOST_STATE": str(home / "state"),
        "MULTIHOST_CONFIG": str(home / "no-config.toml"),
    }


class Cluster:
    """One server and some workers; everything started here ends here."""

    def __init__(self, durability: str, *, has_seal: bool = True) -> None:
        """Make a home; nothing is started yet. ``has_seal``: what is pickled is signed."""
        self.durability = durability
        self.has_seal = has_seal
        self.home = Path(tempfile.mkdtemp(prefix="multihost-bench-"))
        self.url = ""
        self.server: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._port = 0

    @property
    def pids(self) -> list[int]:
        """The server and the workers' agents; their children are theirs."""
        processes = [self.server, *self.workers]
        return [process.pid for process in processes if process is not None]

    @property
    def server_pid(self) -> int:
        """The server's process."""
        assert self.server is not None
        return self.server.pid

    def environment(self) -> dict[str, str]:
        """Environment of a program that uses this server."""
        key = (self.home / "state" / "key").read_text().strip()
        return environment(self.home) | {
            "MULTIHOST_URL": self.url,
            "MULTIHOST_KEY": key,
            "BENCH_PIDS": json.dumps(self.pids),
        }

    def start_server(self) -> None:
        """Start the server, or start it again on the same port and store."""
        state = self.home / "state"
        command = ["server", "--state", str(state), "--port", str(self._port)]
        self.server = self._start([*command, "--durability", self.durability])
        self.url = _wait_for_note(state / "server.json", self.server)
        self._port = int(self.url.rpartition(":")[2])

    def start_worker(self, slots: int, name: str = "") -> subprocess.Popen[bytes]:
        """Start a worker, and wait until its slots' processes are there."""
        named = ["--name", name] if name else []
        process = self._start(["worker", "--slots", str(slots), *named])
        self.workers.append(process)
        wait_until(lambda: len(children_of(process.pid)) >= slots, process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """``kill -9`` one process started here."""
        process.kill()
        process.wait()
        if process in self.workers:
            self.workers.remove(process)

    def stop(self) -> None:
        """End all processes, workers first, and remove the home."""
        everyone = [*self.workers, *([self.server] if self.server else [])]
        for process in everyone:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.workers, self.server = [], None
        shutil.rmtree(self.home, ignore_errors=True)

    def log(self) -> str:
        """What the processes have said."""
        with contextlib.suppress(OSError):
            return (self.home / "log").read_text()
        return ""

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        environ = environment(self.home)
        if not self.has_seal:
            environ[SEAL_VARIABLE] = SEAL_OFF
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "multihost", *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextlib.contextmanager
def running(durability: str, slots: int = 0, *, has_seal: bool = True) -> Iterator[Cluster]:
    """A cluster with one worker of ``slots`` slots (0: none)."""
    cluster = Cluster(durability, has_seal=has_seal)
    try:
        cluster.start_server()
        if slots:
            cluster.start_worker(slots)
        yield cluster
    except BaseException:
        print(cluster.log(), file=sys.stderr)
        raise
    finally:
        cluster.stop()


def children_of(pid: int) -> list[int]:
    """Processes that a process has started and that live."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def wait_until(happened, process: subprocess.Popen[bytes]) -> None:  # type: ignore[no-untyped-def]
    """Wait until something is true; raises when ``process`` ends before, or time is over."""
    deadline = time.monotonic() + START_S
    while not happened():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.args!r} did not stand within {START_S:g} s")
        time.sleep(LOOK_S)


def _wait_for_note(path: Path, server: subprocess.Popen[bytes]) -> str:
    """The URL in the server's note, once this very server has written it."""
    found: list[str] = []

    def is_there() -> bool:
        try:
            note = json.loads(path.read_text())
        except (OSError, ValueError):
            return False
        if note["pid"] == server.pid:
            found.append(note["url"])
        return bool(found)

    wait_until(is_there, server)
    return found[0]
