"""How the demo looks: the progress on stderr; results, workers and proof on stdout."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from multihost.cli.render import Column, count, show, table
from multihost.demo.measure import Measures
from multihost.demo.proof import Proof
from multihost.demo.story import Story

TOP = 5
LINES = 10
"""Progress lines where there is no terminal."""

Say = Callable[[str], None]
Advance = Callable[[int], None]


@contextmanager
def progress(total: int) -> Iterator[tuple[Say, Advance]]:
    """How to say what happens and how many are done: a bar on a terminal, else a few lines."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        step = max(1, total // LINES)

        def advance(done: int) -> None:
            if done % step == 0:
                console.print(f"{count(done)} of {count(total)}")

        yield console.print, advance
        return
    columns = (BarColumn(None), MofNCompleteColumn(), TextColumn("files"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        row = bar.add_task("", total=total)
        yield bar.console.print, lambda done: bar.update(row, completed=done)


def show_all(story: Story, proof: Proof) -> None:
    """Print what was found, who did it, and the proof."""
    _section("The longest files", _longest(story.results))
    show(_totals(story.results))
    _section("Who answered how many", _who(story))
    show(
        f"The server was away for {story.server_away_s:.1f} s; "
        f"the job took {story.took_s:.1f} s in all."
    )
    _section("The proof", "\n".join(_proof(proof)))
    if proof.holds:
        show(click.style("Each input was answered exactly once.", fg="green", bold=True))
    else:
        show(click.style("THE PROOF FAILED: the figures above disagree.", fg="red", bold=True))


def _section(title: str, text: str) -> None:
    show(f"\n{click.style(title, bold=True)}\n{text}")


def _longest(results: Iterable[Measures]) -> str:
    titles = ("LINES", "FUNCTIONS", "CLASSES", "NESTING", "LONGEST DEF")
    columns = [*(Column(title, is_number=True) for title in titles), Column("FILE", gives_way=True)]
    longest = sorted(results, key=lambda result: -result.lines)[:TOP]
    return table(
        columns,
        [
            [
                *map(count, (one.lines, one.functions, one.classes, one.nesting)),
                count(one.longest_function),
                "/".join(Path(one.path).parts[-2:]),
            ]
            for one in longest
        ],
    )


def _totals(results: list[Measures]) -> str:
    lines = sum(result.lines for result in results)
    comments = sum(result.comments for result in results)
    named = sum(result.functions + result.classes for result in results)
    documented = sum(result.documented for result in results) / max(1, named)
    unread = sum(not result.is_python for result in results)
    return (
        f"In all: {count(len(results))} files ({count(unread)} don't parse), {count(lines)} lines, "
        f"{count(comments)} comments;\n{count(named)} functions and classes, "
        f"{documented:.0%} of them with a docstring."
    )


def _who(story: Story) -> str:
    titles = ("BEFORE", "BETWEEN", "AFTER THE KILLS", "IN ALL")
    columns = [Column("WORKER"), *(Column(title, is_number=True) for title in titles), Column("")]
    rows = []
    for worker in story.workers.values():
        counts = (worker.before, worker.between, worker.after)
        rows.append([worker.name, *map(count, (*counts, sum(counts))), worker.fate])
    return table(columns, rows)


def _proof(proof: Proof) -> Iterator[str]:
    for number, what in (
        (proof.inputs, "inputs"),
        (proof.outcomes, "outcomes received"),
        (proof.duplicates, "duplicates"),
        (proof.missing, "missing"),
        (proof.stored, "succeeded, by the server's own counters"),
        (proof.unfinished, "in any other state"),
        (proof.lost, "attempts lost by the kills and made again, by the server's book"),
        (proof.runs, "runs begun, by the workers' own ledger"),
        (proof.recounted, "files of a random sample measured again, one after the other"),
        (proof.wrong, "of these measured otherwise"),
    ):
        yield f"{count(number):>7}  {what}"
