"""How things look on a terminal: tables, ages, counts; and JSON for scripts.

Everything is text and fits the terminal; colour only where click finds one.
"""

import contextlib
import json
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "gone": "red",
}
PIPE_COLUMNS = 1000
"""Width of what is not read by a person on a terminal: nothing is cut off."""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    is_number: bool = False
    """Numbers are set to the right."""
    gives_way: bool = False
    """Cut short when the terminal is too narrow."""


def columns_wide() -> int:
    """Width of the terminal that stdout is, or as much as anybody needs."""
    if not sys.stdout.isatty():
        return PIPE_COLUMNS
    return shutil.get_terminal_size().columns


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their titles, aligned, no wider than the terminal."""
    cells = [[column.title for column in columns], *([*row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    _narrow(columns, widths, columns_wide())
    lines = [_line(columns, widths, row) for row in cells]
    lines[0] = click.style(lines[0], dim=True)
    return "\n".join(lines)


def _narrow(columns: Sequence[Column], widths: list[int], room: int) -> None:
    """Take what is too wide from the columns that give way, the widest first."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    givers = [at for at, column in enumerate(columns) if column.gives_way]
    while excess > 0 and givers:
        widest = max(givers, key=lambda at: widths[at])
        if widths[widest] <= len(columns[widest].title):
            return
        widths[widest] -= 1
        excess -= 1


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    cells = []
    for column, width, text in zip(columns, widths, row, strict=True):
        cut = shorten(text, width)
        padded = cut.rjust(width) if column.is_number else cut.ljust(width)
        cells.append(state(padded) if text in COLOURS else padded)
    return "  ".join(cells).rstrip()


def shorten(text: str, width: int) -> str:
    """Text on one line, of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def wrap(text: str, indent: int) -> str:
    """Text in lines that fit the terminal, all but the first indented."""
    import textwrap

    lines = textwrap.wrap(text, max(20, columns_wide() - indent), break_on_hyphens=False)
    return f"\n{'':<{indent}}".join(lines)


def state(word: str) -> str:
    """A state in its colour; padding is kept."""
    return click.style(word, fg=COLOURS.get(word.strip()))


def count(number: float) -> str:
    """``10 000``, with narrow spaces that don't break."""
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """``0.2 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 3 h``."""
    if seconds < 10:  # noqa: PLR2004 - tenths matter while there are few seconds
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for unit_s, unit, next_s, part in (
        (DAY_S, "d", HOUR_S, "h"),
        (HOUR_S, "h", MINUTE_S, "min"),
        (MINUTE_S, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = whole % unit_s // next_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def age(seconds: float) -> str:
    """``just now``, ``12 s ago``, ``3 min ago``, ``2 h ago``, ``4 d ago``."""
    if seconds < 1:
        return "just now"
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def size(size_bytes: float) -> str:
    """``512 B``, ``1.5 KiB``, ``3.0 GiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    step = min(len(units) - 1, max(0, int(size_bytes).bit_length() - 1) // 10)
    return f"{size_bytes / 1024**step:.{int(step > 0)}f} {units[step]}"


def many(number: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def bar(done: float, width: int = 24, *, lost: float = 0.0) -> str:
    """A bar of which the share ``done`` (0 to 1) is filled, and the share ``lost`` hatched."""
    filled = int(min(1.0, max(0.0, done)) * width)
    hatched = min(width - filled, math.ceil(max(0.0, lost) * width))
    return "█" * filled + "▒" * hatched + "░" * (width - filled - hatched)


def say(message: str) -> None:
    """A message, on stderr."""
    click.echo(message, err=True)


def complain(message: str) -> None:
    """An error, on stderr; broken between words where a person reads it."""
    import textwrap

    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        message = textwrap.fill(
            message, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
        )
    say(message)


def tell(message: str) -> None:
    """A message of a process that runs on, whether or not anybody reads it."""
    with contextlib.suppress(OSError):
        say(message)


def show(text: str) -> None:
    """A result, on stdout."""
    click.echo(text)


def show_json(value: Any) -> None:
    """A result for scripts, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
