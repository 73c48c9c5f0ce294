"""Keys as people use them: made, handed out, expired, taken back, with real processes."""

import asyncio
import contextlib
import dataclasses
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.managers import BaseManager, RemoteError
from pathlib import Path

import pytest
from cli_runner import Shell
from cli_tasks import double

import multihost
from multihost import errors
from multihost.cli.exits import Exit
from multihost.runtime.config import STATE_VARIABLE, URL_VARIABLE
from multihost.runtime.join import parse_join
from multihost.runtime.peer import Peer
from multihost.runtime.secret import KEY_VARIABLE
from multihost.server.app import Server, ServerOptions
from multihost.server.managers.options import ManagersOptions
from multihost.testing.cluster import Cluster
from multihost.testing.stranger import Stranger
from multihost.testing.waiting import wait_until
from multihost.wire import message as m
from multihost.wire.keys import KeyRole

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def cluster():
    with Cluster(workers=0, slots=1, python_path=[str(Path(__file__).parent)]) as cluster:
        cluster.start_worker("--queue", "default")
        cluster.wait_for_workers(1)
        yield cluster


@pytest.fixture
def admin(cluster):
    return Shell(**{STATE_VARIABLE: str(cluster.directory)})


def shell_with(cluster, key):
    return Shell(**{URL_VARIABLE: cluster.url, KEY_VARIABLE: key})


@pytest.fixture
def key_file(tmp_path):
    def make(key):
        path = tmp_path / "key"
        path.write_text(key + "\n")
        path.chmod(0o600)
        return str(path)

    return make


# --- the command line -------------------------------------------------------------------------


def test_a_new_key_is_printed_once_and_alone_on_stdout(cluster, admin):
    code, output, errors_ = admin.run("key", "new", "--role", "submit", "--name", "printed once")
    assert code is Exit.OK
    assert output.startswith("mhk_")
    assert output.count("\n") == 1
    assert output.strip() not in errors_
    secret = output.strip().split("_", 2)[2]
    listed = admin.json("key", "list")
    assert secret not in str(listed)
    assert secret not in cluster.log
    assert [row["role"] for row in listed if row["name"] == "printed once"] == ["submit"]


def test_the_first_key_listed_is_the_one_in_the_key_file(admin):
    first = admin.json("key", "list")[0]
    assert (first["id"], first["role"], first["state"]) == ("own", "admin", "live")
    code, _, said = admin.run("key", "revoke", "own")
    assert code is Exit.USAGE
    assert "delete the file" in said


def test_keys_are_kept_over_a_restart_and_nothing_secret_is_in_the_store():
    with Cluster(workers=0) as cluster:
        key = cluster.make_key("view", "kept")
        cluster.make_key("view", "taken back")
        cluster.post("/api/keys/taken%20back/revoke")
        cluster.kill_server()
        cluster.start_server()
        states = {row["name"]: row["state"] for row in cluster.get("/api/keys")[1:]}
        assert states == {"kept": "live", "taken back": "revoked"}
        assert shell_with(cluster, key).run("jobs")[0] is Exit.OK
        secret = key.split("_", 2)[2].encode()
        for path in cluster.directory.glob("store.sqlite*"):
            assert secret not in path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--role", "view", "--expires", "3"], "30d"),
        (["--role", "view", "--expires", "0s"], "longer than no time"),
        (["--role", "view", "--expires", "99999w"], "100 years"),
        (["--role", "view", "--name", "two\nlines"], "printable"),
        (["--role", "boss"], "boss"),
        ([], "--role"),
    ],
)
def test_a_key_that_can_not_be_is_refused_with_what_would_do(admin, arguments, said):
    code, output, errors_ = admin.run("key", "new", *arguments)
    assert code is Exit.USAGE
    assert said in errors_
    assert not output


def test_a_name_is_free_again_when_its_key_was_revoked(admin):
    first = admin.json("key", "new", "--role", "view", "--name", "twice")
    assert admin.run("key", "new", "--role", "view", "--name", "twice")[0] is Exit.USAGE
    assert admin.json("key", "revoke", "twice")["id"] == first["id"]
    second = admin.json("key", "new", "--role", "view", "--name", "twice")
    assert admin.json("key", "revoke", "twice")["id"] == second["id"]
    assert admin.run("key", "revoke", "nobody's")[0] is Exit.USAGE


def test_a_join_string_with_a_role_has_a_key_of_its_own(cluster, admin, tmp_path):
    path = tmp_path / "join"
    code, _, _ = admin.run(
        *("key", "join", "--role", "work", "--name", "joiner", "--file", str(path))
    )
    assert code is Exit.OK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    join = parse_join(path.read_text())
    assert join.key != cluster.key.decode()
    assert shell_with(cluster, join.key).run("jobs")[0] is Exit.KEY
    assert admin.run("key", "join", "--name", "no role")[0] is Exit.USAGE


def test_what_a_key_may_not_do_is_said_in_one_line(cluster, admin):
    key = cluster.make_key("submit", "a client's")
    for command in (("key", "list"), ("queues", "pause", "x", "--new"), ("worker",)):
        code, output, said = shell_with(cluster, key).run(*command)
        assert (code, output) == (Exit.KEY, "")
        assert said.count("\n") == 1
        assert "(a client's) has the role submit" in said
        assert "takes admin" in said


# --- programs ----------------------------------------------------------------------------------


def test_a_submit_key_runs_a_pool_and_sees_its_jobs(cluster):
    key = cluster.make_key("submit")
    with multihost.connect(cluster.url, key) as client:
        assert list(client.map(double, range(5))) == [0, 2, 4, 6, 8]
        assert client.jobs()


def test_a_work_key_runs_tasks_and_submits_none(cluster, key_file):
    key = cluster.make_key("work", "a worker's")
    worker = cluster.start_worker(
        *("--server", cluster.url, "--key-file", key_file(key), "--queue", "theirs")
    )
    cluster.wait_for_workers(2)
    with multihost.connect(cluster.url, cluster.key) as client:
        assert client.options(queue="theirs").submit(double, 4).result(DEADLINE_S) == 8
    with pytest.raises(errors.NotAllowed, match="--tasks-key-file"):
        multihost.connect(cluster.url, key)
    cluster.post("/api/keys/a%20worker%27s/revoke")
    assert worker.wait(DEADLINE_S) == Exit.KEY
    assert "was revoked at" in cluster.log
    cluster.workers.remove(worker)


def nested():
    """A task that uses multihost itself."""
    with multihost.connect() as client:
        return client.submit(double, 21).result(DEADLINE_S)


def test_tasks_that_use_multihost_need_a_key_that_may(cluster, tmp_path):
    keys = {}
    for role in ("work", "submit"):
        path = tmp_path / role
        path.write_text(cluster.make_key(role))
        path.chmod(0o600)
        keys[role] = str(path)
    options = ("--server", cluster.url, "--key-file", keys["work"])
    without = cluster.start_worker(*options, "--queue", "without")
    with_key = cluster.start_worker(*options, "--tasks-key-file", keys["submit"], "--queue", "with")
    with multihost.connect(cluster.url, cluster.key) as client:
        assert client.options(queue="with").submit(nested).result(DEADLINE_S) == 42
        with pytest.raises(errors.NotAllowed, match="has the role work"):
            client.options(queue="without").submit(nested).result(DEADLINE_S)
    for worker in (without, with_key):
        worker.terminate()
        worker.wait(DEADLINE_S)
        cluster.workers.remove(worker)


def test_a_view_key_reads_and_what_else_it_asks_is_refused_on_the_same_connection(cluster):
    key = cluster.make_key("view")
    with multihost.connect(cluster.url, key) as client:
        assert client.slots() >= 1
        for _ in range(2):
            with pytest.raises(errors.NotAllowed, match="has the role view"):
                client.submit(double, 1).result(DEADLINE_S)
        with pytest.raises(errors.NotAllowed):
            client.queue("not theirs").put(1)
        with pytest.raises(errors.NotAllowed):
            client.cancel(1)
        big = bytes(200_000)
        with pytest.raises(errors.NotAllowed):
            client.submit(double, big).result(DEADLINE_S)
        assert isinstance(client.jobs(), list)


# --- sessions and their keys ---------------------------------------------------------------------


def opens(cluster, key, uid, role=m.Role.CLIENT):
    """What the server answers to who opens a session, or comes back to it."""
    with Stranger(cluster.url, key.encode(), role) as stranger:
        stranger.upgrade()
        stranger.prove()
        stranger.send(m.Attach(uid) if role is m.Role.CLIENT else m.Enlist(uid, "stranger"))
        return stranger.receive()[0]


@pytest.mark.parametrize("role", list(m.Role))
def test_a_session_is_gone_on_with_by_the_key_that_opened_it_alone(cluster, admin, role):
    kind = "submit" if role is m.Role.CLIENT else "work"
    mine, other = (cluster.make_key(kind, f"{who} of {role}") for who in ("mine", "other"))
    uid = os.urandom(16)
    session = opens(cluster, mine, uid, role).session
    assert opens(cluster, mine, uid, role).session == session
    denied = opens(cluster, other, uid, role)
    assert denied.code is m.DenialCode.ROLE
    assert "opened with another key" in denied.message
    assert f"(other of {role})" in denied.message
    cluster.post(f"/api/keys/mine%20of%20{role}/revoke")
    assert opens(cluster, mine, uid, role).code is m.DenialCode.REVOKED
    assert opens(cluster, other, uid, role).code is m.DenialCode.ROLE
    assert opens(cluster, other, os.urandom(16), role).session > session
    assert "a session that was opened with another key" in cluster.log


def test_a_client_s_session_is_no_worker_s(cluster):
    uid = os.urandom(16)
    assert isinstance(opens(cluster, cluster.key.decode(), uid), m.Welcome)
    denied = opens(cluster, cluster.key.decode(), uid, m.Role.WORKER)
    assert denied.code is m.DenialCode.ROLE


# --- keys that end -----------------------------------------------------------------------------


class Listener:
    """A peer that stands by until its connection is cut."""

    def __init__(self, url, key):
        self.peer = Peer(self, m.Role.CLIENT, [url], key.encode())
        self.gone = asyncio.Event()

    def opening(self):
        return m.Attach(os.urandom(16))

    def connected(self, welcome):
        pass

    def received(self, messages):
        pass

    def writable(self):
        pass

    def disconnected(self, reason):
        self.gone.set()


def how_it_ends(cluster, key, act):
    """Connect, act, wait until the connection is cut; the error with which coming back ends."""

    async def main():
        listener = Listener(cluster.url, key)
        await listener.peer.connect()
        loop = asyncio.get_running_loop()
        acting = loop.run_in_executor(None, act)
        with pytest.raises(errors.AuthenticationError) as caught:
            await asyncio.wait_for(listener.peer.run(), DEADLINE_S)
        await acting
        assert listener.gone.is_set()
        return caught.value

    return asyncio.run(main())


def test_revoking_a_key_cuts_who_came_in_with_it_and_says_so_when_they_come_back(cluster):
    key = cluster.make_key("submit", "cut")
    other = cluster.make_key("submit", "not cut")
    with multihost.connect(cluster.url, other) as client:
        error = how_it_ends(cluster, key, lambda: cluster.post("/api/keys/cut/revoke"))
        assert isinstance(error, errors.KeyRevoked)
        assert "(cut) was revoked at" in str(error)
        assert client.submit(double, 3).result(DEADLINE_S) == 6


def test_futures_of_a_client_whose_key_is_revoked_say_so(cluster):
    with multihost.connect(cluster.url, cluster.make_key("submit", "in the middle")) as client:
        future = client.options(queue="nobody's").submit(double, 1)
        assert future.wait_stored(DEADLINE_S)
        cluster.post("/api/keys/in%20the%20middle/revoke")
        with pytest.raises(errors.KeyRevoked, match="in the middle"):
            future.result(DEADLINE_S)
        with pytest.raises(errors.KeyRevoked):
            client.submit(double, 1).result(DEADLINE_S)


def test_doctor_says_which_key_is_used_and_when_it_expires(cluster):
    for role, more in (("view", "workers"), ("work", "")):
        key = cluster.make_key(role, f"a doctor's {role}", expires_s=86400)
        _, output, _ = shell_with(cluster, key).run("doctor")
        assert f"(a doctor's {role}), role {role}, expires in " in output
        assert f"'multihost key new --role {role}'" in output
        assert more in output


def test_a_key_that_expires_cuts_who_came_in_with_it(cluster):
    key = cluster.make_key("submit", "brief", expires_s=1)
    error = how_it_ends(cluster, key, lambda: None)
    assert isinstance(error, errors.KeyExpired)
    assert "(brief) expired at" in str(error)
    code, _, said = shell_with(cluster, key).run("jobs")
    assert code is Exit.KEY
    assert "(brief) expired at" in said


def test_whoever_waits_for_an_answer_over_http_is_cut_too(cluster, admin):
    with multihost.connect(cluster.url, cluster.key) as client:
        future = client.options(queue="nobody's").submit(double, 1)
        jobs = wait_until(lambda: client.jobs("open"), "the job is there")
        key = cluster.make_key("view", "waits")
        waiting = shell_with(cluster, key).start("wait", str(jobs[0]["job"]))
        wait_until(lambda: _has_request(waiting.pid, cluster.port), "it waits")
        cluster.post("/api/keys/waits/revoke")
        _, said = waiting.communicate(timeout=DEADLINE_S)
        assert waiting.returncode == Exit.KEY
        assert "(waits) was revoked at" in said
        future.cancel()


def _has_request(pid, port):
    import psutil

    with contextlib.suppress(psutil.Error):
        return any(
            each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections()
        )
    return False


def test_who_revokes_the_key_in_hand_still_gets_an_answer(cluster):
    key = cluster.make_key("admin", "by itself")
    code, output, _ = shell_with(cluster, key).run("key", "revoke", "by itself")
    assert code is Exit.OK
    assert "is revoked" in output
    assert shell_with(cluster, key).run("key", "list")[0] is Exit.KEY


def test_an_unknown_key_a_wrong_secret_and_a_revoked_ones_wrong_secret_look_alike(cluster):
    keys = [cluster.make_key("submit", f"alike {n}") for n in range(2)]
    cluster.post("/api/keys/alike%201/revoke")
    wrong = [key[:13] + "A" * 43 for key in keys]
    wrong += ["mhk_ffffffff_" + "A" * 43, "another text"]
    texts = set()
    for key in wrong:
        with Stranger(cluster.url, key.encode()) as stranger:
            stranger.upgrade()
            stranger.prove()
            (denied,) = stranger.receive()
            texts.add((denied.code, denied.message))
        with pytest.raises(errors.AuthenticationError) as caught:
            multihost.connect(cluster.url, key)
        assert type(caught.value) is errors.AuthenticationError
        code, _, said = shell_with(cluster, key).run("jobs")
        assert code is Exit.KEY
        texts.add(said)
        texts.add(str(caught.value))
    assert texts == {(m.DenialCode.KEY, "wrong key"), said, str(caught.value)}


# --- the managers' port --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(directory, *keys):
    """A server in this process with a managers' port for these authkeys."""
    managers = ManagersOptions(keys=tuple(("", key.encode()) for key in keys))
    options = ServerOptions(directory, port=0, durability="process", announces=False)
    server = Server(dataclasses.replace(options, managers=managers))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Standard(BaseManager):
    """The standard library's own."""


Standard.register("tasks")


def tasks_at(address, key):
    manager = Standard(address, key.encode())
    manager.connect()
    return manager.tasks()


def in_thread(call, *arguments):
    """Call in a thread of its own: proxies of one address share a thread's connection."""
    with_one = ThreadPoolExecutor(1)
    future = asyncio.get_running_loop().run_in_executor(with_one, call, *arguments)
    with_one.shutdown(wait=False)
    return future


def test_an_authkey_that_is_a_key_of_the_server_ends_with_it(tmp_path):
    async def main():
        async with served(tmp_path) as server:
            _, key = await server.keyring.make(KeyRole.SUBMIT, "queues", None)
            _, weak = await server.keyring.make(KeyRole.WORK, "weak", None)
        async with served(tmp_path, key, weak, "plain") as server:
            address = server.door.address[:2]
            plain = await in_thread(tasks_at, address, "plain")
            tasks = await in_thread(tasks_at, address, key)
            await in_thread(tasks.put, 1)
            with pytest.raises(RemoteError, match="has the role work"):
                await in_thread(tasks_at, address, weak)
            waiting = asyncio.ensure_future(in_thread(_get_for_ever, tasks))
            await in_thread(wait_until, plain.empty, "it waits for an item")
            await server.keyring.revoke("queues")
            with pytest.raises((EOFError, ConnectionError)):
                await asyncio.wait_for(waiting, DEADLINE_S)
            with pytest.raises(RemoteError, match="was revoked at"):
                await in_thread(tasks_at, address, key)
            await in_thread(plain.put, 3)

    asyncio.run(main())


def _get_for_ever(tasks):
    while True:
        tasks.get()


# --- the audit trail ---------------------------------------------------------------------------


def test_each_refused_and_each_administrative_act_is_in_the_audit_trail(cluster, admin):
    key = admin.json("key", "new", "--role", "view", "--name", 'a "quoted" name')
    shell_with(cluster, key["key"]).run("key", "list")
    admin.run("queues", "pause", "audited", "--new")
    admin.run("key", "revoke", key["id"])
    shell_with(cluster, key["key"]).run("jobs")
    lines = [line for line in cluster.log.splitlines() if key["id"] in line or "audited" in line]
    mine = [line.partition(" audit ")[2] for line in lines]
    who = f'key={key["id"]} name="a \\"quoted\\" name"'
    assert [line.split()[0] for line in mine] == ["done", "refused", "done", "done", "refused"]
    assert f'{who} what="GET /api/keys with role view"' in mine[1]
    assert "/api/queues/audited" in mine[2]
    assert "key=own" in mine[3]
    assert f'{who} what="the key is revoked"' in mine[4]
    assert key["key"].split("_", 2)[2] not in cluster.log
    assert cluster.key.decode() not in cluster.log


def test_making_keys_at_the_same_time_makes_each_name_once(cluster):
    made = []

    def make():
        answer = cluster.post("/api/keys", role="view", name="at once")
        made.append("key" in answer)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
