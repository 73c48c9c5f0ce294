"""A variable with a typo is named, with the one that was meant."""

import re
from pathlib import Path

import pytest

import multihost
from multihost.runtime.variables import KNOWN, PREFIX, documented, unknown

SOURCE = Path(multihost.__file__).parent
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in unknown():
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("set_", "meant"),
    [
        ("MULTIHOST_JION", "MULTIHOST_JOIN"),
        ("MULTIHOST_URl", "MULTIHOST_URL"),
        ("multihost_url", "MULTIHOST_URL"),
        ("MULTIHOST_SERVER_URL", "MULTIHOST_URL"),
        ("MULTIHOST_SERVER", "MULTIHOST_URL"),
        ("MULTIHOST_AUTH_KEY", "MULTIHOST_KEY"),
        ("MULTIHOST_JOIN_STRING", "MULTIHOST_JOIN"),
        ("MULTIHOST_VERSION", None),
    ],
)
def test_a_variable_that_nobody_reads_is_known_with_the_one_that_was_meant(
    monkeypatch, set_, meant
):
    monkeypatch.setenv(set_, "x")
    assert unknown() == {set_: meant}


def test_those_that_mean_something_are_not_suspected(monkeypatch):
    for name in KNOWN:
        monkeypatch.setenv(PREFIX + name, "x")
    monkeypatch.setenv("MULTIHOSTILITY", "x")
    assert unknown() == {}


def test_all_that_is_read_is_known():
    read = set()
    for path in SOURCE.rglob("*.py"):
        read |= set(re.findall(r'= "(MULTIHOST_[A-Z_]+)"', path.read_text()))
    assert read == {PREFIX + name for name in KNOWN}


def test_those_for_users_are_documented():
    page = (DOCS / "reference/cli.md").read_text()
    assert set(re.findall(r"^\| `(MULTIHOST_[A-Z_]+)`", page, re.MULTILINE)) == {*documented()}
