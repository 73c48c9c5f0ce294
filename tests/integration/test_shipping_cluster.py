"""Local code that travels to workers that have none of it."""

import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multihost import AsyncClient, Client, Executor, Pool, errors
from multihost.testing import Cluster

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster():
    # One slot: whoever needs other code than the last one needs another child.
    with Cluster(workers=1, slots=1) as cluster:
        yield cluster


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module that only this program can import, and import it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        made.append(name)
        return importlib.import_module(name)

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_without_shipping_the_error_names_worker_module_and_both_remedies(cluster, write):
    module = write("parcel_lacking", "def f(x):\n    return x\n")
    with (
        Pool(url=cluster.url, authkey=cluster.key) as pool,
        pytest.raises(
            errors.MissingModule, match=r"ship=\['parcel_lacking'\].*pip install.*--path DIR"
        ) as caught,
    ):
        pool.apply(module.f, (1,))
    (row,) = cluster.get("/api/workers")
    assert (caught.value.worker, caught.value.module) == (row["worker"], "parcel_lacking")


def test_every_face_ships(cluster, write):
    module = write("parcel_faces", "def f(x):\n    return x + 1\n")
    where = {"url": cluster.url, "authkey": cluster.key}
    with Pool(**where, ship=module) as pool:
        assert pool.map(module.f, range(3)) == [1, 2, 3]
    with Executor(**where, ship="parcel_faces") as executor:
        assert list(executor.map(module.f, range(3))) == [1, 2, 3]
    with Client(cluster.url, cluster.key, ship=[Path(module.__file__)]) as client:
        assert client.submit(module.f, 1).result() == 2
        assert client.options(priority=1).submit(module.f, 1).result() == 2
        assert list(client.map(module.f, range(3))) == [1, 2, 3]
        assert client.command(["true"]).result() == 0

    async def run():
        async with await AsyncClient.connect(cluster.url, cluster.key, ship=module) as client:
            return await client.submit(module.f, 1)

    assert asyncio.run(run()) == 2


def test_two_jobs_with_two_versions_of_a_module_each_get_their_own(cluster, write):
    where = {"url": cluster.url, "authkey": cluster.key}
    old = write("parcel_versions", "def f(_):\n    return 'old'\n")
    with Pool(1, **where, ship=old) as first:
        assert first.apply(old.f, (0,)) == "old"
        new = write("parcel_versions", "def f(_):\n    return 'new version'\n")
        with Pool(1, **where, ship=new) as second:
            for _ in range(2):
                assert second.apply(new.f, (0,)) == "new version"
                assert first.apply(new.f, (0,)) == "old"


def test_what_is_shipped_comes_before_what_is_installed(cluster, write):
    # The worker has one of that name: the real one.
    module = write(
        "msgspec_like", "def f(_):\n    import cloudpickle\n    return cloudpickle.MINE\n"
    )
    mine = Path(module.__file__).parent / "cloudpickle.py"
    mine.write_text("MINE = 'shipped'\n")
    with Pool(url=cluster.url, authkey=cluster.key, ship=[module, mine]) as pool:
        assert pool.apply(module.f, (0,)) == "shipped"


def test_an_initializer_may_come_from_shipped_code(cluster, write):
    module = write(
        "parcel_initializer",
        "SET = []\ndef begin(x):\n    SET.append(x)\ndef f(_):\n    return SET[0]\n",
    )
    with Pool(1, module.begin, (7,), url=cluster.url, authkey=cluster.key, ship=module) as pool:
        assert pool.apply(module.f, (0,)) == 7


def test_a_worker_imports_from_its_path_and_runs_in_its_directory(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "code" / "parcel_there.py").write_text(
        "import os\ndef where(_):\n    return os.getcwd()\n"
    )
    script = (
        "import sys, importlib; from multihost import Pool\n"
        f"sys.path.insert(0, {str(tmp_path / 'code')!r}); import parcel_there\n"
        "print(Pool().apply(parcel_there.where, (0,)))\n"
    )
    with Cluster(workers=0) as cluster:
        cluster.start_worker("--path", str(tmp_path / "code"), "--chdir", str(tmp_path / "data"))
        cluster.wait_for_workers(1)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            env={**os.environ, **cluster.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.strip() == str(tmp_path / "data"), done.stderr
