"""``make bench``: ours beside ``multiprocessing``, in one run, with what it has to reach.

Everything is started here and ends here. Tables go to stdout, progress to
stderr, every value to ``bench.json``.
"""

import argparse
import compileall
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import backlog
import report
from contest import Contest
from figures import FIGURES, MEASUREMENTS, PEERS
from outside import what_is_missing

import multihost

ROUNDS = 5
QUICK_ROUNDS = 1
QUICK_SHARE = 0.1
QUIET_LOAD = 0.5
JSON_FILE = "bench.json"
OTHERS = ("idle", "kills")
"""What is measured besides the measurements that drivers make."""
BACKLOG = "backlog"
"""Only measured when asked for: ten million tasks take some minutes."""


def main() -> int:
    """Measure what was asked for; 1 if ``--check`` and something is below what it must be."""
    arguments = parse()
    began, about = time.monotonic(), report.machine()
    if about["load"] > QUIET_LOAD:
        say(f"others are busy here (load {about['load']:.1f}): look at the ratios only")
    # A process that has to compile it all, as after an edit, is not what starts at a user's.
    compileall.compile_dir(Path(multihost.__file__).parent, quiet=1)
    names = arguments.only or [*(measurement.name for measurement in MEASUREMENTS), *OTHERS]
    peers = usable_peers() if arguments.peers else []
    contest = Contest(arguments.rounds, arguments.share, peers, say)
    for measurement in MEASUREMENTS:
        if measurement.name in names:
            contest.measure(measurement)
    if "idle" in names:
        contest.rest()
    if "kills" in names:
        contest.kill()
    show(contest, peers, about, is_markdown=arguments.markdown)
    everything = report.as_json(about, contest.values, contest.kills)
    if BACKLOG in names:
        everything[BACKLOG] = backlog.measure(int(backlog.TASKS * arguments.share))
        backlog.show(everything[BACKLOG])
    arguments.json.write_text(json.dumps(everything, indent=1))
    say(f"{time.monotonic() - began:.0f} s; every value is in {arguments.json}")
    is_short = bool(backlog.missed(everything.get(BACKLOG, {})))
    return 1 if arguments.check and (is_short or has_failed(contest)) else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*(measurement.name for measurement in MEASUREMENTS), *OTHERS, BACKLOG]
    parser.add_argument("--only", action="append", choices=names, help="measure this (repeatable)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the median of how many")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of the work")
    parser.add_argument("--peers", action="store_true", help=f"also {', '.join(PEERS)}")
    parser.add_argument("--markdown", action="store_true", help="tables for a document")
    parser.add_argument("--check", action="store_true", help="exit 1 when a must is missed")
    parser.add_argument("--json", type=Path, default=Path(JSON_FILE), help="where values go")
    arguments = parser.parse_args()
    arguments.share = QUICK_SHARE if arguments.quick else 1.0
    if arguments.quick and arguments.rounds == ROUNDS:
        arguments.rounds = QUICK_ROUNDS
    return arguments


def usable_peers() -> list[str]:
    """Peers that are installed; says of the others what is missing."""
    usable = []
    for peer in PEERS:
        missing = what_is_missing(peer)
        if missing:
            say(f"{peer} is left out: {missing}")
        else:
            usable.append(peer)
    return usable


def show(contest: Contest, peers: list[str], about: dict[str, Any], *, is_markdown: bool) -> None:
    """Print the tables."""
    write = report.markdown if is_markdown else report.aligned
    print(
        f"{about['cores']} cores, load {about['load']:.1f} before, Python {about['python']}, "
        f"{about['system']}\n"
    )
    if contest.values:
        print(write(report.figure_table(contest.values, peers)))
    if contest.kills:
        print("\n" + write(report.kill_table(contest.kills)))
    for failure in contest.failures:
        print(f"not measured: {failure}")


def has_failed(contest: Contest) -> bool:
    """Whether a must is missed, or something could not be measured."""
    verdicts = [report.verdict(figure, contest.values) for figure in FIGURES]
    verdicts += [
        report.kill_verdict(scenario, contest.kills) for scenario, _ in contest.kills if _ == "ours"
    ]
    return "FAIL" in verdicts or bool(contest.failures)


def say(text: str) -> None:
    """Progress, for who watches."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ.pop("MULTIHOST_URL", None)
    sys.exit(main())
