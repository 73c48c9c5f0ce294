"""What was measured, as an aligned table, as Markdown, and as JSON."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from figures import FIGURES, MANAGERS, OURS, POOL, Bound, Figure, Rounds, ratio, short
from kills import SCENARIOS

import multihost

Kills = Mapping[tuple[str, str], Mapping[str, float]]

KILL_TITLES = {
    "undisturbed": "nothing is killed",
    "child": "a task's process",
    "worker": "a worker, started again",
    "server": "the server, started again",
    "queued": "the server, 1,000 queued",
}
MUST_BEYOND_S = 3.0
AIM_BEYOND_S = 1.0


def figure_table(rounds: Rounds, peers: Sequence[str]) -> list[list[str]]:
    """Heading and one row a figure that was measured."""
    shown = [peer for peer in peers if any(entrant == peer for _, entrant in rounds)]
    heading = ["figure", "unit", "ours", "mp.Pool", "managers", *shown]
    table = [[*heading, "ratio to Pool / managers", "must", "aim", "verdict"]]
    for figure in FIGURES:
        if (figure.name, OURS) not in rounds:
            continue
        entrants = [OURS, POOL, MANAGERS, *shown]
        table.append(
            [
                figure.title,
                figure.unit,
                *(_median(rounds.get((figure.name, entrant))) for entrant in entrants),
                _ratios(figure, rounds),
                ", ".join(map(str, figure.must)),
                ", ".join(map(str, figure.aim)),
                verdict(figure, rounds),
            ]
        )
    return table


def verdict(figure: Figure, rounds: Rounds) -> str:
    """``aim`` or ``pass`` when that much is reached, ``FAIL`` when not, else empty."""
    if not figure.must:
        return ""
    must, aim = _holds(figure.must, figure, rounds), _holds(figure.aim, figure, rounds)
    if must is None:
        return "?"
    if not must:
        return "FAIL"
    return "aim" if aim else "pass"


def kill_table(kills: Kills) -> list[list[str]]:
    """Heading and one row a scenario."""
    table = [
        [
            "kill -9 of",
            "ours",
            "mp.Pool",
            "managers",
            "accepted twice",
            "started again",
            "s beyond",
            "verdict",
        ]
    ]
    for scenario in SCENARIOS:
        mine = kills.get((scenario, OURS))
        if mine is None:
            continue
        table.append(
            [
                KILL_TITLES[scenario],
                *(_results(kills.get((scenario, entrant))) for entrant in (OURS, POOL, MANAGERS)),
                short(mine["twice"]),
                short(mine["again"]),
                f"{_beyond_s(scenario, kills):.2f}",
                kill_verdict(scenario, kills),
            ]
        )
    return table


def kill_verdict(scenario: str, kills: Kills) -> str:
    """As ``verdict``."""
    mine, beyond_s = kills[scenario, OURS], _beyond_s(scenario, kills)
    is_whole = mine["results"] == mine["expected"] and not mine["twice"]
    if not is_whole or beyond_s > MUST_BEYOND_S:
        return "FAIL"
    return "aim" if beyond_s <= AIM_BEYOND_S else "pass"


def aligned(table: list[list[str]]) -> str:
    """For a terminal: columns of numbers to the right, of words to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if _is_numeric(table, position) else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown(table: list[list[str]]) -> str:
    """To be pasted into a document."""
    lines = ["| " + " | ".join(cell or "-" for cell in row) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def as_json(about: Mapping[str, object], rounds: Rounds, kills: Kills) -> dict[str, object]:
    """Every round's values, and the verdicts."""
    figures: dict[str, dict[str, object]] = {}
    for (name, entrant), values in rounds.items():
        figures.setdefault(name, {})[entrant] = {
            "median": statistics.median(values),
            "rounds": list(values),
        }
    for figure in FIGURES:
        if figure.name in figures:
            figures[figure.name] |= {
                "unit": figure.unit,
                "must": [str(bound) for bound in figure.must],
                "aim": [str(bound) for bound in figure.aim],
                "verdict": verdict(figure, rounds),
            }
    scenarios: dict[str, dict[str, object]] = {}
    for (scenario, entrant), result in kills.items():
        scenarios.setdefault(scenario, {})[entrant] = dict(result)
    return {"machine": about, "figures": figures, "kills": scenarios}


def machine() -> dict[str, Any]:
    """What it is measured on, and how busy that is already."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "load": psutil.getloadavg()[0],
        "multihost": multihost.__version__,
    }


def _median(values: Sequence[float] | None) -> str:
    return short(statistics.median(values)) if values else ""


def _ratios(figure: Figure, rounds: Rounds) -> str:
    """Ours as a multiple of the pool's and of the managers'; empty when it has neither."""
    ours = rounds[figure.name, OURS]
    others = [rounds.get((figure.name, entrant)) for entrant in (POOL, MANAGERS)]
    if not any(others):
        return ""
    return " / ".join(short(ratio(ours, other)) if other else "-" for other in others)


def _holds(bounds: Sequence[Bound], figure: Figure, rounds: Rounds) -> bool | None:
    """Whether all are kept; None when one can't be judged."""
    answers = [bound.holds(figure, rounds) for bound in bounds]
    return None if None in answers else all(answers)


def _results(result: Mapping[str, float] | None) -> str:
    return f"{result['results']:,.0f} of {result['expected']:,.0f}" if result else ""


def _beyond_s(scenario: str, kills: Kills) -> float:
    """Seconds that the kill has cost. What waited in a killed server was in no hurry before."""
    seconds = kills[scenario, OURS]["seconds"]
    undisturbed = kills.get(("undisturbed", OURS))
    if scenario == "queued" or undisturbed is None:
        return seconds
    return max(0.0, seconds - undisturbed["seconds"])


def _is_numeric(table: list[list[str]], position: int) -> bool:
    cells = [row[position] for row in table[1:] if row[position]]
    return bool(cells) and all(cell[0].isdigit() and "/" not in cell for cell in cells)
