"""The demo from end to end: its proof holds, and nothing stays behind."""

import json
import signal
import tempfile
from pathlib import Path

import psutil
import pytest
from cli_runner import Shell

from multihost.cli.exits import Exit
from multihost.testing import wait_until

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "tmp").mkdir()
    return Shell(TMPDIR=str(tmp_path / "tmp"), COLUMNS="100")


def left_behind(shell):
    """Processes and files of the demo that are still there."""
    directory = shell.environment["TMPDIR"]
    found = [str(path) for path in Path(directory).iterdir()]
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == directory:
                found.append(str(process))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def test_the_demo_proves_that_each_input_was_answered_exactly_once(shell):
    with shell.start("demo", "--quick") as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == Exit.OK, errors
    assert errors.count("kill -9") == 2
    assert "the server is gone; another one was started" in errors
    assert "Each input was answered exactly once." in output
    assert "The longest files" in output
    assert "started in its place" in output
    wait_until(lambda: not left_behind(shell), "nothing of the demo is left")


def test_the_figures_are_there_for_scripts(shell, tmp_path):
    (tmp_path / "src").mkdir()
    for number in range(40):
        (tmp_path / "src" / f"m{number}.py").write_text(f"def f{number}():\n    pass\n")
    (tmp_path / "src" / "copy.py").write_text("def f1():\n    pass\n")
    (tmp_path / "src" / "broken.py").write_text("def f(:\n")
    with shell.start("demo", "--inputs", str(tmp_path / "src"), "--json") as process:
        proof = json.loads(process.communicate(timeout=120)[0])
    assert proof["holds"]
    assert (proof["inputs"], proof["outcomes"], proof["stored"]) == (41, 41, 41)
    assert (proof["duplicates"], proof["missing"], proof["wrong"]) == (0, 0, 0)
    assert proof["runs"] >= 41


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(shell, number):
    with shell.start("demo") as process:
        while "starting a server" not in process.stderr.readline():
            assert process.poll() is None
        # Until the first tenth is done: in the middle of the job.
        assert process.stderr.readline()
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == Exit.INTERRUPTED, errors
    assert "Traceback" not in errors
    wait_until(lambda: not left_behind(shell), "nothing of the demo is left")


def test_an_empty_directory_is_refused(shell, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, errors = shell.run("demo", "--inputs", str(tmp_path / "empty"))
    assert code is Exit.USAGE
    assert "there is no Python file below" in errors
    assert Path(tempfile.gettempdir()).exists()
