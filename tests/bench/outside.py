"""Entrants that need installing (``pip install 'multihost[bench]'``), with the same tasks.

Each is set up as its own documentation does for one machine with two worker
processes. Celery needs a ``redis-server`` on the path.
"""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import meter
from pools import MIB, SLOTS, WARM_UP, check, lone_calls
from work import rotate, tiny

MODULES = {"celery": ("celery", "redis"), "dask": ("distributed",), "ray": ("ray",)}
REDIS_VARIABLE = "BENCH_REDIS"
START_S = 30.0
LOOK_S = 0.05

Submit = Callable[[Callable[[Any], Any], Any], Any]
"""Submits a call, returns what ``gather`` takes."""


def what_is_missing(peer: str) -> str:
    """Why a peer can't take part; empty when it can."""
    absent = [name for name in MODULES[peer] if importlib.util.find_spec(name) is None]
    if absent:
        return f"no module {', '.join(absent)} (pip install 'multihost[bench]')"
    if peer == "celery" and shutil.which("redis-server") is None:
        return "no redis-server on the path"
    return ""


class Peer(Protocol):
    """A system as these measurements use it."""

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Submit one call."""
        ...

    def gather(self, handles: list[Any]) -> list[Any]:
        """Results of submitted calls, in order."""
        ...


class OutsideEntrant:
    """Measurements over ``Peer``; subclasses start one."""

    def single(self, count: int) -> dict[str, float]:
        """``count`` single calls."""
        with self._running() as peer:
            warm_up(peer)
            family = meter.family([os.getpid()])
            cpu_before, began = meter.cpu_s(family), time.perf_counter()
            answers = peer.gather([peer.submit(tiny, number) for number in range(count)])
            elapsed_s = time.perf_counter() - began
            cpu_s = meter.cpu_s(family) - cpu_before
        check(answers, count)
        return {"rate": count / elapsed_s, "cpu_us": cpu_s / count * 1e6}

    def latency(self, count: int) -> dict[str, float]:
        """``count`` calls, one after the other."""
        with self._running() as peer:
            warm_up(peer)
            return lone_calls(lambda number: peer.gather([peer.submit(tiny, number)])[0], count)

    def payload(self, count: int) -> dict[str, float]:
        """``count`` tasks that get 1 MiB and give 1 MiB."""
        blocks = [os.urandom(MIB) for _ in range(count)]
        with self._running() as peer:
            warm_up(peer)
            began = time.perf_counter()
            answers = peer.gather([peer.submit(rotate, block) for block in blocks])
            elapsed_s = time.perf_counter() - began
        assert answers == [rotate(block) for block in blocks], "a payload came back changed"
        return {"rate": 2 * count / elapsed_s}

    @contextlib.contextmanager
    def _running(self) -> Iterator[Peer]:
        raise NotImplementedError
        yield


def warm_up(peer: Peer) -> None:
    """Have everything connected before the clock starts."""
    peer.gather([peer.submit(tiny, number) for number in range(WARM_UP)])


class DaskEntrant(OutsideEntrant):
    """dask.distributed: a local cluster of two worker processes."""

    @contextlib.contextmanager
    def _running(self) -> Iterator[Peer]:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(
                n_workers=SLOTS, threads_per_worker=1, processes=True, dashboard_address=None
            ) as local,
            Client(local) as client,
        ):
            yield _Dask(client)


class _Dask:
    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._client.submit(function, argument, pure=False)

    def gather(self, handles: list[Any]) -> list[Any]:
        return list(self._client.gather(handles))


class RayEntrant(OutsideEntrant):
    """Ray: a local node with two CPUs."""

    @contextlib.contextmanager
    def _running(self) -> Iterator[Peer]:
        import ray

        paths = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
        ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, runtime_env=paths)
        try:
            yield _Ray(ray)
        finally:
            ray.shutdown()


class _Ray:
    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Any, Any] = {
            function: ray.remote(function) for function in (tiny, rotate)
        }

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Any:
        return self._remote[function].remote(argument)

    def gather(self, handles: list[Any]) -> list[Any]:
        return list(self._ray.get(handles))


class CeleryEntrant(OutsideEntrant):
    """Celery: Redis as broker and result store, a worker of two processes."""

    @contextlib.contextmanager
    def _running(self) -> Iterator[Peer]:
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
            port = free_port()
            redis = ["redis-server", "--port", str(port), "--dir", directory, "--save", ""]
            stack.enter_context(started(redis))
            wait_for_port(port)
            os.environ[REDIS_VARIABLE] = f"redis://127.0.0.1:{port}/0"
            # Containers run as root; this broker is ours alone and gone in a minute.
            os.environ["C_FORCE_ROOT"] = "1"
            worker = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker"]
            options = ["-c", str(SLOTS), "--loglevel", "ERROR"]
            stack.enter_context(started([*worker, *options]))
            import celery_tasks

            yield celery_tasks


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[None]:
    """A process that is ended afterwards."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S)
        else:
            return
