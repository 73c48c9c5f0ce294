"""The figures: what is measured, for whom, and what it has to be.

``must`` is where the foundation may be called done, ``aim`` where it is going.
A bound is a number, or a multiple of another figure of the same run: of a
peer's, or of one of ours.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OURS = "ours"
POOL = "pool"
MANAGERS = "managers"
PEERS = ("celery", "dask", "ray")
"""Entrants that need installing."""

Rounds = Mapping[tuple[str, str], Sequence[float]]
"""Values by (figure, entrant), one a round."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit of a figure: at least or at most a number, or a multiple of another figure."""

    number: float
    is_floor: bool
    of: tuple[str, str] | None = None
    """(figure, entrant) that ``number`` multiplies; an empty figure means the same one."""
    plus: str = ""
    """A figure of ours that is added."""

    def holds(self, figure: "Figure", rounds: Rounds) -> bool | None:
        """Whether it is kept; None when what it needs was not measured.

        Multiples of a figure with as many rounds are judged by the median of
        each round's ratio, because the machine's speed wobbles from round to round.
        """
        ours = rounds.get((figure.name, OURS))
        if not ours:
            return None
        if self.of is not None:
            other = rounds.get((self.of[0] or figure.name, self.of[1]))
            if not other:
                return None
            value = ratio(ours, other)
        else:
            value = statistics.median(ours)
        limit = self.number
        if self.plus:
            added = rounds.get((self.plus, OURS))
            if not added:
                return None
            limit += statistics.median(added)
        return value >= limit if self.is_floor else value <= limit

    def __str__(self) -> str:
        number = short(self.number)
        if self.of is not None:
            number += f" x {self._other()}"
        return f"{'≥' if self.is_floor else '≤'} {number}{' + fsync' if self.plus else ''}"

    def _other(self) -> str:
        assert self.of is not None
        name, entrant = self.of
        return NAMES[entrant] if entrant != OURS else TITLES.get(name, name)


def at_least(number: float, of: tuple[str, str] | None = None) -> Bound:
    """A floor."""
    return Bound(number, is_floor=True, of=of)


def at_most(number: float, of: tuple[str, str] | None = None, plus: str = "") -> Bound:
    """A ceiling."""
    return Bound(number, is_floor=False, of=of, plus=plus)


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table: one value of one measurement."""

    name: str
    title: str
    measurement: str
    key: str
    """Which of the measurement's values."""
    unit: str
    must: tuple[Bound, ...] = ()
    aim: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Something an entrant does in a process of its own, and how often."""

    name: str
    method: str
    """The entrant's method, given a count."""
    counts: Mapping[str, int]
    """Entrants that do it, and with how many tasks; in this order within each round."""
    durability: str = "power"
    """Of our server."""
    slots: int = 2
    """Of our worker; 0: no worker, and a server of its own."""
    peer_count: int = 0
    """Tasks for an entrant that was installed for this; 0: it has no such thing."""
    is_once: bool = False
    """Too long to be done every round."""
    probes_disk: bool = False
    """Whether an fsync is measured beside each round, as part of what is to be reached."""


NAMES = {OURS: "ours", POOL: "mp.Pool", MANAGERS: "managers"}
TITLES = {"latency-process": "p50", "latency-power": "p50"}
"""How bounds speak of figures of ours."""

MEASUREMENTS = (
    Measurement(
        "single", "single", {OURS: 20_000, POOL: 20_000, MANAGERS: 4_000}, peer_count=1_000
    ),
    Measurement("map", "map", {OURS: 1_000_000, POOL: 1_000_000}),
    Measurement("imap", "imap", {OURS: 20_000, POOL: 20_000}),
    Measurement(
        "latency-process",
        "latency",
        {OURS: 500, POOL: 500, MANAGERS: 500},
        "process",
        peer_count=200,
    ),
    Measurement("latency-power", "latency", {OURS: 500}, probes_disk=True),
    Measurement("payload", "payload", {OURS: 64, POOL: 64, MANAGERS: 32}, peer_count=16),
    Measurement("cold", "cold", {OURS: 1, POOL: 1, MANAGERS: 1}),
    Measurement("submit", "submit", {OURS: 20_000}),
    Measurement("enqueue", "enqueue", {OURS: 100_000, MANAGERS: 10_000}, slots=0),
    Measurement("enqueue-calls", "enqueue_calls", {OURS: 50_000}, slots=0),
    Measurement("queues", "queue_pairs", {OURS: 20_000, MANAGERS: 10_000}, slots=0),
    Measurement("queues-four", "queue_pairs_of_four", {OURS: 40_000, MANAGERS: 40_000}, slots=0),
    Measurement("queues-many", "queue_batches", {OURS: 200_000}, slots=0),
    Measurement("memory", "memory", {OURS: 1_000_000, MANAGERS: 50_000}, slots=0, is_once=True),
)
"""What drivers measure; what concerns whole clusters is in ``idle`` and ``kills``."""

FIGURES = (
    Figure(
        "single",
        "single tasks, power",
        "single",
        "rate",
        "tasks/s",
        (at_least(0.7, ("", POOL)), at_least(4, ("", MANAGERS))),
        (at_least(1.5, ("", POOL)),),
    ),
    Figure(
        "cpu", "CPU a task, all processes", "single", "cpu_us", "µs", (at_most(90),), (at_most(45),)
    ),
    Figure("submit", "the same by Client.submit", "submit", "rate", "tasks/s"),
    Figure(
        "map",
        "Pool.map, default chunks",
        "map",
        "rate",
        "tasks/s",
        (at_least(0.4, ("", POOL)),),
        (at_least(0.9, ("", POOL)),),
    ),
    Figure(
        "imap",
        "Pool.imap, chunksize 1",
        "imap",
        "rate",
        "tasks/s",
        (at_least(0.6, ("", POOL)),),
        (at_least(1.2, ("", POOL)),),
    ),
    Figure(
        "latency-process",
        "latency p50, process",
        "latency-process",
        "p50",
        "ms",
        (at_most(0.7),),
        (at_most(0.35),),
    ),
    Figure(
        "p99-process",
        "latency p99, process",
        "latency-process",
        "p99",
        "ms",
        (at_most(5, ("latency-process", OURS)),),
        (at_most(3, ("latency-process", OURS)),),
    ),
    Figure(
        "rested-process",
        "latency p50 after 1 ms of rest, process",
        "latency-process",
        "rested_p50",
        "ms",
    ),
    Figure(
        "latency-power",
        "latency p50, power",
        "latency-power",
        "p50",
        "ms",
        (at_most(0.7, plus="fsync"),),
        (at_most(0.35, plus="fsync"),),
    ),
    Figure(
        "p99-power",
        "latency p99, power",
        "latency-power",
        "p99",
        "ms",
        (at_most(5, ("latency-power", OURS)),),
        (at_most(3, ("latency-power", OURS)),),
    ),
    Figure(
        "rested-power",
        "latency p50 after 1 ms of rest, power",
        "latency-power",
        "rested_p50",
        "ms",
    ),
    Figure("fsync", "one fsync of 4 KiB here", "fsync", "p50", "ms"),
    Figure(
        "payload",
        "1 MiB in + 1 MiB out, power",
        "payload",
        "rate",
        "MiB/s",
        (at_least(200),),
        (at_least(0.9, ("", POOL)),),
    ),
    Figure(
        "cold",
        "cold start to first result",
        "cold",
        "total_s",
        "s",
        (at_most(0.6),),
        (at_most(0.3),),
    ),
    Figure("python", "of that, python itself", "cold", "python_s", "s"),
    Figure(
        "enqueue",
        "enqueue without workers, power",
        "enqueue",
        "rate",
        "tasks/s",
        (at_least(60_000),),
        (at_least(150_000),),
    ),
    Figure(
        "enqueue-calls",
        "the same, each acknowledged alone",
        "enqueue-calls",
        "rate",
        "tasks/s",
    ),
    Figure(
        "queues",
        "put + get, one client, power",
        "queues",
        "rate",
        "pairs/s",
        (at_least(1, ("", MANAGERS)),),
        (at_least(3, ("", MANAGERS)),),
    ),
    Figure(
        "queues-four",
        "put + get, four clients, power",
        "queues-four",
        "rate",
        "pairs/s",
        (at_least(1.5, ("", MANAGERS)),),
        (at_least(5, ("", MANAGERS)),),
    ),
    Figure(
        "queues-many",
        "put_many + get_many of 100, power",
        "queues-many",
        "rate",
        "items/s",
        (at_least(100_000),),
        (at_least(300_000),),
    ),
    Figure(
        "memory",
        "server memory a queued task",
        "memory",
        "bytes",
        "B",
        (at_most(30),),
        (at_most(1),),  # flat, but for noise
    ),
    Figure(
        "idle",
        "idle: server, 2 workers, 1,000 peers",
        "idle",
        "percent",
        "% core",
        (at_most(1),),
        (at_most(0.2),),
    ),
)


def ratio(ours: Sequence[float], other: Sequence[float]) -> float:
    """Ours as a multiple of another's: of each round, if they have as many, else of the medians."""
    if len(ours) == len(other):
        return statistics.median(
            mine / theirs for mine, theirs in zip(ours, other, strict=True) if theirs
        )
    return statistics.median(ours) / statistics.median(other)


def short(value: float) -> str:
    """A number as people read it: three digits that matter, thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
