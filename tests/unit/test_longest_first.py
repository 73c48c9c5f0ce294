"""The order of the suite names files that are there."""

from pathlib import Path

import pytest

from longest_first import APART, LONG, LongestFirst, place_of

ROOT = Path(__file__).parents[2]
ALONE = sorted(APART)
UNKNOWN = "tests/unit/test_package.py::test_something"


@pytest.mark.parametrize("path", LONG)
def test_what_the_order_names_is_there_and_named_once(path):
    assert (ROOT / path).is_file()
    assert LONG.count(path) == 1


@pytest.mark.parametrize("path", ALONE)
def test_tests_that_are_shared_out_one_by_one_take_long_and_share_no_fixture(path):
    assert path in LONG
    assert 'scope="module"' not in (ROOT / path).read_text()


def test_what_is_not_named_comes_last_and_keeps_its_order():
    names = [UNKNOWN, f"{LONG[1]}::test_b", "tests/unit/test_errors.py::test_a", f"{LONG[0]}::t"]
    assert sorted(names, key=place_of) == [names[3], names[1], names[0], names[2]]


def test_a_unit_is_a_file_or_one_of_the_tests_that_are_shared_out_one_by_one():
    split = LongestFirst._split_scope
    assert split(None, UNKNOWN) == "tests/unit/test_package.py"
    assert split(None, f"{ALONE[0]}::test_a[b::c]") == f"{ALONE[0]}::test_a[b::c]"
