"""Random exchanges on SQLite and on the model agree, whatever is rolled back, reopened or killed.

Beside the machine of ``test_store_model``, whose deaths and transactions it
has: the same process is killed at any write, and the power fails.
"""

# ruff: noqa: FBT001 - hypothesis calls rules by keyword

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from test_store_model import BIT, BLOBS, EXAMPLES, PAYLOADS, SIZES, STEPS, StoreMachine

from multihost.core.ids import taker_id
from multihost.store.base import Store
from multihost.store.sqlite import journal, memtable
from multihost.wire.act import Confirm, Exchange, Finish, Kind, Put

pytestmark = pytest.mark.timeout(300)

TAKERS = [taker_id(session, taker) for session in (1, 2) for taker in (1, 2)]
NOBODY = taker_id(9, 1)
NAMES = ["q", "r", "s"]
takers = st.sampled_from(TAKERS)
some_payloads = st.lists(st.sampled_from([*PAYLOADS[:4], *PAYLOADS]), max_size=4)


class ItemMachine(StoreMachine):
    """Takers, with the deaths and transactions of the other machine but no jobs."""

    open_job = add_tasks = submit = submit_and_lease = seal_job = None
    lease = lease_all = lease_and_finish = finish = finish_well = give_back = vanish = None
    cancel = retry = take = append_output = set_queue = meddle = None

    def open_both(self) -> None:
        super().open_both()
        if hasattr(self, "has_queues"):
            return
        self.has_queues = True
        self.both("open_item_queue", "q", 0, Confirm.NEXT, None)
        self.both("open_item_queue", "r", 2, Confirm.TASK_DONE, None)

    def view(self, store: Store) -> dict[str, Any]:
        found = super().view(store)
        rows = [store.find_item_queue(name) for name in NAMES]
        calls = [store.taken(taker, call) for taker in TAKERS for call in range(4)]
        answers = [store.taker(taker) for taker in TAKERS], store.takers(1), store.takers(2)
        found["items"] = [rows, store.item_queues(), calls, answers, store.synchronizers()]
        return found

    def hidden(self, store: Store) -> Any:
        """Also what would be taken next, and what the next numbers are."""
        ages = super().hidden(store)
        store.begin()
        queues = [row for row in map(store.find_item_queue, NAMES) if row is not None]
        waiting = [
            store.exchange(NOBODY, 1, Exchange(take=row.number, limit=10_000), self.now)
            for row in queues
        ]
        queue, _ = store.open_item_queue("next", 0, Confirm.NEXT, None)
        lock, _ = store.open_synchronizer(Kind.LOCK, "next", None, b"")
        store.rollback()
        return ages, waiting, queue.number, lock.number

    def queue(self, choice: int) -> int:
        queues = sorted(self.model._data.item_queues) or [99]
        return queues[choice % len(queues)]

    def of(self, taker: int, choices: list[int]) -> list[int]:
        """Items, most of which the taker holds."""
        queues = self.model._data.item_queues.values()
        held = [item for queue in queues for item in queue.held.values()]
        mine = [item.number for item in held if item.holder == taker]
        pool = sorted(mine) * 3 + sorted(item.number for item in held)[:1]
        return [pool[choice % len(pool)] for choice in choices if pool]

    @rule(
        name=st.sampled_from(NAMES),
        limit=st.sampled_from([0, 0, 2]),
        confirm=st.sampled_from([*Confirm, Confirm.NEXT]),
        owner=st.sampled_from([None, None, 1]),
    )
    def open_item_queue(self, name: str, limit: int, confirm: Confirm, owner: int | None) -> None:
        self.both("open_item_queue", name, limit, confirm, owner)

    @rule(taker=takers, call=SIZES, queue=SIZES, payloads=some_payloads, limit=SIZES)
    def put_and_take(
        self, taker: int, call: int, queue: int, payloads: list[Any], limit: int
    ) -> None:
        number = self.queue(queue)
        self.exchange(taker, call % 4, Exchange(puts=[Put(number, payloads)]))
        self.exchange(taker, call % 4, Exchange(take=number, limit=limit))

    @rule(
        taker=takers,
        call=SIZES,
        confirms=st.lists(SIZES, max_size=3),
        returns=st.lists(SIZES, max_size=2),
        puts=st.lists(st.tuples(SIZES, some_payloads), max_size=2),
        finishes=st.lists(SIZES, max_size=2),
        take=st.none() | SIZES,
        limit=SIZES,
        overfills=BIT,
    )
    def exchange_much(  # noqa: PLR0917 - hypothesis calls it by keyword
        self,
        taker: int,
        call: int,
        confirms: list[int],
        returns: list[int],
        puts: list[tuple[int, list[Any]]],
        finishes: list[int],
        take: int | None,
        limit: int,
        overfills: bool,
    ) -> None:
        act = Exchange(
            self.of(taker, confirms),
            [item for item in self.of(taker, returns) if item not in self.of(taker, confirms)],
            [Put(self.queue(queue), payloads) for queue, payloads in puts],
            [Finish(self.queue(queue)) for queue in finishes],
            None if take is None else self.queue(take),
            limit,
        )
        self.exchange(taker, call % 4, act, overfills=overfills)

    def exchange(self, taker: int, call: int, act: Exchange, *, overfills: bool = False) -> None:
        expected = self.model.exchange(taker, call, act, self.now, overfills=overfills)
        got = self.store.exchange(taker, call, act, self.now, overfills=overfills)
        assert getattr(got, "code", got) == getattr(expected, "code", expected), act

    @rule(taker=takers, whole_session=BIT)
    def lose(self, taker: int, whole_session: bool) -> None:
        if whole_session:
            self.both("lose_takers", 1)
        else:
            self.both("lose_taker", taker)

    @rule(queue=SIZES, chance=st.integers(0, 9))
    def close_or_drop(self, queue: int, chance: int) -> None:
        if chance < 4:
            verb = "drop_item_queue" if chance < 2 else "close_item_queue"
            self.both(verb, self.queue(queue))

    @rule(name=st.sampled_from(NAMES), state=st.binary(max_size=3), owner=st.none() | st.just(1))
    def synchronize(self, name: str, state: bytes, owner: int | None) -> None:
        row, is_new = self.both("open_synchronizer", Kind.LOCK, name, owner, state)
        if not is_new:
            self.both("save_synchronizer", row.number, state)

    @rule(taker=takers, call=SIZES, answer=st.binary(max_size=3))
    def note(self, taker: int, call: int, answer: bytes) -> None:
        self.both("note_answer", taker, call, answer)

    @rule(number=st.integers(1, 9))
    def drop(self, number: int) -> None:
        if number == 1:
            self.both("drop_transients", 1)
        else:
            self.both("drop_synchronizer", number)

    @rule()
    def keep_blobs(self) -> None:
        for blob in BLOBS:
            self.both("put_blob", blob, b"data", self.now)


@pytest.mark.parametrize("is_short", [False, True])
def test_sqlite_agrees_with_the_model_on_items(
    is_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_short:
        # Laps end, memory is written down, and records are too long, all the time.
        for name, value in (("JOURNAL_BYTES", 900), ("LAP_BYTES", 300), ("RECORD_BYTES", 150)):
            monkeypatch.setattr(journal, name, value)
        monkeypatch.setattr(memtable, "HEAVY_ROWS", 6)
    run_state_machine_as_test(
        ItemMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
