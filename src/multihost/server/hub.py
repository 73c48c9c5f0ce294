"""Where ready tasks meet waiting slots.

The hub holds no tasks: the store does. It knows which lanes may have ready
tasks, which workers have room, and how many slots a pool of limited width
occupies where. In each transaction it leases what fits, and after the commit
it sends the grants; so a lone task goes from submit to worker in one commit.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from multihost.core.ids import index_of, job_of
from multihost.core.job import JobSpec
from multihost.core.resources import Offer, Requirement, missing
from multihost.server.processes import Processes
from multihost.server.widths import Widths
from multihost.store.base import Changes, Final, JobRow, Lane, Lease, Store
from multihost.wire import message as m

JOB_CACHE = 10_000
"""Jobs whose particulars are remembered; others are read again when needed."""
ASKED = 32
"""Workers looked at to learn whether some slot is idle: at 500 busy ones it took 46 µs."""
SHARE = 64
"""Leases given to one worker before the next gets its turn; as many fit into a frame."""


class Taker(Protocol):
    """A connected worker, as the hub sees it."""

    session: int
    slots: int
    room: int
    queues: tuple[str, ...]
    offer: Offer
    held: int

    def grant(self, message: m.Grants) -> None:
        """Have leases sent."""
        ...

    def revoke(self, leases: list[m.Held]) -> None:
        """Have it told that these leases are void."""
        ...

    def flush(self) -> None:
        """Send what was granted now: the disk may be waited for next."""
        ...


@dataclass(slots=True)
class _JobFacts:
    info: m.JobInfo
    context: str | None
    """Set when the job's pool has a limited width."""
    width: int | None
    queue: str
    requires: Requirement


class Hub:
    """Leases within each transaction, grants after it."""

    def __init__(self, tell_started: Callable[[int, list[int]], None]) -> None:
        """``tell_started`` is given a job's number and the indices that were leased."""
        self.takers: dict[int, Taker] = {}
        self.on_changes: Callable[[Changes], None] | None = None
        self.processes = Processes()
        self._tell_started = tell_started
        self._lanes: dict[int, Lane] = {}
        self._lanes_of: dict[int, frozenset[int]] = {}
        self._beside: set[int] = set()
        """Lanes whose tasks wait for no slot."""
        self._maybe_ready: set[int] = set()
        self._jobs: OrderedDict[int, _JobFacts] = OrderedDict()
        self._widths = Widths()
        self._grants: list[tuple[Taker, list[Lease], dict[int, _JobFacts]]] = []
        """Leases of the transaction that were not sent."""
        self._sent: list[tuple[Taker, list[Lease], dict[int, _JobFacts]]] = []
        """Leases that were sent before their transaction was written."""
        self._granted: list[tuple[Taker, list[Lease], dict[int, _JobFacts]]] = []
        """Leases that stand, and that clients have not been told of."""
        self._turn = 0

    # who takes -------------------------------------------------------------------------

    def add_taker(self, taker: Taker) -> None:
        """A worker is there (again)."""
        self.takers[taker.session] = taker
        self._lanes_of.pop(taker.session, None)

    def remove_taker(self, taker: Taker) -> None:
        """A worker's connection is gone; what it holds stays counted until it is settled."""
        if self.takers.get(taker.session) is taker:
            del self.takers[taker.session]
            self._lanes_of.pop(taker.session, None)

    def forget_session(self, session: int) -> None:
        """A worker's session has ended and holds nothing any more."""
        self._widths.forget(session)
        self.processes.forget(session)

    def has_work_for(self, taker: Taker) -> bool:
        """Whether a lane that the taker serves may have ready tasks."""
        return not self._maybe_ready.isdisjoint(self._lanes_for(taker))

    def has_idle_slot(self) -> bool:
        """Whether some slot runs nothing, or there is none at all.

        Of many workers only a few are asked: it is asked for often, and what to do matters little.
        """
        takers = self.takers
        few = islice(takers.values(), ASKED)
        return not takers or any(taker.held < taker.slots for taker in few)

    def let_go(
        self, taker: Taker | None, session: int, leases: Iterable[m.Held | m.Attempt | Lease]
    ) -> None:
        """Tasks left a worker: finished, given back or revoked."""
        processes = self.processes
        tasks = [
            lease.task
            for lease in leases
            if not processes.knows_any or not processes.let_go(lease.task, lease.token, session)
        ]
        if taker is not None:
            taker.held = max(0, taker.held - len(tasks))
        for job, count in _counts(tasks).items():
            facts = self._jobs.get(job)
            if facts is not None and facts.context is not None:
                self._widths.narrow(facts.context, session, count)

    # in the transaction -----------------------------------------------------------------

    def assign(self, store: Store, now: float) -> bool:
        """Lease what is ready to workers with room; whether there are leases to be sent."""
        if store.woken:
            self._notice(store)
        if self._maybe_ready:
            self._assign_ready(store, now)
        return bool(self._grants)

    def _assign_ready(self, store: Store, now: float) -> None:
        if self._beside:
            for lane in self._maybe_ready & self._beside:
                self._lease_beside(store, lane, now)
        hungry = [taker for taker in self.takers.values() if taker.room > 0]
        if not hungry:
            return
        if len(hungry) > 1:
            self._turn += 1
            start = self._turn % len(hungry)
            hungry = hungry[start:] + hungry[:start]
        # First every idle slot, on whatever worker; only then tasks to keep in hand.
        for taker in hungry:
            self._lease(store, taker, min(taker.room, taker.slots - taker.held, SHARE), now)
        while hungry and self._maybe_ready:
            hungry = [
                taker
                for taker in hungry
                if taker.room > 0 and self._lease(store, taker, min(taker.room, SHARE), now)
            ]

    def grant(self) -> None:
        """Send the leases of the transaction."""
        if not self._grants:
            return
        granted, self._grants = self._grants, []
        self._sent += granted
        for taker, leases, facts in granted:
            jobs = [self._info(fact, taker) for fact in facts.values()]
            taker.grant(m.Grants(jobs, [m.Grant(*lease) for lease in leases]))
        for taker in {taker.session: taker for taker, _, _ in granted}.values():
            taker.flush()

    def published(self) -> None:
        """The transaction is written: what was sent of it stands."""
        self._granted += self._sent
        self._sent.clear()

    def committed(self, changes: Changes) -> None:
        """Tell clients of tasks that start, now that they know their jobs; and of changes."""
        granted, self._granted = self._granted, []
        for _, leases, facts in granted:
            self._tell(leases, facts)
        if self.on_changes is not None:
            self.on_changes(changes)

    def rolled_back(self) -> None:
        """Take the leases of the transaction back, from workers that have them already too."""
        for taker, leases, _ in self._grants:
            taker.room += sum(1 for lease in leases if lease.task not in self.processes)
            self.let_go(taker, taker.session, leases)
        self._grants.clear()
        for taker, leases, _ in self._sent:
            taker.revoke([m.Held(lease.task, lease.token) for lease in leases])
            self.let_go(taker, taker.session, leases)
        self._sent.clear()
        self._maybe_ready.update(self._lanes)

    # facts ----------------------------------------------------------------------------------

    def remember(self, number: int, spec: JobSpec) -> None:
        """Know a job that was just opened without reading it back."""
        self._jobs[number] = _facts(number, spec)
        busy = []
        while len(self._jobs) > JOB_CACHE:
            oldest, facts = self._jobs.popitem(last=False)
            # Of a pool with tasks under way: when they end, its slots have to be free again.
            if facts.context is not None and self._widths.is_busy(facts.context):
                busy.append((oldest, facts))
        self._jobs.update(busy)

    def why_waiting(self, queue: str, requires: Requirement, paused: frozenset[str]) -> str:
        """Why nobody takes tasks of this kind; empty when somebody can."""
        if queue in paused:
            return f"queue {queue!r} is paused; 'multihost queues resume {queue}' resumes it"
        serving = [t for t in self.takers.values() if not t.queues or queue in t.queues]
        if not self.takers:
            return "no worker is connected; start one with 'multihost worker'"
        if not serving:
            return (
                f"no connected worker serves queue {queue!r}; "
                f"start one with 'multihost worker --queue {queue}'"
            )
        reasons = [missing(requires, taker.offer) for taker in serving]
        if None in reasons:
            return ""
        return f"no connected worker can run it: {'; '.join(sorted({str(r) for r in reasons}))}"

    # within -------------------------------------------------------------------------------

    def _notice(self, store: Store) -> None:
        woken = set(store.woken)
        store.woken.clear()
        if not woken <= self._lanes.keys():
            self._lanes = {lane.number: lane for lane in store.lanes()}
            self._lanes_of.clear()
            self._beside = {n for n, lane in self._lanes.items() if lane.requires.is_beside}
            woken &= self._lanes.keys()
        self._maybe_ready |= woken

    def _lanes_for(self, taker: Taker) -> frozenset[int]:
        known = self._lanes_of.get(taker.session)
        if known is None:
            known = frozenset(
                number
                for number, lane in self._lanes.items()
                if (not taker.queues or lane.queue in taker.queues)
                and missing(lane.requires, taker.offer) is None
            )
            self._lanes_of[taker.session] = known
        return known

    def _lease(self, store: Store, taker: Taker, limit: int, now: float) -> bool:
        """Lease up to ``limit`` tasks to a worker; whether it got as many."""
        if limit < 1:
            return False
        while limit:
            quotas = self._quotas(taker, limit) if self._maybe_ready else None
            if not quotas:
                return False
            # So many that no pool gets more than its quota, whichever lanes they come from.
            limit -= self._lease_from(store, set(quotas), taker, min(quotas.values()), now)
        return True

    def _lease_beside(self, store: Store, lane: int, now: float) -> None:
        """Lease what waits for no slot: all of it, each to the lightest-laden worker."""
        able = [taker for taker in self.takers.values() if lane in self._lanes_for(taker)]
        while able and lane in self._maybe_ready:
            taker = min(able, key=self._burden)
            leases = store.lease({lane}, 1, taker.session, now)
            if not leases:
                self._maybe_ready.discard(lane)
                return
            job = job_of(leases[0].task)
            self.processes.leased(leases[0].task, leases[0].token, taker.session)
            self._grants.append((taker, leases, {job: self._facts_of(store, job)}))

    def _burden(self, taker: Taker) -> tuple[bool, float]:
        return self.processes.burden(taker.session, taker.held, taker.slots, taker.offer)

    def _lease_from(
        self, store: Store, lanes: set[int], taker: Taker, limit: int, now: float
    ) -> int:
        leases = store.lease(lanes, limit, taker.session, now)
        if len(leases) < limit:
            self._maybe_ready -= lanes
        if leases:
            taker.room -= len(leases)
            taker.held += len(leases)
            facts = {}
            for job, count in _counts(lease.task for lease in leases).items():
                facts[job] = self._facts_of(store, job)
                self._widen(taker, facts[job], count)
            self._grants.append((taker, leases, facts))
        return len(leases)

    def _facts_of(self, store: Store, job: int) -> _JobFacts:
        facts = self._jobs.get(job)
        if facts is None:
            row: JobRow | None = store.job(job)
            assert row is not None
            self.remember(job, row.spec)
            facts = self._jobs[job]
        return facts

    def _quotas(self, taker: Taker, limit: int) -> dict[int, int]:
        """Lanes that may have tasks for this worker, and how many of each it may get now."""
        quotas = {}
        for lane in self._maybe_ready & self._lanes_for(taker):
            if lane not in self._beside:
                quota = self._quota(lane, taker, limit)
                if quota > 0:
                    quotas[lane] = min(limit, quota)
        return quotas

    def _quota(self, lane: int, taker: Taker, limit: int) -> int:
        """How many tasks a pool of limited width may still send to this worker.

        More than its share of the worker's slots gets to would only take the room
        of others there: of a pool's own tasks' tasks, for instance.
        """
        context = self._lanes[lane].requires.context
        if context is None:
            return limit
        reserved = self._reserved(context, taker) if len(self.takers) > 1 else 0
        share = self._widths.share(context, taker.session, taker.slots, reserved)
        if share is None:
            return 1  # how wide it is, is known when its first task is leased
        tasks_a_slot = max(1, (taker.room + taker.held) // taker.slots)
        return share * tasks_a_slot - self._widths.held(context, taker.session)

    def _reserved(self, context: str, taker: Taker) -> int:
        """Slots free where a pool was served last, if that was elsewhere."""
        homes = [self.takers.get(session) for session in self._widths.homes(context)]
        return sum(
            1
            for home in homes
            if home and home is not taker and home.room and home.slots > home.held
        )

    def _widen(self, taker: Taker, facts: _JobFacts, count: int) -> None:
        if facts.context is not None and facts.width is not None:
            self._widths.widen(facts.context, facts.width, taker.session, taker.slots, count)

    def _tell(self, leases: list[Lease], facts: dict[int, _JobFacts]) -> None:
        started: dict[int, list[int]] = {job: [] for job in facts}
        for lease in leases:
            started[job_of(lease.task)].append(index_of(lease.task))
        for job, indices in started.items():
            self._tell_started(job, indices)

    def _info(self, facts: _JobFacts, taker: Taker) -> m.JobInfo:
        if facts.context is None:
            return facts.info
        slots = self._widths.slots(facts.context, taker.session)
        if slots is None:
            return facts.info
        info = facts.info
        return m.JobInfo(
            info.number,
            info.style,
            info.function,
            info.label,
            info.timeout_s,
            info.context,
            info.wants_output,
            slots,
            facts.context,
            info.ship,
            info.mark,
            info.priority,
        )


def _counts(tasks: Iterable[int]) -> dict[int, int]:
    """How many of the tasks each job has."""
    counts: dict[int, int] = {}
    for task in tasks:
        job = job_of(task)
        counts[job] = counts.get(job, 0) + 1
    return counts


def by_job(finals: Iterable[Final]) -> dict[int, list[m.Outcome]]:
    """Finals as outcomes, grouped by their jobs."""
    groups: dict[int, list[m.Outcome]] = {}
    for task, ending, payload in finals:
        groups.setdefault(job_of(task), []).append(m.Outcome(index_of(task), ending, payload))
    return groups


def _facts(number: int, spec: JobSpec) -> _JobFacts:
    info = m.JobInfo(
        number,
        spec.style,
        spec.function,
        spec.label,
        spec.timeout_s,
        spec.context,
        spec.wants_output,
        ship=spec.ship,
        mark=spec.mark,
        priority=spec.priority,
    )
    context = spec.requires.context if spec.width is not None else None
    return _JobFacts(info, context, spec.width, spec.queue, spec.requires)
