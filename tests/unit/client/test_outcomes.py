import pickle
from concurrent.futures import BrokenExecutor

import pytest

from multihost import errors
from multihost.client.future import remote_traceback
from multihost.client.outcomes import decode, exception_of, refusal
from multihost.core.outcome import Certificate, Ending, Failure, encode_failure
from multihost.wire.message import RefusalCode


def error_of(failure):
    return exception_of(failure.ending, encode_failure(failure), remote_traceback)


class Picky(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def test_a_value_is_unpickled():
    assert decode(Ending.OK, pickle.dumps([1, 2]), remote_traceback) == (True, [1, 2])


def test_the_tasks_own_exception_comes_back_with_the_remote_traceback_as_its_cause():
    from multiprocessing.pool import RemoteTraceback

    error = error_of(
        Failure(Ending.RAISED, "KeyError", "'k'", "Traceback: in g\n", pickle.dumps(KeyError("k")))
    )
    assert type(error) is KeyError
    assert error.args == ("k",)
    assert type(error.__cause__) is RemoteTraceback
    assert "in g" in error.__cause__.tb


def test_an_exception_that_cannot_be_unpickled_here_is_told_in_words():
    failure = Failure(
        Ending.RAISED, "m.Picky", "one", "Traceback: in h\n", pickle.dumps(Picky("one", 2))
    )
    error = error_of(failure)
    assert type(error) is errors.TaskFailed
    assert error.type_name == "m.Picky"
    assert "m.Picky: one" in str(error)
    assert "in h" in str(error.__cause__)


def test_a_crash_carries_its_death_certificates_and_shows_them():
    certificates = (
        Certificate(worker="w-1", pid=7, exit_code=-9, is_out_of_memory=True, run_s=1.5),
        Certificate(worker="w-2", pid=8, exit_code=3, output_tail="last words\n"),
    )
    error = error_of(Failure(Ending.CRASHED, message="killed twice", certificates=certificates))
    assert isinstance(error, errors.TaskCrashed)
    assert isinstance(error, BrokenExecutor)
    assert error.certificates == certificates
    for part in ("killed twice", "out of memory", "w-1", "exit code 3", "last words"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (Ending.TIMED_OUT, errors.TaskTimeout),
        (Ending.LOST, errors.TaskLost),
        (Ending.CANCELLED, errors.TaskCancelled),
        (Ending.EXPIRED, errors.TaskExpired),
        (Ending.BLOCKED, errors.TaskCancelled),
        (Ending.CRASHED, errors.TaskCrashed),
        (Ending.RAISED, errors.TaskFailed),
    ],
)
def test_an_ending_without_a_word_still_has_its_own_exception_and_text(ending, kind):
    error = exception_of(ending, b"", remote_traceback)
    assert type(error) is kind
    assert str(error)


def test_a_missing_module_is_an_import_error_that_names_the_worker():
    said = "No module named 'numbats.core'"
    failure = Failure(Ending.UNRUNNABLE, "ModuleNotFoundError", said, worker="w-3")
    error = error_of(failure)
    assert isinstance(error, errors.MissingModule)
    assert isinstance(error, ImportError)
    assert (error.worker, error.module) == ("w-3", "numbats.core")
    for part in ("w-3", "numbats.core", "ship=", "pip install", "--path"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("in.csv", "in this program's directory, and w-1 looked in its own: give an absolute path"),
        ("{here}/in.csv", "on this machine, and w-1 looked on its own"),
        ("out.csv", None),
    ],
)
def test_a_file_that_is_here_and_not_where_the_task_ran_is_pointed_out(
    tmp_path, monkeypatch, path, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").touch()
    lacking = FileNotFoundError(2, "No such file or directory", path.format(here=tmp_path))
    error = error_of(
        Failure(Ending.RAISED, "FileNotFoundError", exception=pickle.dumps(lacking), worker="w-1")
    )
    notes = "".join(getattr(error, "__notes__", ()))
    assert says in notes if says else not notes


def test_a_result_that_cannot_be_unpickled_here_is_an_error_with_its_reason():
    is_ok, error = decode(Ending.OK, b"no pickle at all", remote_traceback)
    assert not is_ok
    assert isinstance(error, errors.UnreadableResult)
    assert isinstance(error.__cause__, pickle.UnpicklingError)


def test_an_unreadable_failure_is_still_a_failure():
    error = exception_of(Ending.RAISED, b"\xff\xff", remote_traceback)
    assert isinstance(error, errors.TaskFailed)


@pytest.mark.parametrize("code", list(RefusalCode))
def test_every_refusal_is_a_refused(code):
    error = refusal(code, "why", (3,))
    assert isinstance(error, errors.Refused)
    assert str(error) == "why"
