"""The native clients on a real server with real workers."""

import asyncio
import concurrent.futures
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import multihost
from multihost import AsyncClient, Client, errors
from multihost.runtime.quota import usable_cores
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]  # the workers import this module from there

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=2, slots=2, python_path=HERE) as cluster:
        yield cluster


@pytest.fixture
def client(cluster) -> Iterator[Client]:
    with Client(cluster.url, cluster.key) as client:
        yield client


def triple(x):
    return 3 * x


def note(path, x):
    with Path(path).open("a") as file:
        file.write(f"{x}\n")
    return x


def fail_until(path, times):
    with Path(path).open("a+") as file:
        file.write("x")
        file.seek(0)
        if len(file.read()) <= times:
            raise LookupError("not yet")
    return "now"


def test_submit_map_and_futures(client):
    futures = [client.submit(triple, i) for i in range(100)]
    assert {f.result() for f in concurrent.futures.as_completed(futures, 30)} == set(
        range(0, 300, 3)
    )
    assert list(client.map(triple, range(2000))) == [3 * i for i in range(2000)]
    got = client.map(pow, range(300), range(300), ordered=False, chunksize=10)
    assert sorted(got) == sorted(i**i for i in range(300))


def test_a_command_gives_its_exit_code(client):
    assert client.command([sys.executable, "-c", "raise SystemExit(7)"]).result(30) == 7
    assert client.command(["cat"], stdin=b"words").result(30) == 0
    missing = client.command(["/no/such/program"])
    with pytest.raises(errors.TaskError, match="/no/such/program"):
        missing.result(30)


def test_a_timeout_ends_the_task(client):
    future = client.options(timeout_s=0.2).submit(time.sleep, 3600)
    with pytest.raises(errors.TaskTimeout):
        future.result(30)


def test_a_task_is_tried_as_often_as_asked(client, tmp_path):
    view = client.options(max_attempts=3)
    assert view.submit(fail_until, str(tmp_path / "tries"), 2).result(60) == "now"


def test_cancel_ends_a_running_task(client, cluster):
    future = client.submit(time.sleep, 3600)
    wait_until(lambda: any(job["running"] for job in cluster.get("/api/jobs?state=open")))
    assert future.cancel()
    wait_until(lambda: not any(job["running"] for job in cluster.get("/api/jobs?state=open")))


def rows_of(client, name, tasks):
    """The open job of that name, once it has so many tasks."""
    rows = client.jobs("open")
    return [row for row in rows if (row["name"], row["tasks"]) == (name, tasks)]


def test_jobs_are_listed_and_cancelled_by_name(client):
    results = client.map(time.sleep, [3600] * 4, name="long one")
    with pytest.raises(errors.TimeoutError):
        results.next(0)
    (job,) = wait_until(lambda: rows_of(client, "long one", 4), "the map is there")
    client.cancel(job["job"])
    with pytest.raises(errors.TaskCancelled):
        results.next(30)
    with pytest.raises(errors.BadRequest, match="no job"):
        client.cancel("nothing of that name")


def test_a_unique_key_never_makes_a_second(cluster, tmp_path):
    log = str(tmp_path / "log")
    for _ in range(2):
        with Client(cluster.url, cluster.key) as client:
            once = client.options(unique_key="invoice 7")
            assert [once.submit(note, log, 7).result(30) for _ in range(2)] == [7, 7]
            with pytest.raises(errors.KeyConflict):
                once.submit(note, log, 8).result(30)
            with pytest.raises(errors.KeyConflict):
                once.submit(triple, 7).result(30)
    assert Path(log).read_text() == "7\n"


def say(text):
    print(text)


def test_what_tasks_of_a_client_print_appears_here_unless_it_is_turned_off(cluster, capfd):
    with Client(cluster.url, cluster.key) as client:
        client.submit(say, "by a call").result(30)
        list(client.map(say, ["by a map"]))
        client.command(["echo", "by a command"]).result(30)
        client.options(output=False).submit(say, "by nobody").result(30)
    with Client(cluster.url, cluster.key, output=False) as client:
        client.submit(say, "by nobody").result(30)
    assert sorted(capfd.readouterr().out.splitlines()) == ["by a call", "by a command", "by a map"]


def test_what_tasks_of_an_asyncio_client_print_appears_here_unless_turned_off(cluster, capfd):
    async def main():
        async with await AsyncClient.connect(cluster.url, cluster.key) as client:
            await client.submit(say, "by a call")
            await client.options(output=False).submit(say, "by nobody")
        async with await AsyncClient.connect(cluster.url, cluster.key, output=False) as client:
            await client.submit(say, "by nobody")

    asyncio.run(asyncio.wait_for(main(), 60))
    assert capfd.readouterr().out == "by a call\n"


def test_a_label_is_shown_in_the_place_of_the_functions_name(client):
    client.options(label="the answer").submit(triple, 14).result(30)
    assert client.jobs()[0]["label"] == "the answer"


def test_a_lasting_map_that_was_cancelled_says_how_to_run_it_again(cluster, client):
    first = client.map(time.sleep, [60], name="long nap")
    with pytest.raises(errors.TimeoutError):
        first.next(0)
    wait_until(lambda: rows_of(client, "long nap", 1), "the map is there")
    client.cancel("long nap")
    for results in (first, client.map(time.sleep, [60], name="long nap")):
        with pytest.raises(errors.TaskCancelled, match="'multihost retry' with its job") as caught:
            results.next(30)
        (note,) = caught.value.__notes__
        assert "multihost retry 'long nap'" in note


def test_the_count_of_cpus_is_that_of_the_workers_slots(cluster, client, monkeypatch):
    assert client.slots() == 4
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    assert multihost.cpu_count() == 4
    monkeypatch.setenv("MULTIHOST_URL", "http://127.0.0.1:1")
    assert multihost.cpu_count() == usable_cores()


def test_a_named_map_outlives_its_client(cluster, tmp_path):
    log = str(tmp_path / "log")
    with Client(cluster.url, cluster.key) as first:
        results = first.map(note, [log] * 50, range(50), name="run-7")
        assert next(results) == 0
    with Client(cluster.url, cluster.key) as second:
        again = second.map(note, [log] * 50, range(50), name="run-7")
        assert list(again) == list(range(50))
        assert list(second.map(note, [log] * 50, range(50), name="run-7")) == list(range(50))
        with pytest.raises(errors.InputChanged, match="input 3 differs"):
            list(second.map(note, [log] * 50, [0, 1, 2, 33, *range(4, 50)], name="run-7"))
        for other in (range(40), range(60)):
            with pytest.raises(errors.InputChanged, match="50"):
                list(second.map(note, [log] * 60, other, name="run-7"))
        with pytest.raises(errors.InputChanged, match="function differs"):
            list(second.map(triple, range(50), name="run-7"))
    assert sorted(map(int, Path(log).read_text().split())) == list(range(50))


def test_unnamed_work_ends_with_its_client(cluster):
    with Client(cluster.url, cluster.key) as client:
        future = client.submit(time.sleep, 3600)
        assert future.wait_stored(30)
        wait_until(lambda: any(job["running"] for job in cluster.get("/api/jobs?state=open")))
    wait_until(lambda: not cluster.get("/api/jobs?state=open"))


def test_a_map_over_a_hundred_thousand_inputs_keeps_its_window(client):
    total = 0
    pulled = [0]

    def inputs():
        for number in range(100_000):
            pulled[0] = number
            yield number

    for taken, value in enumerate(client.map(triple, inputs(), ordered=False, window=5000)):
        total += value
        assert pulled[0] - taken <= 5000
    assert total == 3 * sum(range(100_000))


def test_the_asyncio_client_has_the_same_verbs(cluster):
    async def main():
        async with await AsyncClient.connect(cluster.url, cluster.key) as client:
            assert await client.submit(triple, 14) == 42
            got = [value async for value in client.map(triple, range(1000))]
            assert got == [3 * i for i in range(1000)]
            assert await client.command(["true"]) == 0
            assert isinstance(await client.jobs(), list)
            with pytest.raises(ZeroDivisionError):
                await client.submit(divmod, 1, 0)

    asyncio.run(asyncio.wait_for(main(), 60))
