"""The journal's file: the same bytes, whether they are written to it or through a mapping."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

from multihost.store.sqlite import journal as store_journal
from multihost.store.sqlite.journal import JOURNAL_BYTES, DiskFile


@pytest.fixture(params=["where it is", "elsewhere"])
def file(request, tmp_path, monkeypatch):
    """On a file system that writes over blocks where they are, and on one that does not."""
    if request.param == "elsewhere":
        monkeypatch.setattr(store_journal, "_IN_PLACE", set())
    file = DiskFile(tmp_path / "journal")
    file.open()
    yield file
    file.close()


def test_what_is_written_is_there_for_others(file, tmp_path):
    file.write(0, b"abc")
    file.write(3, b"def")
    file.write(JOURNAL_BYTES - 1, b"z")
    file.sync()
    assert file.read() == b"abcdef" + bytes(JOURNAL_BYTES - 7) + b"z"
    again = DiskFile(tmp_path / "journal")
    again.open()
    again.write(1, b"X")
    again.close()
    assert file.read()[:7] == b"aXcdef\0"


def test_what_is_written_outlives_the_process(file, tmp_path):
    def write_and_die() -> None:
        file.write(0, b"first")
        file.write(5000, b"second")
        os.kill(os.getpid(), signal.SIGKILL)

    process = get_context("fork").Process(target=write_and_die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found = (tmp_path / "journal").read_bytes()
    assert found[:5] == b"first"
    assert found[5000:5006] == b"second"


def test_a_file_system_that_is_not_known_is_written_to(tmp_path, monkeypatch):
    read_text = Path.read_text

    def no_mounts(path: Path, *args: str, **kwargs: str) -> str:
        if str(path) == "/proc/self/mountinfo":
            raise FileNotFoundError(path)
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", no_mounts)
    file = DiskFile(tmp_path / "journal")
    file.open()
    file.write(0, b"abc")
    assert file._pages is None
    assert file.read()[:3] == b"abc"
    file.close()


def test_a_file_with_holes_is_written_to(tmp_path):
    path = tmp_path / "journal"
    path.touch(0o600)
    os.truncate(path, JOURNAL_BYTES)
    file = DiskFile(path)
    file.open()
    file.write(0, b"abc")
    assert file._pages is None
    assert file.read()[:3] == b"abc"
    file.close()
