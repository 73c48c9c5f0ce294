"""What the listings show, in both forms, and what the verbs of people do."""

import getpass
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_runner import Shell
from cli_tasks import die, double, fail_on_odd, until_there

import multihost
from multihost.cli.exits import Exit
from multihost.errors import TaskCrashed
from multihost.runtime.note import ServerNote
from multihost.testing import Cluster, wait_until

HERE = [str(Path(__file__).parent)]


def outcomes(results):
    """Results and errors of a map, by whatever order."""
    found = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except (ValueError, TaskCrashed) as error:
            found.append(error)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(python_path=HERE) as cluster:
        with multihost.connect(cluster.url, cluster.key) as client:
            outcomes(client.map(double, range(1200), name="doubles"))
            outcomes(client.map(fail_on_odd, range(4), name="odd"))
            outcomes(client.map(die, [1], name="dying"))
        yield cluster


@pytest.fixture
def shell(cluster):
    return Shell(**cluster.environment)


@pytest.fixture
def client(cluster):
    with multihost.connect(cluster.url, cluster.key) as client:
        yield client


def test_a_job_is_its_users(shell):
    job = json.loads(shell.run("job", "doubles", "--json")[1])
    assert job["user"] == getpass.getuser()
    assert f" by {job['user']}" in shell.run("job", "doubles")[1]


def test_jobs_shows_each_job_newest_first(shell):
    code, output, errors = shell.run("jobs")
    lines = output.splitlines()
    assert code is Exit.OK
    assert lines[0].split() == [
        *("JOB", "STATE", "TASKS", "DONE", "FAILED", "QUEUE", "CREATED", "NAME", "RUNS")
    ]
    assert lines.index(next(line for line in lines if "dying" in line)) < lines.index(
        next(line for line in lines if "doubles" in line)
    )
    assert errors == ""


def test_a_name_is_told_from_what_runs_and_done_from_failed(shell):
    _, output, _ = shell.run("jobs")
    (odd,) = [line.split() for line in output.splitlines() if "fail_on_odd" in line]
    assert odd[1:5] == ["failed", "4", "50%", "2"]
    assert odd[-2:] == ["odd", "cli_tasks.fail_on_odd"]


def test_a_listing_imports_nothing_slow(shell):
    program = "import sys\nfrom multihost.cli.main import run\nrun(['jobs'])\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    output = subprocess.check_output(command, env=shell.environment, text=True)
    assert "doubles" in output
    assert set(output.split()).isdisjoint({"asyncio", "rich", "uvicorn", "msgspec", "starlette"})


def test_jobs_in_json_are_what_the_api_says(shell, cluster):
    assert shell.json("jobs") == cluster.get("/api/jobs")


def test_jobs_can_be_chosen_by_state_and_number(shell):
    assert {row["name"] for row in shell.json("jobs", "--state", "failed")} == {"odd", "dying"}
    assert len(shell.json("jobs", "--limit", "1")) == 1
    assert "--limit 10 shows them" in shell.run("jobs", "--limit", "1")[2]


def test_an_empty_listing_says_what_to_do_next(shell):
    _, output, errors = shell.run("jobs", "--state", "open")
    assert (output, errors) == ("", "No job is open; 'multihost jobs' lists all.\n")
    assert shell.json("jobs", "--state", "open") == []


def test_a_failed_job_shows_why(shell):
    code, output, errors = shell.run("job", "odd")
    assert code is Exit.OK
    assert "2 succeeded, 2 failed" in output
    assert f"{'█' * 12}{'▒' * 12}  50%" in output
    assert "ValueError: 1 is odd" in output
    assert "'multihost retry" in errors


def test_a_crashed_task_shows_its_death_certificates(shell):
    _, output, _ = shell.run("job", "dying")
    assert "was killed by SIGKILL" in output
    assert "last output: these are my last words" in output
    row = shell.json("task", "dying/0")
    assert row["crashes"] == 3
    assert [attempt["certificates"][0]["exit_code"] for attempt in row["attempts"]] == [-9, -9, -9]


def test_a_job_in_json_has_its_failures_and_tasks(shell):
    row = shell.json("job", "odd", "--tasks")
    assert (row["tasks"], row["succeeded"], row["failed"]) == (4, 2, 2)
    assert [task["index"] for task in row["failures"]] == [1, 3]
    assert row["failures"][0]["attempts"][0]["message"] == "1 is odd"
    assert [task["state"] for task in row["task_list"]] == ["succeeded", "failed"] * 2


def test_tasks_are_listed_over_many_pages(shell):
    rows = shell.json("tasks", "doubles", "--limit", "1150", "--after", "9")
    assert [row["index"] for row in rows] == list(range(10, 1160))
    assert len(shell.json("job", "doubles", "--tasks")["task_list"]) == 1200


def test_tasks_can_be_chosen_by_state(shell):
    assert [row["index"] for row in shell.json("tasks", "odd", "--state", "failed")] == [1, 3]


def test_a_task_shows_its_traceback_and_output(shell):
    _, output, _ = shell.run("task", "odd/1")
    assert "in fail_on_odd" in output
    assert "looking at 1" in output


def test_logs_prints_what_the_task_wrote_and_nothing_else(shell):
    assert shell.run("logs", "odd/2") == (Exit.OK, "looking at 2\n", "")
    assert "last words" in shell.run("logs", "dying")[1]
    assert shell.json("logs", "odd/2")["output"] == "looking at 2\n"
    code, _, errors = shell.run("logs", "odd")
    assert (code, "odd has 4 tasks; say which" in errors) == (Exit.USAGE, True)


def test_queues_and_workers_are_listed(shell):
    (queue,) = [row for row in shell.json("queues") if row["queue"] == "default"]
    assert queue["succeeded"] >= 1202
    workers = shell.json("workers")
    assert [(row["slots"], row["connected"]) for row in workers] == [(2, True), (2, True)]
    assert shell.run("queues")[1].startswith("QUEUE")
    assert shell.run("workers")[1].count("connected") == 2


def test_a_queue_is_paused_and_resumed(shell, client):
    assert shell.run("queues", "pause", "later", "--new")[0] is Exit.OK
    future = client.options(queue="later").submit(double, 4)
    future.wait_stored()
    (row,) = [row for row in shell.json("jobs") if row["queue"] == "later"]
    assert "is paused" in shell.json("job", str(row["job"]))["waits"]
    assert "is paused; 'multihost queues resume later'" in shell.run("job", str(row["job"]))[1]
    assert shell.run("queues", "resume", "later")[0] is Exit.OK
    assert future.result(30) == 8


def test_a_queue_is_limited_and_unlimited(shell):
    shell.run("queues", "limit", "narrow", "7", "--new")
    assert next(r for r in shell.json("queues") if r["queue"] == "narrow")["limit"] == 7
    shell.run("queues", "limit", "narrow", "none")
    assert not next(r for r in shell.json("queues") if r["queue"] == "narrow")["limit"]
    assert shell.run("queues", "limit", "narrow", "x")[0] is Exit.USAGE


def test_cancel_and_wait_tell_a_cancelled_job(shell, client, tmp_path):
    results = client.map(until_there, [str(tmp_path / "never")] * 3, name="endless")
    with pytest.raises(multihost.TimeoutError):
        results.next(timeout=0.01)
    wait_until(lambda: [r for r in client.jobs() if (r["name"], r["tasks"]) == ("endless", 3)])
    assert shell.run("wait", "endless", "--timeout", "0.1")[0] is Exit.TIMEOUT
    assert shell.json("cancel", "endless/0")[0]["cancelled"] == 1
    assert shell.json("cancel", "endless")[0]["cancelled"] == 2
    assert "nothing was left to cancel" in shell.run("cancel", "endless")[1]
    code, output, _ = shell.run("wait", "endless")
    assert (code, "3 cancelled" in output) == (Exit.CANCELLED, True)


def test_wait_tells_success_from_failure(shell):
    assert shell.run("wait", "doubles")[0] is Exit.OK
    assert shell.run("wait", "odd")[0] is Exit.FAILED
    with_json = shell.run("wait", "odd", "--json")
    assert (with_json[0], json.loads(with_json[1])["failed"]) == (Exit.FAILED, 2)


def test_names_may_have_slashes_and_spaces(shell, client):
    name = "2026/11/a night's run"
    outcomes(client.map(double, range(3), name=name))
    assert shell.json("job", name)["name"] == name
    assert len(shell.json("tasks", name)) == 3
    assert shell.json("task", f"{name}/2")["state"] == "succeeded"
    assert shell.json("cancel", name)[0]["cancelled"] == 0
    assert shell.run("queues", "pause", "a/b", "--new")[0] is Exit.OK
    assert "a/b" in {row["queue"] for row in shell.json("queues")}


def test_tasks_of_which_nothing_is_kept_are_said_to_have_ended(shell, client):
    assert outcomes(client.map(double, range(3))) == [0, 2, 4]
    job = str(shell.json("jobs")[0]["job"])
    wait_until(lambda: shell.json("job", job)["ended_at"] and not shell.json("tasks", job))
    for arguments in (["tasks", job], ["task", f"{job}/0"], ["logs", f"{job}/2"]):
        assert "nothing is kept of" in shell.run(*arguments)[2].lower()
    assert "there is no task" in shell.run("task", f"{job}/3")[2]


def test_retry_runs_failed_tasks_again(shell):
    (row,) = shell.json("retry", "odd/1")
    assert row["retried"] == 1
    assert shell.run("wait", "odd")[0] is Exit.FAILED
    assert len(shell.json("task", "odd/1")["attempts"]) == 2
    assert shell.json("retry", "doubles")[0]["retried"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["job", "nothing"], "there is no job 'nothing'; the newest are"),
        (["job", "9999"], "'multihost jobs' lists them"),
        (["tasks", "nothing"], "there is no job 'nothing'"),
        (["task", "odd/77"], "there is no task odd/77; it has"),
        (["task", "odd"], "such as 42/7"),
        (["cancel", "nothing"], "there is no job 'nothing'"),
        (["retry", "nothing/3"], "there is no job 'nothing'"),
        (["wait", "nothing"], "there is no job 'nothing'"),
        (["queues", "pause", "nothing"], "there is no queue 'nothing'; there are"),
        (["jobs", "--state", "purple"], "'purple' is not one of"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["wrkers"], "there is no command 'wrkers'; did you mean 'workers'?"),
    ],
)
def test_a_wrong_name_is_answered_with_what_exists(shell, arguments, says):
    code, output, errors = shell.run(*arguments)
    assert (code, output) == (Exit.USAGE, "")
    assert says in errors


def test_a_wrong_key_has_its_own_exit_code(cluster):
    code, _, errors = Shell(MULTIHOST_URL=cluster.url, MULTIHOST_KEY="wrong").run("jobs")
    assert code is Exit.KEY
    assert "has another key" in errors


def test_the_key_file_is_taken_instead_of_the_variable(cluster):
    shell = Shell(MULTIHOST_KEY="wrong")
    options = ("--server", cluster.url, "--key-file", str(cluster.directory / "key"))
    assert len(shell.json("workers", *options)) == 2


def test_a_server_of_this_user_that_died_is_named(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    note = ServerNote("http://127.0.0.1:7077", dead.pid)
    (tmp_path / "server.json").write_text(json.dumps(note._asdict()))
    code, _, errors = Shell(MULTIHOST_STATE=str(tmp_path)).run("jobs")
    assert code is Exit.UNREACHABLE
    assert f"(http://127.0.0.1:7077, pid {dead.pid}) has died; 'multihost server' starts" in errors


def test_no_server_has_its_own_exit_code():
    code, _, errors = Shell(MULTIHOST_URL="http://127.0.0.1:9", MULTIHOST_KEY="x").run("jobs")
    assert code is Exit.UNREACHABLE
    assert "no multihost server answers at http://127.0.0.1:9" in errors
    code, _, errors = Shell().run("workers")
    assert code is Exit.UNREACHABLE
    assert "start one with 'multihost server'" in errors


def test_the_next_address_is_tried_when_the_first_is_silent(cluster):
    shell = Shell(
        MULTIHOST_URL=f"http://127.0.0.1:9,{cluster.url}", MULTIHOST_KEY=cluster.key.decode()
    )
    assert len(shell.json("workers")) == 2


def test_a_reader_that_leaves_early_causes_no_noise(shell):
    with shell.start("job", "doubles", "--tasks") as process:
        process.stdout.close()
        assert process.wait(30) == Exit.FAILED
        assert process.stderr.read() == ""


def test_a_queue_of_items_is_dropped_only_by_force_while_it_has_some(shell, client):
    client.queue("going").put_many([1, 2])
    code, _, errors = shell.run("queues", "drop", "going")
    assert code is Exit.USAGE
    assert "2 items wait in queue going, 0 are held" in errors
    assert "--force" in errors
    code, output, _ = shell.run("queues", "drop", "going", "--force")
    assert (code, output) == (Exit.OK, "queue going is deleted, with 2 items\n")
    assert "going" not in {row["queue"] for row in shell.json("queues")}
    client.queue("going")
    assert shell.run("queues", "drop", "going")[0] is Exit.OK
    code, _, errors = shell.run("queues", "drop", "going")
    assert code is Exit.USAGE
    assert "there is no queue of items 'going'" in errors


def test_who_waits_at_a_queue_that_is_dropped_is_told(shell, client):
    ended = queue.Queue()

    def wait():
        try:
            client.queue("awaited").get(timeout=30)
        except ValueError as error:
            ended.put(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: [r for r in shell.json("queues") if r["queue"] == "awaited" and r["takers"]])
    assert shell.run("queues", "drop", "awaited")[0] is Exit.OK
    assert "closed" in str(ended.get(timeout=20))
    waiting.join()


def test_locks_are_listed_with_who_holds_them_and_dropped_if_nobody_does(shell, client):
    lock = multihost.Lock(name="a/printer", client=client)
    multihost.Event(name="ready", client=client).set()
    multihost.Semaphore(3, name="seats", client=client)
    multihost.Lock(client=client)
    lock.acquire()
    rows = {row["lock"]: row for row in shell.json("locks")}
    assert set(rows) == {"a/printer", "ready", "seats"}
    holder = f"{socket.gethostname()}:{os.getpid()}"
    assert rows["a/printer"] == {
        "lock": "a/printer",
        "kind": "lock",
        "state": "held",
        "waiting": 0,
        "holders": [holder],
    }
    assert (rows["ready"]["state"], rows["seats"]["state"]) == ("set", "3 left")
    assert ["a/printer", "lock", "held", "-", holder] in [
        line.split() for line in shell.run("locks")[1].splitlines()
    ]
    code, _, errors = shell.run("locks", "drop", "a/printer")
    assert code is Exit.USAGE
    assert "1 hold a/printer and 0 wait for it" in errors
    assert shell.run("locks", "drop", "a/printer", "--force")[0] is Exit.OK
    for name in ("ready", "seats"):
        assert shell.run("locks", "drop", name)[0] is Exit.OK
    assert shell.json("locks") == []
    assert "there is no lock" in shell.run("locks", "drop", "ready")[2]
    assert "multihost.Lock(name=" in shell.run("locks")[2]
