"""Tables, ages, counts: how things look."""

import pytest

from multihost.cli import render
from multihost.cli.render import Column

SPACE = "\N{NARROW NO-BREAK SPACE}"
COLUMNS = (Column("JOB", is_number=True), Column("STATE"), Column("NAME", gives_way=True))


def test_a_table_is_aligned_under_its_titles():
    assert render.table(COLUMNS, [["1", "open", "a b"], ["1000", "odd", "x"]]).splitlines()[1:] == [
        "   1  open   a b",
        "1000  odd    x",
    ]


def test_the_column_that_gives_way_is_cut_to_the_terminal(monkeypatch):
    monkeypatch.setattr(render, "columns_wide", lambda: 20)
    lines = render.table(COLUMNS, [["1", "open", "a name that is far too long"]]).splitlines()
    assert lines[1] == "  1  open   a name …"
    assert len(lines[1]) == 20


def test_columns_never_become_narrower_than_their_titles(monkeypatch):
    monkeypatch.setattr(render, "columns_wide", lambda: 5)
    assert render.table(COLUMNS, [["1", "open", "abcdefgh"]]).splitlines()[1] == "  1  open   abc…"


def test_line_breaks_do_not_break_a_table():
    assert render.table([Column("A")], [["one\ntwo"]]).splitlines()[1:] == ["one two"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (-1, "0.0 s"),
        (1.24, "1.2 s"),
        (42.4, "42 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_are_in_human_units(seconds, text):
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (3, "3 s ago"), (185, "3 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages_are_in_human_units(seconds, text):
    assert render.age(seconds) == text


def test_counts_are_grouped_thinly():
    assert render.count(1234567) == f"1{SPACE}234{SPACE}567"
    assert render.many(1, "task") == "1 task"
    assert render.many(2000, "task") == f"2{SPACE}000 tasks"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes_are_in_human_units(size_bytes, text):
    assert render.size(size_bytes) == text


@pytest.mark.parametrize(
    ("done", "text"), [(0, "░░░░"), (0.5, "██░░"), (0.99, "███░"), (1, "████"), (2, "████")]
)
def test_a_bar_is_full_only_at_the_end(done, text):
    assert render.bar(done, 4) == text


@pytest.mark.parametrize(
    ("done", "lost", "text"),
    [(0, 1, "▒▒▒▒"), (0.5, 0.01, "██▒░"), (0.99, 0.01, "███▒"), (1, 0, "████")],
)
def test_what_is_lost_shows_in_a_bar_however_little_it_is(done, lost, text):
    assert render.bar(done, 4, lost=lost) == text
