"""With a seal: whoever rewrites the server's store runs nothing on workers or clients."""

import contextlib
import math
import operator
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import msgspec
import pytest

from multihost import Client, Executor, Pipe, Pool, Process, Queue, errors
from multihost.core.job import JobSpec
from multihost.core.outcome import Ending, Failure, encode_failure
from multihost.runtime.join import parse_join
from multihost.runtime.secret import read_seal, seal_text
from multihost.store.places import STORE_FILE
from multihost.testing import Cluster

pytestmark = pytest.mark.timeout(120)
HERE = [str(Path(__file__).parent)]
SEAL = seal_text(b"s" * 32)


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@contextlib.contextmanager
def seal(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIHOST_SEAL", text)
        yield


@pytest.fixture
def sealed():
    with seal(SEAL):
        yield


def test_a_result_that_the_spool_does_not_take_says_so_under_a_seal_too(sealed, tmp_path):
    with Cluster(workers=0) as cluster, connect(cluster) as client:
        cluster.start_worker("--spool", str(tmp_path))
        assert client.submit(bytes, 5 << 20).result(60) == bytes(5 << 20)
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
        with pytest.raises(OSError, match="--spool"):
            client.submit(bytes, 5 << 20).result(60)


def connect(cluster):
    return Client(cluster.url, cluster.key)


def rewrite(cluster, change):
    """Change the store as somebody could who has broken into the server."""
    # In good order: what items it has is in the database then, not in the journal beside it.
    cluster.server.terminate()
    cluster.server.wait(20)
    store = apsw.Connection(str(cluster.directory / STORE_FILE))
    with store:
        change(store)
    store.close()
    cluster.start_server()


def stored(*futures):
    for future in futures:
        assert future.wait_stored(20)
    return futures


def job_specs(store):
    decode = msgspec.msgpack.Decoder(JobSpec).decode
    return {number: decode(spec) for number, spec in store.execute("SELECT number, spec FROM jobs")}


def write_spec(store, number, spec):
    store.execute(
        "UPDATE jobs SET spec = ? WHERE number = ?", (msgspec.msgpack.encode(spec), number)
    )


def write_args(store, job, index, args):
    store.execute("UPDATE tasks SET args = ? WHERE id = ?", (args, job << 32 | index))
    assert store.changes() == 1


def args_of(store, job, index):
    return store.execute("SELECT args FROM tasks WHERE id = ?", (job << 32 | index,)).fetchone()[0]


# what a broken-into server can't do ---------------------------------------------------------


def break_in(store, canary, control):
    """Put other calls, functions and items in the place of those that were submitted."""
    evil = pickle.dumps(((Canary(canary),), {}), 5)
    specs = job_specs(store)
    jobs = {spec.label: number for number, spec in specs.items()}
    first = jobs["math.sqrt"]
    write_args(store, first, 0, evil)
    own = args_of(store, first, 1)
    write_args(store, first, 1, args_of(store, first, 2))
    write_args(store, first, 2, own)
    head = own[: len(own) - len(pickle.dumps(((4,), {}), 5))]
    write_args(store, first, 3, head + evil)
    number, spec = jobs["_operator.neg"], specs[jobs["_operator.neg"]]
    other = specs[first].function
    write_spec(store, number, msgspec.structs.replace(spec, function=other))
    number, spec = jobs["_operator.pos"], specs[jobs["_operator.pos"]]
    write_spec(store, number, msgspec.structs.replace(spec, mark=None))
    write_args(store, number, 0, evil)
    sings = pickle.dumps(((Canary(control),), {}), 5)
    write_args(store, jobs["_operator.not_"], 0, sings)
    (one, payload), (two, _) = store.execute("SELECT id, payload FROM items ORDER BY id")
    item = pickle.dumps(Canary(canary), 5)
    store.execute("UPDATE items SET payload = ? WHERE id = ?", (item, one))
    store.execute("UPDATE items SET payload = ? WHERE id = ?", (payload, two))


def test_rewritten_tasks_and_items_are_refused_and_nothing_of_them_is_unpickled(sealed, tmp_path):
    canary, control = tmp_path / "canary", tmp_path / "control"
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(workers=0))
        client = stack.enter_context(connect(cluster))
        with seal("off"):
            bare = stack.enter_context(connect(cluster))
        roots = [client.submit(math.sqrt, n) for n in (1, 4, 9, 16, 25)]
        negated = client.submit(operator.neg, 7)
        unsigned = client.submit(operator.pos, 7)
        # Of a client without a seal, to see that what is rewritten is what is read.
        singing = bare.options(queue="bare").submit(operator.not_, 7)
        stored(*roots, negated, unsigned, singing)
        queue, other = client.queue("images"), client.queue("names")
        queue.put("one")
        other.put("two")
        client.queue("last")  # what makes a row brings what the journal has into the tables

        rewrite(cluster, lambda store: break_in(store, canary, control))
        cluster.start_worker("--queue", "default")
        with seal("off"):
            cluster.start_worker("--queue", "bare")
        for future in roots[:4]:
            with pytest.raises(errors.SealError, match="its arguments are not what was signed"):
                future.result(30)
        with pytest.raises(errors.SealError, match="function or options are not what was signed"):
            negated.result(30)
        with pytest.raises(errors.SealError, match="is not signed, and worker"):
            unsigned.result(30)
        assert roots[4].result(30) == 5
        for each in (queue, other):
            with pytest.raises(errors.SealError, match="not signed with this program's seal"):
                each.get(timeout=30)
            with pytest.raises(errors.SealError):  # it is there still
                each.get_many(5, timeout=30)
        singing.result(30)
    assert control.exists()
    assert not canary.exists()


def test_rewritten_results_are_refused_and_not_unpickled_by_the_client(sealed, tmp_path):
    canary = tmp_path / "canary"
    evil = pickle.dumps(Canary(canary), 5)
    inputs = [1, 4, 9, -1, -1, 16]
    with Cluster(workers=1) as cluster:
        with connect(cluster) as client:
            iterator = client.map(math.sqrt, inputs, name="roots")
            assert [take(iterator) for _ in inputs] == [1, 2, 3, ValueError, ValueError, 4]
        failure = Failure(Ending.RAISED, "ValueError", "no", exception=evil)

        def change(store):
            ((job,),) = store.execute("SELECT number FROM jobs WHERE name = 'roots'")
            kept = dict(store.execute("SELECT id & 0xffffffff, payload FROM results"))
            for index, payload in {
                0: evil,
                1: kept[2],
                2: kept[0],
                3: encode_failure(failure),
            }.items():
                store.execute(
                    "UPDATE results SET payload = ? WHERE id = ?", (payload, job << 32 | index)
                )

        rewrite(cluster, change)
        with connect(cluster) as client:
            iterator = client.map(math.sqrt, inputs, name="roots")
            sealed_off = [errors.SealError] * 4
            assert [take(iterator) for _ in inputs] == [*sealed_off, ValueError, 4]
    assert not canary.exists()


def take(iterator):
    try:
        return iterator.next(30)
    except Exception as error:
        return type(error)


# what goes on as ever -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A worker with the seal, one without, one with another, each with a queue of its own."""
    with Cluster(workers=0, slots=1, python_path=HERE) as cluster:
        for text, queue in ((SEAL, "sealed"), ("off", "bare"), (seal_text(b"o" * 32), "other")):
            with seal(text):
                cluster.start_worker("--queue", queue, "--name", f"w-{queue}")
        cluster.wait_for_workers(3)
        yield cluster


def root(x):
    return math.sqrt(x)


def origin():
    return __file__


def nested(x):
    with Pool(1, queue="sealed-below") as pool:
        return pool.apply(root, (x,))


def shouted(queue):
    queue.put(os.environ.get("MULTIHOST_SEAL"))


def test_every_face_works_with_a_seal(sealed, cluster):
    where = {"url": cluster.url, "authkey": cluster.key, "queue": "sealed"}
    large = os.urandom(300_000)
    with Pool(**where) as pool:
        assert pool.map(root, [1, 4, 9]) == [1, 2, 3]
        assert pool.apply(bytes.upper, (large,)) == large.upper()
        with pytest.raises(ValueError, match="math domain"):
            pool.apply(root, (-1,))
    with Pool(1, print, ("begun",), **where) as pool:
        assert pool.apply(root, (4,)) == 2
    with Pool(**where, ship=Path(__file__)) as pool:
        assert pool.apply(origin) != __file__
    with Executor(**where) as executor:
        assert list(executor.map(root, [1, 4], chunksize=2)) == [1, 2]
    with connect(cluster) as client:
        view = client.options(queue="sealed")
        assert view.command(["sh", "-c", "exit 3"]).result(30) == 3
        assert view.options(unique_key="once").submit(root, 4).result(30) == 2
        assert view.options(unique_key="once").submit(root, 4).result(30) == 2
        for _ in range(2):
            assert list(view.map(root, [1, 4], name="twice")) == [1, 2]
        queue = Queue(client=client)
        queue.put_many([1, large])
        assert queue.get_many(2) == [1, large]
        here, there = Pipe(client=client)
        here.send({"a": 1})
        here.send_bytes(b"raw")
        assert (there.recv(), there.recv_bytes()) == ({"a": 1}, b"raw")


def test_processes_and_what_tasks_submit_are_signed_too(sealed, cluster, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    worker = cluster.start_worker("--queue", "sealed-below", "--name", "w-below")
    cluster.wait_for_workers(4)
    with Pool(1, queue="sealed") as pool:
        assert pool.apply(nested, (9,)) == 3
    queue = Queue()
    process = Process(target=shouted, args=(queue,), queue="sealed")
    process.start()
    process.join()
    assert process.exitcode == 0
    assert queue.get(timeout=30) == SEAL
    worker.terminate()
    worker.wait()


def run_key_join(cluster, *options):
    command = [sys.executable, "-m", "multihost", "key", "join", *options]
    command += ["--state", str(cluster.directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def key_join(cluster, *options):
    return run_key_join(cluster, *options).stdout.strip()


def test_who_makes_a_seal_is_told_to_start_again_what_runs_without_it(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.delenv("MULTIHOST_SEAL")
    monkeypatch.setenv("MULTIHOST_CONFIG", str(tmp_path / "config.toml"))
    first, second = run_key_join(cluster), run_key_join(cluster)
    assert f"made the seal {tmp_path / 'seal'}" in first.stderr
    assert "Start those again that run here by now" in first.stderr
    assert "made the seal" not in second.stderr
    assert first.stdout == second.stdout


def test_a_join_string_brings_the_seal_along(cluster, tmp_path, monkeypatch):
    monkeypatch.delenv("MULTIHOST_SEAL")
    monkeypatch.setenv("MULTIHOST_CONFIG", str(tmp_path / "there" / "config.toml"))
    made = key_join(cluster)
    kept = tmp_path / "there" / "seal"
    assert parse_join(made).seal == read_seal(kept)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert parse_join(key_join(cluster, "--role", "work")).seal == parse_join(made).seal
    assert parse_join(key_join(cluster, "--role", "view")).seal is None
    monkeypatch.setenv("MULTIHOST_CONFIG", str(tmp_path / "elsewhere" / "config.toml"))
    monkeypatch.setenv("MULTIHOST_JOIN", made)
    file = tmp_path / "join"
    file.write_text(made)
    file.chmod(0o600)
    worker = cluster.start_worker(
        "--queue", "joined", "--name", "w-joined", "--join-file", str(file)
    )
    cluster.wait_for_workers(4)
    with Pool(queue="joined") as pool:
        assert pool.apply(math.sqrt, (4,)) == 2
    with seal("off"), Pool(queue="joined") as pool, pytest.raises(errors.SealError):
        pool.apply(math.sqrt, (4,))
    worker.terminate()
    worker.wait()


MIXTURES = {
    "a client without": ("off", "sealed", r"is not signed, and worker w-sealed runs only"),
    "a worker without": (SEAL, "bare", r"is signed with a seal, and worker w-bare has none"),
    "two seals": (SEAL, "other", r"with the seal \w{8}, and worker w-other has \w{8}"),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_mixture_says_which_side_lacks_the_seal_and_how_to_give_it(cluster, mixture):
    text, queue, said = MIXTURES[mixture]
    with seal(text), connect(cluster) as client:
        future = client.options(queue=queue).submit(math.sqrt, 4)
        with pytest.raises(errors.SealError, match=rf"{said}.*MULTIHOST_SEAL") as caught:
            future.result(30)
    assert SEAL not in str(caught.value)


def test_an_item_of_somebody_without_the_seal_is_refused_and_of_somebody_with_it_can_be_read(
    cluster,
):
    with seal("off"), connect(cluster) as bare:
        bare.queue("from-bare").put(1)
    with seal(SEAL), connect(cluster) as client:
        client.queue("from-sealed").put(2)
        with pytest.raises(errors.SealError, match="put it has no seal or another one"):
            client.queue("from-bare").get(timeout=30)
    with seal("off"), connect(cluster) as bare:
        assert bare.queue("from-bare").get(timeout=30) == 1
        assert bare.queue("from-sealed").get(timeout=30) == 2


def test_what_is_too_large_for_a_pipe_is_signed_and_checked_in_its_file(cluster, sealed):
    data = os.urandom(6 << 20)
    with connect(cluster) as client:
        there = client.options(queue="sealed")
        assert there.submit(operator.add, data, b"!").result(30) == data + b"!"
        assert there.submit(lambda: len(data)).result(30) == len(data)
