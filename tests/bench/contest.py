"""Rounds: every entrant of a measurement in turn, each in a process of its own, over and over.

Entrants alternate, so that a machine that slows down slows all of them, and
what is judged are ratios within a round.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import cluster
import meter
from figures import FIGURES, OURS, Measurement
from idle import idle
from kills import SCENARIOS

HERE = Path(__file__).parent
DRIVER_S = 120.0
"""After this time a measurement is taken to hang."""

Values = dict[tuple[str, str], list[float]]
Say = Callable[[str], None]


class MeasurementError(Exception):
    """An entrant did not get through."""


class Contest:
    """The measured values of one run of the benchmark, by (figure, entrant)."""

    def __init__(self, rounds: int, share: float, peers: Sequence[str], say: Say) -> None:
        """``share``: of the usual number of tasks. ``peers``: entrants besides the usual ones."""
        self.values: Values = {}
        self.kills: dict[tuple[str, str], dict[str, float]] = {}
        self.failures: list[str] = []
        """What could not be measured, and why."""
        self._rounds = rounds
        self._share = share
        self._peers = peers
        self._say = say

    def measure(self, measurement: Measurement) -> None:
        """All rounds of a measurement."""
        rounds = 1 if measurement.is_once else self._rounds
        counts = dict(measurement.counts)
        counts |= {peer: measurement.peer_count for peer in self._peers if measurement.peer_count}
        with ExitStack() as stack:
            home = None
            for number in range(rounds):
                self._say(f"{measurement.name}, round {number + 1} of {rounds}")
                if home is None or not measurement.slots:
                    # What waits in a server without workers would weigh on the next round.
                    stack.close()
                    running = cluster.running(measurement.durability, measurement.slots)
                    home = stack.enter_context(running)
                for entrant, count in counts.items():
                    scaled = max(1, int(count * self._share))
                    try:
                        sample = drive(entrant, measurement, scaled, home)
                    except MeasurementError as error:
                        self.failures.append(str(error))
                        return
                    self._note(measurement.name, entrant, sample)
                if measurement.probes_disk:
                    self._note("fsync", OURS, {"p50": meter.fsync_ms(home.home)})

    def rest(self) -> None:
        """The idle cluster."""
        connections, seconds = max(10, int(1_000 * self._share)), max(2.0, 10 * self._share)
        self._say(f"idle, {connections} connections")
        self._note("idle", OURS, idle(connections, seconds))

    def kill(self) -> None:
        """The kill table: ours one after the other, beside them those that only hang."""
        with ThreadPoolExecutor() as others:
            waiting = {
                (scenario, entrant): others.submit(play, entrant, scenario)
                for scenario, entrants in SCENARIOS.items()
                for entrant in entrants
                if entrant != OURS
            }
            for scenario in SCENARIOS:
                self._say(f"kill: {scenario}")
                try:
                    self.kills[scenario, OURS] = play(OURS, scenario)
                except MeasurementError as error:
                    self.failures.append(str(error))
            self.kills |= {key: future.result() for key, future in waiting.items()}

    def _note(self, measurement: str, entrant: str, sample: dict[str, float]) -> None:
        for figure in FIGURES:
            if figure.measurement == measurement and figure.key in sample:
                self.values.setdefault((figure.name, entrant), []).append(sample[figure.key])


def drive(
    entrant: str, measurement: Measurement, count: int, home: cluster.Cluster
) -> dict[str, float]:
    """One entrant's measurement, in a new process."""
    command = [sys.executable, str(HERE / "driver.py"), entrant, measurement.method, str(count)]
    environ = home.environment() if entrant == OURS else cluster.environment(home.home)
    return _last_line(command, environ)


def play(entrant: str, scenario: str) -> dict[str, float]:
    """One entrant's scenario of the kill table, in a new process."""
    with tempfile.TemporaryDirectory(prefix="multihost-bench-") as home:
        command = [sys.executable, str(HERE / "kills.py"), entrant, scenario, home]
        return _last_line(command, dict(os.environ))


def _last_line(command: list[str], environ: dict[str, str]) -> dict[str, float]:
    what = " ".join([Path(command[1]).stem, *command[2:4]])
    try:
        process = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=DRIVER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{what} was not done after {DRIVER_S:g} s") from None
    if process.returncode:
        raise MeasurementError(f"{what} ended with {process.returncode}")
    sample: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return sample
