"""CPython's own tests of Pool and of executors, run against ours on workers elsewhere.

`harness.py` binds the test sources of the running interpreter to the
candidate; nothing of CPython is kept here. Every test of tier A that the
standard library passes has to pass; of tier B, all but ``KNOWN``, which
`docs/reference/cpython-tests.md` explains.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HARNESS = HERE / "harness.py"
MANAGER_CLASSES = "_TestRemoteManager|_TestManagerRestart|_TestMyManager|TestSyncManagerTypes"
POOL_CLASSES = "_TestPool$|_TestPoolWorkerErrors|_TestPoolWorkerLifetime"
SHARED_CLASSES = (
    "_TestQueue$|_TestLock$|_TestSemaphore$|_TestCondition$|_TestEvent$|_TestBarrier$"
    "|_TestValue$|_TestArray$|_TestConnection$|_TestPoll$"
)
PROCESS_CLASSES = "_TestProcess|_TestSubclassingProcess|TestStdinBadfiledescriptor"
OTHER_CLASSES = "_TestContainers|TestInitializers|TestSimpleQueue|MiscTestCase"
KNOWN = frozenset(
    {
        "WithProcessesTestArray.test_getobj_getlock_obj",
        "WithProcessesTestArray.test_rawarray",
        "WithProcessesTestValue.test_getobj_getlock",
        "WithProcessesTestValue.test_rawvalue",
    }
)
"""Tests of tier B of multiprocessing that don't pass."""
BASELINE = HERE / "base311_spawn.json"
DOC = HERE.parents[1] / "docs/reference/cpython-tests.md"
SUITE_PACKAGE = "libpython3.11-testsuite"

pytestmark = [pytest.mark.cpython, pytest.mark.timeout(600)]


def run_harness(result: Path, *options):
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [
            *(sys.executable, HARNESS, "--module", "multihost", "--deny-local"),
            *("--setup", "multihost.testing:start", "--json", result, *options),
            # Only what hangs takes that long, however busy the machine is.
            *("--tiers", "A,B", "--timeout", "240"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.exists(), done.stdout + done.stderr
    return json.loads(result.read_text()), done.stdout


def failures(run, baseline: Path, tier):
    """Tests of a tier that the standard library passes and we don't."""
    base = json.loads(baseline.read_text())["classes"]
    return {
        f"{name}.{test}": outcome["why"].strip().splitlines()[-1:]
        for name, group in run["classes"].items()
        for test, outcome in group["tests"].items()
        if outcome["tier"] == tier
        and base.get(name, {}).get("tests", {}).get(test, {}).get("status") == "pass"
        and outcome["status"] != "pass"
    }


def executor_tests(cache: Path) -> Path | None:
    """CPython's file of executor tests, from the interpreter or from Debian's package of it."""
    if importlib.util.find_spec("test.test_concurrent_futures"):
        return None
    found = list(cache.rglob("test_concurrent_futures.py"))
    if not found and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "download", "-qq", SUITE_PACKAGE], cwd=cache, check=True, timeout=120
        )
        package = next(cache.glob("*.deb"))
        subprocess.run(["dpkg", "-x", package, cache], check=True)
        found = list(cache.rglob("test_concurrent_futures.py"))
    return found[0] if found else None


@pytest.fixture(scope="session")
def python311():
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the baseline is of Python 3.11")
    if not importlib.util.find_spec("test._test_multiprocessing"):
        pytest.skip("this interpreter was installed without CPython's tests")


def check(tmp_path, classes, at_least):
    """Hold classes to tier A, and to what is known of tier B."""
    run, shown = run_harness(tmp_path / "run.json", "--start-method", "spawn", "--classes", classes)
    assert failures(run, BASELINE, "A") == {}, shown
    failing = failures(run, BASELINE, "B").keys()
    tests = {f"{name}.{test}" for name, group in run["classes"].items() for test in group["tests"]}
    assert failing == KNOWN & tests, shown
    assert run["tiers"]["A"][1] >= at_least, "too few tests were run"


def test_pool_passes_the_tests_of_cpython(python311, tmp_path):
    check(tmp_path, POOL_CLASSES, at_least=25)


def test_process_passes_the_tests_of_cpython(python311, tmp_path):
    check(tmp_path, PROCESS_CLASSES, at_least=15)


def test_managers_pass_the_tests_of_cpython(python311, tmp_path):
    check(tmp_path, MANAGER_CLASSES, at_least=20)


def test_queues_and_synchronizers_pass_the_tests_of_cpython(python311, tmp_path):
    check(tmp_path, SHARED_CLASSES, at_least=55)


def test_what_is_left_passes_the_tests_of_cpython(python311, tmp_path):
    check(tmp_path, OTHER_CLASSES, at_least=10)


def test_what_does_not_pass_is_explained_and_less_than_a_tenth_of_tier_b():
    text = DOC.read_text()
    assert [name for name in KNOWN if f"`{name.rpartition('.')[2]}`" not in text] == []
    tiers = [
        line.split("#")[0].split(None, 1)
        for line in (HERE / "tiers.txt").read_text().splitlines()
        if line.split("#")[0].strip()
    ]
    passed = [
        f"{name}.{test}"
        for name, group in json.loads(BASELINE.read_text())["classes"].items()
        for test, outcome in group["tests"].items()
        if outcome["status"] == "pass"
    ]
    first = [next((t for t, p in tiers if re.fullmatch(p.strip(), name)), "A") for name in passed]
    assert f"| {first.count('B') - len(KNOWN)} of {first.count('B')} |" in text
    assert len(KNOWN) < first.count("B") / 10


def test_executor_passes_every_black_box_test_of_cpython(python311, tmp_path):
    tests = executor_tests(tmp_path)
    options = ["--executor", "multihost:Executor", "--drop-context"]
    if tests is not None:
        options += ["--cf-tests", str(tests)]
    elif not importlib.util.find_spec("test.test_concurrent_futures"):
        pytest.skip("CPython's tests of executors are not to be had here")
    # These look for `_processes`, find none, and then wait for tasks that nobody lets go.
    options += ["--only", "^(?!test_(processes_terminate|context_manager_shutdown|saturation)$)"]
    run, shown = run_harness(tmp_path / "executor.json", *options)
    assert failures(run, HERE / "base311_cf_spawn.json", "A") == {}, shown
    assert run["tiers"]["A"][1] >= 25, "too few tests were run"
