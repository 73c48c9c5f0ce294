"""What a great many waiting tasks cost: ``python tests/bench/backlog.py --tasks 10000000``.

The tasks go in over the wire, as a client sends them. Then the server is
killed and started again, and a worker that was there before works on them. The
lease rate is compared with that of a queue that holds next to nothing.
"""

import argparse
import asyncio
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cluster
import psutil
import work

from multihost.cli.connection import Connection
from multihost.core.digest import digest_of
from multihost.core.job import JobSpec
from multihost.runtime import loop
from multihost.runtime.config import find_target
from multihost.runtime.peer import Peer
from multihost.wire import message as m

TASKS = 10_000_000
FEW = 400_000
"""What the queue holds that it is compared with: enough for a rate to be measured."""
ADDED = 1000
"""Tasks of one message."""
ON_THE_WAY = 8
"""Messages without an answer."""
PAYLOAD = pickle.dumps(((7,), {}), 5)
RATE_S = 8.0
"""So long at most the worker is watched."""
SLOTS = 2
LISTINGS = 7
FILL_S = 1200.0

TARGETS = {
    "server_mib": 300,
    "bytes_a_task": 200,
    "jobs_ms": 200,
    "first_lease_s": 5,
    "rate_ratio": 0.8,
}


class Filler:
    """A client that only submits."""

    def __init__(self, home: cluster.Cluster, tasks: int) -> None:
        """Submit ``tasks`` tiny calls as one job that outlives us."""
        target = find_target(home.url, home.environment()["MULTIHOST_KEY"])
        assert target is not None
        self.peer = Peer(self, m.Role.CLIENT, [*target.urls], target.key)
        self._tasks = tasks
        self._sent = 0
        self._stored = 0
        self._done = asyncio.Event()

    async def run(self) -> None:
        running = asyncio.ensure_future(self.peer.run())
        await asyncio.wait_for(self._done.wait(), FILL_S)
        self.peer.close()
        await running

    def opening(self) -> m.Attach:
        return m.Attach(os.urandom(16))

    def connected(self, welcome: m.Welcome) -> None:
        function = pickle.dumps(work.tiny, 5)
        digest = digest_of(function)
        self.peer.send(m.PutBlob(digest, len(function), 0, function))
        spec = JobSpec(function=digest, label="tiny", name="backlog")
        self.peer.send(m.Open(1, os.urandom(16), spec))
        for _ in range(ON_THE_WAY):
            self._send()

    def _send(self) -> None:
        count = min(ADDED, self._tasks - self._sent)
        if count:
            self.peer.send(m.Add(1, self._sent, [PAYLOAD] * count))
            self._sent += count

    def received(self, messages) -> None:  # type: ignore[no-untyped-def]
        for message in messages:
            if isinstance(message, m.Stored):
                self._stored += message.count
                self._send()
                if self._stored == self._tasks:
                    self.peer.send(m.Seal(1, self._tasks))
                    self._done.set()
            elif isinstance(message, m.AddRefused | m.OpenRefused | m.BlobRefused):
                raise RuntimeError(message.message)

    def writable(self) -> None:
        """Our window is narrower than any back-pressure."""

    def disconnected(self, reason: str) -> None:
        """Nobody breaks it here."""


def measure(tasks: int, *, has_rates: bool = True) -> dict[str, float]:
    """Figures of a backlog of ``tasks``; those of the lease rate only if ``has_rates``."""
    with standing(tasks) as (home, fill_s):
        figures = {"tasks": tasks, "fill_rate": tasks / fill_s}
        figures["server_mib"] = peak_mib(home.server_pid)
        figures["jobs_ms"] = listing_ms(home)
        figures["backup_s"] = backup_s(home)
        figures["log_mib"] = size_of(home, "store.sqlite-wal") / (1 << 20)
        figures |= after_restart(home, tasks, has_rates=has_rates)
        figures["restarted_mib"] = peak_mib(home.server_pid)
    if has_rates:
        with standing(FEW) as (home, _):
            figures["few_rate"] = after_restart(home, FEW)["rate"]
        figures["rate_ratio"] = figures["rate"] / figures["few_rate"]
    return figures


@contextmanager
def standing(tasks: int) -> Iterator[tuple[cluster.Cluster, float]]:
    """A server with ``tasks`` tasks, and how long it took to take them."""
    # What ten million signatures take is not what is measured.
    with cluster.running("power", has_seal=False) as home:
        began = time.monotonic()
        loop.run(Filler(home, tasks).run())
        yield home, time.monotonic() - began


def after_restart(home: cluster.Cluster, tasks: int, *, has_rates: bool = True) -> dict[str, float]:
    """Kill the server, start it again: time to the first lease, then tasks a second."""
    assert home.server is not None
    home.server.terminate()
    home.server.wait()
    disk = size_of(home, "store.sqlite")
    home.start_server()
    home.start_worker(SLOTS)
    wait_for(home, 1)
    home.kill(home.server)
    began = time.monotonic()
    home.start_server()
    before = ended(home)
    wait_for(home, before + 1)
    figures = {
        "bytes_a_task": disk / tasks - len(PAYLOAD),
        "first_lease_s": time.monotonic() - began,
    }
    if has_rates:
        figures["rate"] = watch(home, tasks)
    return figures


def watch(home: cluster.Cluster, tasks: int) -> float:
    """Tasks a second, over some seconds or until nine tenths are done."""
    time.sleep(0.5)
    first, began = ended(home), time.monotonic()
    while time.monotonic() - began < RATE_S and ended(home) < 0.9 * tasks:
        time.sleep(0.05)
    return (ended(home) - first) / (time.monotonic() - began)


def wait_for(home: cluster.Cluster, count: int) -> int:
    """Wait until so many have ended; how many."""
    assert home.server is not None
    cluster.wait_until(lambda: ended(home) >= count, home.server)
    return ended(home)


def ended(home: cluster.Cluster) -> int:
    return int(ask(home, "/api/jobs/backlog")["succeeded"])


def ask(home: cluster.Cluster, path: str) -> dict[str, int]:
    """An answer of the server's API."""
    target = find_target(home.url, home.environment()["MULTIHOST_KEY"])
    assert target is not None
    connection = Connection(target)
    try:
        answer: dict[str, int] = connection.get(path)
    finally:
        connection.close()
    return answer


def listing_ms(home: cluster.Cluster) -> float:
    """Of ``multihost jobs``, from the shell and back."""
    times = []
    for _ in range(LISTINGS):
        began = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).with_name("multihost"), "jobs"],
            env=home.environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def backup_s(home: cluster.Cluster) -> float:
    """Of ``multihost backup``."""
    began = time.perf_counter()
    subprocess.run(
        [Path(sys.executable).with_name("multihost"), "backup", str(home.home / "backup.mhb")],
        env=home.environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, as far as the system tells."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float(psutil.Process(pid).memory_info().rss) / (1 << 20)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def size_of(home: cluster.Cluster, name: str) -> int:
    path = home.home / "state" / name
    return path.stat().st_size if path.exists() else 0


def show(figures: dict[str, float]) -> None:
    """Figures beside what they have to reach."""
    for title, name, unit in (
        ("submitted", "fill_rate", "tasks/s"),
        ("server's memory, peak", "server_mib", "MiB"),
        ("the same after a restart", "restarted_mib", "MiB"),
        ("disk a task beyond its payload", "bytes_a_task", "bytes"),
        ("multihost jobs", "jobs_ms", "ms"),
        ("multihost backup", "backup_s", "s"),
        ("killed and started again, to the first outcome", "first_lease_s", "s"),
        ("tasks done, with next to no backlog", "few_rate", "tasks/s"),
        ("tasks done, with the backlog", "rate", "tasks/s"),
        ("the second over the first", "rate_ratio", ""),
    ):
        if name not in figures:
            continue
        value = f"{figures[name]:,.0f}" if figures[name] >= 20 else f"{figures[name]:.2f}"
        target = TARGETS.get(name)
        sign = "at least" if name == "rate_ratio" else "below"
        print(f"{title:<48} {value:>10} {unit:<8}" + (f" {sign} {target}" if target else ""))


def missed(figures: dict[str, float]) -> list[str]:
    """Names of figures that don't reach their target."""
    return [
        name
        for name, target in TARGETS.items()
        if name in figures
        and (figures[name] < target if name == "rate_ratio" else figures[name] >= target)
    ]


def main() -> int:
    """Measure and print; 1 if ``--check`` and a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--no-rates", action="store_true", help="leave the lease rate out")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--json", type=Path, help="where values go")
    arguments = parser.parse_args()
    os.environ.pop("MULTIHOST_URL", None)
    figures = measure(arguments.tasks, has_rates=not arguments.no_rates)
    print(f"{arguments.tasks:,} tasks wait")
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 1 if arguments.check and missed(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
