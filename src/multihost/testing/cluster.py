"""A real server and real workers as processes, to be killed and started again."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from multihost.runtime.address import url_of
from multihost.runtime.config import JOIN_VARIABLE, KEY_FILE, STATE_VARIABLE, URL_VARIABLE
from multihost.runtime.http import http_connection
from multihost.runtime.join import Join
from multihost.runtime.note import read_server_note
from multihost.runtime.secret import KEY_VARIABLE, read_key
from multihost.runtime.trust import Trust
from multihost.testing.ports import free_port
from multihost.testing.waiting import wait_until

HOST = "127.0.0.1"


TEMPLATE = "mh-template"
"""What a worker's children are forked from calls itself so."""


class Cluster:
    """A server and its workers on this machine; a context manager that leaves nothing behind.

    ``kill_server`` and the like are SIGKILL: nobody gets to tidy up.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        slots: int = 2,
        durability: str = "process",
        python_path: Sequence[str] = (),
        is_tls: bool = False,
        state: Path | None = None,
        server_options: Sequence[str] = (),
    ) -> None:
        """Describe the cluster; ``start`` or ``with`` starts it.

        ``state``: the directory to use, which is removed at the end, too.
        """
        if state is None:
            state = Path(tempfile.mkdtemp(prefix="multihost-test-"))
        state.mkdir(parents=True, exist_ok=True)
        self.directory = state
        self.server_options = [*server_options]
        self.durability = durability
        self.slots = slots
        self.port = free_port()
        self.is_tls = is_tls
        self.server_options = list(server_options)
        self.url = url_of(HOST, self.port, is_tls=is_tls)
        self.server: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._planned = workers
        self._python_path = list(python_path)
        self._log = (self.directory / "log.txt").open("ab")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def key(self) -> bytes:
        """The server's key."""
        return read_key(self.directory / KEY_FILE)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a program finds the cluster."""
        if self.is_tls:
            return {JOIN_VARIABLE: self.join.text()}
        return {URL_VARIABLE: self.url, KEY_VARIABLE: self.key.decode()}

    @property
    def join(self) -> Join:
        """What another machine would need, could it reach the cluster's address."""
        note = read_server_note(self.directory)
        assert note is not None
        return Join((self.url,), note.fingerprint, self.key.decode())

    @property
    def log(self) -> str:
        """What the processes have printed so far."""
        return (self.directory / "log.txt").read_text(errors="replace")

    def start(self) -> None:
        """Start the server and the workers, and wait until they are connected."""
        self.start_server()
        for _ in range(self._planned):
            self.start_worker()
        self.wait_for_workers(self._planned)

    def start_server(self) -> None:
        """Start the server, for the first time or after a kill."""
        self.server = self._run(
            "server",
            *("--state", str(self.directory), "--host", HOST, "--port", str(self.port)),
            *("--durability", self.durability),
            *(["--tls"] if self.is_tls else []),
            *self.server_options,
        )
        wait_until(self._is_up, f"the server answers at {self.url}")

    def start_worker(self, *options: str, slots: int | None = None) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        worker = self._run(
            "worker",
            *("--slots", str(slots or self.slots), "--spool", str(self.directory)),
            *options,
        )
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Wait until ``count`` workers are connected."""
        wait_until(
            lambda: sum(row["connected"] for row in self.get("/api/workers")) >= count,
            f"{count} workers are connected",
        )

    def kill_server(self) -> None:
        """SIGKILL the server."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def kill_worker(self, position: int = 0) -> None:
        """SIGKILL a worker's agent; its children have to notice by themselves."""
        worker = self.workers.pop(position)
        worker.kill()
        worker.wait()

    def children(self, position: int = 0) -> list[int]:
        """Process ids of a worker's slots."""
        children = psutil.Process(self.workers[position].pid).children()
        return [child.pid for child in children if not _is_template(child)]

    def kill_child(self, position: int = 0) -> int | None:
        """SIGKILL one slot's process of a worker; its process id."""
        for pid in self.children(position):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return pid
        return None

    def get(self, path: str) -> Any:
        """Answer of the HTTP API to a question."""
        return self._ask("GET", path, None)

    def post(self, path: str, **body: Any) -> Any:
        """Answer of the HTTP API to an order."""
        return self._ask("POST", path, json.dumps(body).encode())

    def make_key(self, role: str, name: str = "", expires_s: float | None = None) -> str:
        """Text of a new key."""
        made = self.post("/api/keys", role=role, name=name, expires_s=expires_s)
        text: str = made["key"]
        return text

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        connection = self._connection()
        try:
            headers = {"Authorization": f"Bearer {self.key.decode()}"}
            connection.request(method, path, body, headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def stop(self) -> None:
        """End all processes and remove the directory."""
        processes = [*self.workers, *([self.server] if self.server else [])]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        environment[STATE_VARIABLE] = str(self.directory)
        for name in (JOIN_VARIABLE, URL_VARIABLE, KEY_VARIABLE):
            environment.pop(name, None)
        path = [*self._python_path, *filter(None, [environment.get("PYTHONPATH")])]
        if path:
            environment["PYTHONPATH"] = os.pathsep.join(path)
        return subprocess.Popen(
            [sys.executable, "-m", "multihost", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def _is_up(self) -> bool:
        assert self.server is not None
        if self.server.poll() is not None:
            raise AssertionError(f"the server ended with {self.server.returncode}:\n{self.log}")
        if self.is_tls and read_server_note(self.directory) is None:
            return False
        connection = self._connection()
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        trust = Trust(self.join.fingerprint if self.is_tls else None)
        return http_connection(self.url, trust, 10)


def start() -> tuple[dict[str, str], Callable[[], None]]:
    """Start a cluster for CPython's test harness: its environment, and how to stop it."""
    # Workers unpickle by reference to the harness, which is the script being run.
    harness = str(Path(sys.argv[0]).resolve().parent)
    cluster = Cluster(workers=2, slots=4, python_path=[harness])
    cluster.start()
    return cluster.environment, cluster.stop


def _is_template(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name() == TEMPLATE
    return False
