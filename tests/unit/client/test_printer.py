"""Where and how the output of tasks is written."""

import threading

import pytest

from multihost.client import printer
from multihost.client.printer import OUTPUT_VARIABLE, Printer, is_shown
from multihost.errors import ConfigError
from multihost.wire.message import Printed, Stream


class Job:
    """What a printer asks of a stream."""

    def __init__(self, title="", label="f", number=7):
        self.title, self.number = title, number
        self.spec = type("Spec", (), {"label": label})


class SlowTerminal:
    """Takes nothing until it is told to."""

    def __init__(self):
        self.may_go_on = threading.Event()
        self.text = ""

    def write(self, text):
        self.may_go_on.wait(20)
        self.text += text

    def flush(self):
        pass


def show(*messages, job=None):
    shown = Printer()
    for message in messages:
        shown.put(message, job)
    shown.stop()


def test_stdout_and_stderr_are_told_apart(capsys):
    show(Printed(1, 0, Stream.STDOUT, b"out"), Printed(1, 0, Stream.STDERR, b"err"))
    assert tuple(capsys.readouterr()) == ("out", "err")


def test_a_character_torn_in_two_is_put_together(capsys):
    first, second = "é".encode()[:1], "é".encode()[1:]
    show(Printed(1, 0, 1, first), Printed(1, 1, 1, b"-"), Printed(1, 0, 1, second))
    assert capsys.readouterr().out == "-é"


def test_with_names_each_line_says_who_printed_it(capsys, monkeypatch):
    monkeypatch.setenv(OUTPUT_VARIABLE, "named")
    show(
        Printed(1, 0, 1, b"one\ntw"),
        Printed(1, 0, 1, b"o\nthree"),
        Printed(1, 0, 1, b"\nfour\n"),
        job=Job("Process-1@there"),
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"[Process-1@there] {word}" for word in ("one", "two", "three", "four")]


def test_without_a_name_of_its_own_a_task_is_called_by_function_and_number(capsys, monkeypatch):
    monkeypatch.setenv(OUTPUT_VARIABLE, "named")
    show(Printed(1, 3, 1, b"hello\n"), job=Job())
    assert capsys.readouterr().out == "[f 7/3] hello\n"


def test_an_unknown_way_is_an_error_that_says_which_there_are(monkeypatch):
    monkeypatch.setenv(OUTPUT_VARIABLE, "loud")
    with pytest.raises(ConfigError, match="MULTIHOST_OUTPUT is 'loud'; it can be plain, named"):
        is_shown()


def test_what_comes_after_output_waits_for_it(monkeypatch):
    terminal = SlowTerminal()
    monkeypatch.setattr("sys.stdout", terminal)
    shown, seen = Printer(), []
    shown.put(Printed(1, 0, 1, b"hello"))
    assert shown.is_behind
    shown.after(lambda: seen.append(terminal.text))
    terminal.may_go_on.set()
    shown.stop()
    assert seen == ["hello"]
    assert not shown.is_behind


def test_what_a_stopped_terminal_can_not_take_is_dropped_and_that_is_said(monkeypatch):
    terminal = SlowTerminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(printer, "BEHIND_BYTES", 10)
    shown = Printer()
    for data in (b"0123456789ab", b"lost"):
        shown.put(Printed(1, 0, 1, data))
    terminal.may_go_on.set()
    shown.join()
    shown.put(Printed(1, 0, 1, b"later"))
    shown.stop()
    assert terminal.text == "0123456789ab\n[multihost: 4 bytes of output were not shown]\nlater"
