"""The server unpickles nothing, imports nothing of the users', runs nothing of theirs."""

import asyncio
import contextlib
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import types
from multiprocessing.managers import BaseManager
from pathlib import Path

import pytest

import multihost
from multihost.managers.front import FrontPlan
from multihost.runtime.config import KEY_FILE
from multihost.runtime.secret import read_key
from multihost.server import gateway
from multihost.server.app import Server, ServerOptions
from multihost.server.guard import GUARD_VARIABLE
from multihost.testing.cluster import Cluster
from multihost.testing.guarding import StackGuard
from multihost.testing.samples import Stuff, samples
from multihost.testing.stranger import Stranger
from multihost.wire import message as m
from multihost.wire.session import LEGAL_FROM_PEER, Phase

PLANTED = """
import marshal, pickle, sys
from multihost.server import api

DEEDS = {
    "data": lambda: pickle.loads(b"N."),
    "pickle": lambda: pickle._Unpickler,
    "unpickler": lambda: pickle.Unpickler(None).load(),
    "import": lambda: __import__("users_module"),
    "exec": lambda: exec("x = 1"),
    "eval": lambda: eval("1 + 1"),
    "compile": lambda: compile("x = 1", "<users>", "exec"),
    "marshal": lambda: marshal.loads(b"N"),
}

async def health(self, request):
    DEEDS[request.query_params["deed"]]()
    return api.answer("it was done")

api.Api.health = health
from multihost.cli.main import main
main(sys.argv[1:])
"""
PLANTED_AT_START = """
import contextlib, marshal, pickle, sys
from multihost.server.app import Server

DEEDS = {
    "data": lambda: pickle.loads(b"N."),
    "class": lambda: pickle.loads(pickle.dumps(Server)),
    "unpickler": lambda: pickle.Unpickler(None),
    "import": lambda: __import__("users_module"),
    "exec": lambda: exec("x = 1"),
    "eval": lambda: eval("1 + 1"),
    "compile": lambda: compile("x = 1", "<users>", "exec"),
    "marshal": lambda: marshal.loads(b"N"),
}
plain = Server.start

async def start(self):
    await plain(self)
    for name, deed in DEEDS.items():
        try:
            deed()
            print(name, "was done", file=sys.stderr)
        except ImportError as error:  # the guard's is one
            print(name, "was kept" if "never does this" in str(error) else error, file=sys.stderr)
    print("that was all", file=sys.stderr)
"""
RUN_PLANTED = """
Server.start = start
from {module} import main
main()
"""
DEEDS = ("data", "unpickler", "import", "exec", "eval", "compile", "marshal")


class Manager(BaseManager):
    """What it registers is for these tests alone."""


class Canary:
    """Unpickling it leaves the number of the process that did it in a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        path = f"{self.path!r} + '/' + str(__import__('os').getpid())"
        deed = f"__import__('os').makedirs({path}, exist_ok=True)"
        return eval, (deed,)


def pids(path):
    return {int(each.name) for each in path.iterdir()} if path.exists() else set()


@pytest.fixture
def cluster():
    here = str(Path(__file__).parent)
    with Cluster(workers=1, slots=1, python_path=[here]) as running:
        yield running


@pytest.fixture
def planted(tmp_path):
    """A guarded server that does forbidden things when asked to; its URL and its notes."""
    (tmp_path / "users_module.py").write_text("print('run')")
    (tmp_path / "planted.py").write_text(PLANTED)
    notes = tmp_path / "notes"
    process = subprocess.Popen(
        [
            *(sys.executable, str(tmp_path / "planted.py"), "server", "--json", "--port", "0"),
            *("--state", str(tmp_path / "state"), "--durability", "process"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {GUARD_VARIABLE: str(notes), "MULTIHOST_STATE": str(tmp_path / "state")},
    )
    try:
        yield json.loads(process.stdout.readline())["url"], notes
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def ask(url, path, **request):
    """Status of an HTTP answer."""
    import http.client

    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(request.pop("method", "GET"), path, **request)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_the_guard_bites(planted):
    url, notes = planted
    for number, deed in enumerate(DEEDS, 1):
        assert ask(url, f"/healthz?deed={deed}") == 500, deed
        assert notes.read_text().count("refused in") == number, deed
    assert ask(url, "/healthz?deed=pickle") == 200, "nothing was done"


def kept(said):
    """Deeds of PLANTED_AT_START that a server was kept from, after it has said so."""
    lines = []
    while "that was all" not in lines:
        lines.append(next(said).strip())
    assert len(lines) == 9
    return sum(line.endswith("was kept") for line in lines)


@contextlib.contextmanager
def run_planted(tmp_path, module, *arguments, **options):
    """One of the modules that start servers, with forbidden deeds planted in ``Server.start``."""
    script = tmp_path / "planted_at_start.py"
    script.write_text(PLANTED_AT_START + RUN_PLANTED.format(module=module))
    (tmp_path / "users_module.py").write_text("print('run')")
    notes = tmp_path / "notes"
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stderr=subprocess.PIPE,
        env=os.environ | {GUARD_VARIABLE: str(notes), "MULTIHOST_STATE": str(tmp_path / "state")},
        text=True,
        **options,
    )
    try:
        yield process
        assert kept(process.stderr) == 8
        assert notes.read_text().count("refused in") == 8
        assert notes.read_text().startswith(f"on {process.pid} ")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_guard_bites_in_a_server_of_the_command_line(tmp_path):
    with run_planted(tmp_path, "multihost.cli.main", "server", "--port", "0"):
        pass


def test_the_guard_bites_in_an_embedded_server(tmp_path):
    ready, parent = os.pipe(), os.pipe()
    descriptors = [ready[1], parent[0]]
    handed = (ready[1], parent[0])
    with run_planted(tmp_path, "multihost.embedded", *descriptors, pass_fds=handed):
        pass
    for descriptor in (*ready, *parent):
        os.close(descriptor)


def test_the_guard_bites_in_a_manager_s_front(tmp_path):
    plan = FrontPlan(tmp_path / "state", b"authkey", ("127.0.0.1", 9), b"token", ())
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        run_planted(
            *(tmp_path, "multihost.managers_front"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(listener.fileno(),),
        ) as front,
    ):
        front.stdin.write(plan.as_line(listener.fileno()).decode())
        front.stdin.flush()


def test_the_guard_bites_in_a_server_within_the_process_of_a_test(
    tmp_path, monkeypatch, guard_notes, capsys
):
    before = guard_notes.read_text().count("refused in")
    planted = {"__name__": "multihost.server.planted"}
    exec(PLANTED_AT_START, planted)
    monkeypatch.setattr(Server, "start", planted["start"])

    async def main():
        server = Server(ServerOptions(tmp_path, port=0, durability="process", announces=False))
        await server.start()
        await server.stop()

    asyncio.run(main())
    assert kept(iter(capsys.readouterr().err.splitlines())) == 8
    assert guard_notes.read_text().count("refused in") == before + 8
    # What the test does itself is its own business.
    assert pickle.loads(pickle.dumps(Stranger)) is Stranger
    assert pickle.loads(pickle.dumps(pickle.loads)) is pickle.loads
    assert pickle.loads(pickle.dumps(pickle.Unpickler)) is pickle.Unpickler


def test_what_the_link_of_a_server_within_a_test_does_counts_as_the_server_s(guard_notes):
    guard = StackGuard(guard_notes)
    of_server = types.SimpleNamespace(owner=gateway.Connection.__new__(gateway.Connection))
    of_client = types.SimpleNamespace(owner=None)
    scope = {"__name__": "multihost.runtime.link", "look": lambda: guard._applies(sys._getframe(1))}
    exec("def received(self): return look()", scope)
    assert scope["received"](of_server)
    assert not scope["received"](of_client)


def test_every_way_to_start_a_server_is_guarded(guard_notes):
    with Cluster(workers=0) as cluster:
        assert f"on {cluster.server.pid} " in guard_notes.read_text()
    from multihost.client.embedded import Embedded

    embedded = Embedded()
    try:
        embedded.target()
        assert f"on {embedded.process.pid} " in guard_notes.read_text()
    finally:
        embedded.stop()
    assert f"beside {os.getpid()}" in guard_notes.read_text()


def test_there_is_no_other_way_to_start_one():
    sources = Path(multihost.__file__).parent
    starting = {
        str(path.relative_to(sources))
        for path in sources.rglob("*.py")
        if re.search(r"\bServerOptions\($", path.read_text(), re.MULTILINE)
    }
    assert starting == {"cli/server.py", "embedded.py", "managers_front.py"}
    for path in starting:
        assert "guard.install_if_asked()" in (sources / path).read_text()


def test_a_canary_in_arguments_and_results_fires_in_children_and_clients_only(cluster, tmp_path):
    path = tmp_path / "canary"
    with multihost.connect(cluster.url, cluster.key) as client:
        job = client.submit(lambda it: Canary(str(path)), Canary(path))
        job.result()
        queue = client.queue("canaries")
        queue.put(Canary(path))
        queue.get()
    fired = pids(path)
    assert os.getpid() in fired
    assert not fired & {cluster.server.pid, *(worker.pid for worker in cluster.workers)}


def test_a_canary_in_every_field_of_every_message_never_fires(tmp_path):
    path = tmp_path / "canary"
    canary = pickle.dumps(Canary(path), 0)
    stuff = Stuff(data=(canary,), texts=(canary.decode(),))
    sent = set()
    with Cluster(workers=0) as cluster:
        for role in m.Role:
            stranger = Stranger(cluster.url, cluster.key, role).enter()
            for kind in LEGAL_FROM_PEER[role, Phase.OPEN]:
                for message in samples(kind, stuff):
                    if not stranger.is_served():
                        stranger.close()
                        stranger = Stranger(cluster.url, cluster.key, role).enter()
                    stranger.send(message)
                    sent.add(kind)
            stranger.close()
        for message in (
            *samples(m.Hello, Stuff(data=(canary,), texts=("client",))),
            m.Proof(canary),
        ):
            with Stranger(cluster.url, cluster.key) as stranger:
                stranger.upgrade()
                stranger.send(message)
        for kind in (m.Attach, m.Branch, m.Enlist):
            role = m.Role.WORKER if kind is m.Enlist else m.Role.CLIENT
            for message in samples(kind, stuff):
                with Stranger(cluster.url, cluster.key, role) as stranger:
                    stranger.upgrade()
                    stranger.prove()
                    stranger.send(message)
                    stranger.receive()
        assert ask(cluster.url, "/healthz") == 200
        assert not path.exists()
    assert (
        sent
        == LEGAL_FROM_PEER[m.Role.CLIENT, Phase.OPEN] | (LEGAL_FROM_PEER[m.Role.WORKER, Phase.OPEN])
    )


def test_a_canary_in_every_http_request_never_fires(tmp_path):
    path = tmp_path / "canary"
    canary = pickle.dumps(Canary(path), 0)
    with Cluster(workers=0) as cluster:
        from urllib.parse import quote

        headers = {
            "Authorization": f"Bearer {cluster.key.decode()}",
            "Content-Type": "application/x-pickle",
        }
        name = quote(canary, safe="")
        for place in ("jobs", "queues", "item-queues", "workers", f"jobs/{name}", "tasks/1/1"):
            assert ask(cluster.url, f"/api/{place}?state={name}", headers=headers) < 500
        for place in (f"jobs/{name}/cancel", f"jobs/{name}/retry", f"queues/{name}"):
            status = ask(cluster.url, f"/api/{place}", method="POST", body=canary, headers=headers)
            assert status < 500
        assert not path.exists()


def test_a_canary_at_the_managers_port_never_fires_in_the_server(tmp_path):
    path = tmp_path / "canary"
    state = tmp_path / "state"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "multihost", "server", "--json", "--port", "0"),
            *("--state", str(state), "--managers", "127.0.0.1:0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MULTIHOST_STATE": str(state)},
    )
    try:
        note = json.loads(process.stdout.readline())
        host, _, port = note["managers"].rpartition(":")
        Manager.register("queue")
        manager = Manager((host, int(port)), read_key(state / KEY_FILE))
        manager.connect()
        queue = manager.queue()
        queue.put(Canary(path))
        queue.put([Canary(path)], True, 5)
        queue.put(item={"canary": Canary(path)})
        with contextlib.suppress(Exception):
            queue.qsize(Canary(path))
        with contextlib.suppress(Exception):
            queue.no_such_method(Canary(path))
        assert not path.exists(), "nothing has been taken yet"
        queue.get()
        assert pids(path) == {os.getpid()}
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
