"""The checker is checked: with a bug planted in the store, comparing it with the model fails.

Takes about a minute, so it runs only where ``MULTIHOST_PROPERTY_EXAMPLES`` asks for more than
the everyday checks.
"""

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from multihost.store.base import SessionInfo
from multihost.store.sqlite import (
    SQLiteStore,
    book,
    cancel,
    file,
    finish,
    itembook,
    items,
    journal,
    keys,
    lease,
    memtable,
    progress,
    prune,
    settling,
    side,
    submit,
)
from multihost.store.sqlite.transaction import Transactions
from multihost.wire.message import Held

from test_store_items import ItemMachine  # isort: skip - beside this file
from test_store_model import StoreMachine  # isort: skip - beside this file

pytestmark = [
    pytest.mark.skipif(
        "MULTIHOST_PROPERTY_EXAMPLES" not in os.environ, reason="for campaigns; see above"
    ),
    pytest.mark.timeout(300),
]

Patch = pytest.MonkeyPatch


def durable_commits_are_not_flushed(patch: Patch) -> None:
    patch.setattr(file.DatabaseFile, "sync", lambda self: None)


def any_token_will_do(patch: Patch) -> None:
    patch.setattr(
        finish, "_matched", lambda book, attempt, tally: book.running.pop(attempt.task, None)
    )


def any_worker_s_word_is_taken(patch: Patch) -> None:
    plain = finish._matched

    def matched(book: book.Book, attempt: finish.Attempt, tally: finish._Tally) -> object:
        run = book.running.get(attempt.task)
        if run is not None:
            tally.session = run[1]
        return plain(book, attempt, tally)

    patch.setattr(finish, "_matched", matched)


def anybody_gives_tasks_back(patch: Patch) -> None:
    plain = lease.release

    def release(book: book.Book, session: int, held: list[Held], now: float) -> list[Held]:
        every = {book.running[it.task][1] for it in held if it.task in book.running}
        return [it for number in every | {session} for it in plain(book, number, held, now)]

    patch.setattr(lease, "release", release)


def anybody_prints_for_a_task(patch: Patch) -> None:
    plain = side.append_output

    def append(book: book.Book, session: int, held: Held, *rest: object, **limit: int) -> bool:
        run = book.running.get(held.task)
        return plain(book, session if run is None else run[1], held, *rest, **limit)

    patch.setattr(side, "append_output", append)


def any_key_goes_on_with_a_session(patch: Patch) -> None:
    plain = side.open_session

    def open_session(book: book.Book, info: SessionInfo, now: float) -> object:
        free = msgspec.structs.replace(info, key="")
        if plain(book, free, now) is None:
            book.run("UPDATE sessions SET info = ? WHERE uid = ?", (side.encode(free), info.uid))
        return plain(book, info, now)

    patch.setattr(side, "open_session", open_session)


def tokens_begin_anew_at_each_opening(patch: Patch) -> None:
    plain = SQLiteStore._begin_epoch

    def begin_epoch(self: SQLiteStore) -> None:
        plain(self)
        self.epoch = 1

    patch.setattr(SQLiteStore, "_begin_epoch", begin_epoch)


def a_rollback_keeps_leases(patch: Patch) -> None:
    plain = book.Book.reload

    def reload(self: book.Book) -> None:
        kept = self.running
        plain(self)
        self.running = kept or self.running

    patch.setattr(book.Book, "reload", reload)


def a_rollback_keeps_jobs(patch: Patch) -> None:
    plain = book.Book.reload

    def reload(self: book.Book) -> None:
        kept = dict(self._jobs)
        plain(self)
        self._jobs.update(kept)

    patch.setattr(book.Book, "reload", reload)


def released_tasks_keep_their_keys_place(patch: Patch) -> None:
    patch.setattr(lease, "settle_keys", lambda book, now: book.key_changes.clear())


def expired_tasks_are_leased(patch: Patch) -> None:
    patch.setattr(lease, "_READY", lease._READY.replace("expires > ?", "expires > ? - 1e9"))


def priorities_are_upside_down(patch: Patch) -> None:
    patch.setattr(lease, "_BEST_FIRST", " ORDER BY rank DESC, seq LIMIT ?")


def payloads_of_named_jobs_are_forgotten(patch: Patch) -> None:
    patch.setattr(finish, "_SUCCEED", finish._SUCCEED_AND_DROP)


def references_only_grow(patch: Patch) -> None:
    plain = book.Book.refer
    patch.setattr(
        book.Book, "refer", lambda self, digest, count=1: plain(self, digest, max(count, 0))
    )


def the_last_index_is_forgotten(patch: Patch) -> None:
    plain = submit._insert

    def insert(book: book.Book, batch: submit.Batch, now: float) -> None:
        before = batch.job.next_index
        plain(book, batch, now)
        batch.job.next_index = before

    patch.setattr(submit, "_insert", insert)


def nobody_is_woken_at_a_time(patch: Patch) -> None:
    patch.setattr(book.Book, "wake_by", lambda self, at: None)


def nobody_is_woken_by_a_key(patch: Patch) -> None:
    plain = keys._unpark

    def unpark(book: book.Book, key: object, count: int) -> None:
        before = set(book.woken)
        plain(book, key, count)
        book.woken.intersection_update(before)

    patch.setattr(keys, "_unpark", unpark)


def a_rolled_back_alarm_is_lost(patch: Patch) -> None:
    patch.setattr(progress, "next_time", lambda book: book.wake_at)


def a_cancelled_task_goes_on_running(patch: Patch) -> None:
    patch.setattr(cancel, "_running", lambda book, number: [])


def dependents_of_failures_are_let_go(patch: Patch) -> None:
    plain = progress.settle

    def settle(book: book.Book, job: object, what: settling.What, now: float) -> object:
        return plain(book, job, settling.What.CANCEL, now)

    patch.setattr(progress, "settle", settle)


def counters_forget_what_was_taken(patch: Patch) -> None:
    plain = prune.take

    def take(book: book.Book, number: int, upto: int) -> int:
        dropped = plain(book, number, upto)
        job = book.job(number)
        if job is not None:
            job.dropped -= dropped
        return dropped

    patch.setattr(prune, "take", take)


def a_retry_keeps_its_old_faults(patch: Patch) -> None:
    patch.setattr(
        cancel,
        "_RETRY",
        "UPDATE tasks SET state = 1, place = ?, due = NULL, expires = NULL WHERE id = ?",
    )


def a_lost_taker_s_items_stay_held_in_the_file(patch: Patch) -> None:
    plain = memtable.Memtable.write

    def write(self: memtable.Memtable, many: object, holds: Callable[[int], Any]) -> None:
        self.held = {item: None for item in self.held if holds(item)[1] is not None}
        plain(self, many, holds)

    patch.setattr(memtable.Memtable, "write", write)


def a_rollback_keeps_holds(patch: Patch) -> None:
    plain = itembook.ItemBook.reload

    def reload(self: itembook.ItemBook) -> None:
        kept = dict(getattr(self, "holds", {}))
        plain(self)
        for item, hold in kept.items():
            # Of items that the rollback took away the store would trip over its own feet.
            if hold.holder and self._run("SELECT 1 FROM items WHERE id = ?", (item,)).get:
                self.note(item, hold)

    patch.setattr(itembook.ItemBook, "reload", reload)


def what_came_back_comes_last(patch: Patch) -> None:
    plain = itembook.ItemBook.next_returned

    def next_returned(self: itembook.ItemBook, queue: itembook.ItemQueue, limit: int) -> list[int]:
        is_all_that_waits = queue.waiting == len(queue.returned)
        return plain(self, queue, limit) if is_all_that_waits else []

    patch.setattr(itembook.ItemBook, "next_returned", next_returned)


def anybody_may_confirm(patch: Patch) -> None:
    patch.setattr(itembook.ItemBook, "is_held", lambda self, item, taker: item in self.holds)


def confirmed_items_keep_their_blobs(patch: Patch) -> None:
    plain = items.Hold

    def hold(holder: int, call: int, attempt: int, digest: bytes | None) -> itembook.Hold:
        return plain(holder, call, attempt, None)

    patch.setattr(items, "Hold", hold)


def dropped_items_keep_their_blobs(patch: Patch) -> None:
    patch.setattr(items, "_BLOBS", items._BLOBS + " AND 0")


def a_full_queue_is_filled_after_the_confirmation(patch: Patch) -> None:
    plain = items._refusal

    def refusal(book: book.Book, taker: int, act: items.Exchange) -> object:
        found = plain(book, taker, act)
        if getattr(found, "end", None) is items.ExchangeEnd.FULL:
            items._confirm(book, dict.fromkeys(act.confirms))
        return found

    patch.setattr(items, "_refusal", refusal)


def counters_of_items_are_never_written(patch: Patch) -> None:
    patch.setattr(itembook.ItemBook, "write", lambda self: None)


def a_late_taker_keeps_its_answer(patch: Patch) -> None:
    patch.setattr(items, "lose_taker", items._lose)


def calls_are_not_told_apart(patch: Patch) -> None:
    plain = items._take

    def take(
        book: book.Book, queue: itembook.ItemQueue, limit: int, taker: int, call: int
    ) -> object:
        return plain(book, queue, limit, taker, 1)

    patch.setattr(items, "_take", take)


def the_journal_is_not_flushed(patch: Patch) -> None:
    patch.setattr(journal.Journal, "sync", lambda self: None)


def generations_never_end(patch: Patch) -> None:
    patch.setattr(Transactions, "_turn", lambda self: None)


def a_lap_is_written_over_too_early(patch: Patch) -> None:
    patch.setattr(journal, "LAP_BYTES", 0)
    plain = Transactions._commit_database

    def commit(self: Transactions) -> None:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(file.DatabaseFile, "sync", lambda self: None)
            plain(self)

    patch.setattr(Transactions, "_commit_database", commit)


def a_rollback_forgets_the_journal(patch: Patch) -> None:
    plain = Transactions.rollback

    def rollback(self: Transactions) -> None:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(self, "_replay", lambda: None)
            plain(self)

    patch.setattr(Transactions, "rollback", rollback)


PLANTED_IN_ITEMS = (
    the_journal_is_not_flushed,
    generations_never_end,
    a_lap_is_written_over_too_early,
    a_rollback_forgets_the_journal,
    durable_commits_are_not_flushed,
    a_lost_taker_s_items_stay_held_in_the_file,
    a_rollback_keeps_holds,
    what_came_back_comes_last,
    anybody_may_confirm,
    confirmed_items_keep_their_blobs,
    dropped_items_keep_their_blobs,
    a_full_queue_is_filled_after_the_confirmation,
    counters_of_items_are_never_written,
    a_late_taker_keeps_its_answer,
    calls_are_not_told_apart,
)
PLANTED = (
    durable_commits_are_not_flushed,
    any_token_will_do,
    any_worker_s_word_is_taken,
    anybody_gives_tasks_back,
    anybody_prints_for_a_task,
    any_key_goes_on_with_a_session,
    tokens_begin_anew_at_each_opening,
    a_rollback_keeps_leases,
    a_rollback_keeps_jobs,
    released_tasks_keep_their_keys_place,
    expired_tasks_are_leased,
    priorities_are_upside_down,
    payloads_of_named_jobs_are_forgotten,
    references_only_grow,
    the_last_index_is_forgotten,
    nobody_is_woken_at_a_time,
    nobody_is_woken_by_a_key,
    a_rolled_back_alarm_is_lost,
    a_cancelled_task_goes_on_running,
    dependents_of_failures_are_let_go,
    counters_forget_what_was_taken,
    a_retry_keeps_its_old_faults,
)


MACHINES = [(plant, StoreMachine) for plant in PLANTED]
MACHINES += [(plant, ItemMachine) for plant in PLANTED_IN_ITEMS]


@pytest.mark.parametrize(
    ("plant", "machine"), MACHINES, ids=[f"{m.__name__}-{p.__name__}" for p, m in MACHINES]
)
def test_a_planted_bug_is_found(
    plant: Callable[[Patch], None], machine: type[StoreMachine], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=1000,
                stateful_step_count=100,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
