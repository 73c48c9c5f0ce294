import logging
import socket
import sys

import pytest

from multihost.runtime import settings


class Odd(logging.Formatter):
    def __init__(self):
        """Leave out what the base class would set."""


@pytest.fixture(autouse=True)
def program(monkeypatch):
    """As in a program that has set nothing; what other tests have set is out of sight."""
    limit, timeout_s = sys.getrecursionlimit(), socket.getdefaulttimeout()
    monkeypatch.setattr(logging.root.manager, "loggerDict", {})
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.setattr(logging.root, "handlers", [])
    sys.setrecursionlimit(settings.RECURSION_LIMIT)
    socket.setdefaulttimeout(None)
    yield
    settings.take_over(b"")
    sys.setrecursionlimit(limit)
    socket.setdefaulttimeout(timeout_s)


@pytest.fixture
def logger():
    """A logger of the program."""
    logger = logging.getLogger("a.programs.own")
    yield logger
    for handler in logger.handlers:
        handler.close()


def as_elsewhere(logger):
    """What is told of the logger, in a process that has none of it yet."""
    told = settings.taken()
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    settings.take_over(told)
    return told


def test_a_program_that_has_set_nothing_sends_nothing():
    assert settings.taken() == b""


def test_a_logger_writes_elsewhere_as_it_does_here_until_another_program_comes(logger, capsys):
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("$levelname $message", style="$"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    told = as_elsewhere(logger)
    assert settings.taken() == told
    logger.debug("told")
    assert capsys.readouterr().out == "DEBUG told\n"
    settings.take_over(b"")
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_what_has_handlers_already_gets_no_others(logger):
    logger.addHandler(logging.StreamHandler(sys.stderr))
    told = settings.taken()
    settings.take_over(told)
    assert len(logger.handlers) == 1


def test_a_file_of_another_machine_is_not_opened_here(logger, tmp_path, monkeypatch):
    logger.addHandler(logging.FileHandler(tmp_path / "log"))
    told = settings.taken()
    logger.handlers.pop().close()
    (tmp_path / "log").unlink()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    settings.take_over(told)
    assert not logger.handlers
    assert not (tmp_path / "log").exists()


def test_a_users_own_formatter_leaves_the_text_as_it_is(logger, capsys):
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Odd())
    logger.addHandler(handler)
    as_elsewhere(logger)
    logger.warning("plain")
    assert capsys.readouterr().err == "plain\n"


def test_handlers_that_write_anywhere_else_stay_with_their_process(logger, tmp_path):
    with (tmp_path / "other").open("w") as other:
        logger.addHandler(logging.StreamHandler(other))
        logger.addHandler(logging.NullHandler())
        assert settings.taken() == b""


def test_very_long_settings_stay_with_the_program(logger):
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" + "x" * settings.SETTINGS_BYTES))
    logger.addHandler(handler)
    assert settings.taken() == b""


def test_the_recursion_limit_and_the_time_of_sockets_are_taken_over():
    sys.setrecursionlimit(settings.RECURSION_LIMIT + 1)
    socket.setdefaulttimeout(7)
    told = settings.taken()
    settings.take_over(b"")
    assert (sys.getrecursionlimit(), socket.getdefaulttimeout()) == (1000, None)
    settings.take_over(told)
    assert (sys.getrecursionlimit(), socket.getdefaulttimeout()) == (1001, 7)
    settings.take_over(b"")
