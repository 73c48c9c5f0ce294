"""Queues of items: what an exchange does, and what it refuses whole."""
# ruff: noqa: PLR2004 - the numbers in a test are its example

from collections.abc import Iterable
from typing import Any

import pytest

from multihost.core.ids import queue_of, taker_id
from multihost.store.items import TAKE_BYTES
from multihost.testing.owner import Owner
from multihost.wire.act import (
    Confirm,
    Exchange,
    Exchanged,
    ExchangeEnd,
    Finish,
    Item,
    Put,
    RejectCode,
    Rejected,
)
from multihost.wire.message import Blob, Payload

ONE, OTHER = taker_id(7, 1), taker_id(8, 1)
BLOB = Blob(b"b" * 32, 5)
ANY = 100


class Counter:
    """Where takers come to a store: each exchange is a call and a transaction of its own."""

    def __init__(self, owner: Owner) -> None:
        """Calls are numbered from 1."""
        self.owner = owner
        self.calls = 0

    def queue(self, name: str = "q", limit: int = 0, **more: Any) -> int:
        """Number of a queue, which is made when there is none."""
        confirm, owner = more.get("confirm", Confirm.NEXT), more.get("owner")
        row, _ = self.owner.do("open_item_queue", name, limit, confirm, owner)
        number: int = row.number
        return number

    def exchange(self, taker: int = ONE, **parts: Any) -> Any:
        """Do an exchange: Exchanged or Rejected."""
        self.calls += 1
        return self.owner.do("exchange", taker, self.calls, Exchange(**parts), self.owner.now)

    def put(self, queue: int, *payloads: Payload) -> Any:
        """Put items."""
        return self.exchange(puts=[Put(queue, list(payloads))])

    def take(self, queue: int, limit: int = 1, taker: int = ONE) -> list[Item]:
        """Take items; an empty list when there are none."""
        items: list[Item] = self.exchange(taker, take=queue, limit=limit).items
        return items

    def counts(self, queue: int) -> tuple[int, int, int, int, int]:
        """Waiting, held, unfinished, ever put, confirmed."""
        row = self.owner.store.item_queue(queue)
        assert row is not None
        return row.waiting, row.held, row.unfinished, row.put, row.confirmed


def payloads_of(items: Iterable[Item]) -> list[Payload]:
    """What the items carry."""
    return [item.payload for item in items]


def first_bytes_of(items: Iterable[Item]) -> list[bytes]:
    """How what the items carry begins."""
    return [item.payload[:1] for item in items if isinstance(item.payload, bytes)]


def numbers_of(items: Iterable[Item]) -> list[int]:
    """The items' numbers."""
    return [item.number for item in items]


class ExchangeTests:
    """``open_item_queue``, ``exchange``, ``close_item_queue``, ``drop_item_queue``."""

    # queues ------------------------------------------------------------------------------

    def test_a_queue_keeps_the_settings_it_was_made_with(self, owner: Owner) -> None:
        made, is_new = owner.do("open_item_queue", "q", 3, Confirm.TASK_DONE, None)
        owner.reopen()
        found, is_still_new = owner.do("open_item_queue", "q", 9, Confirm.GET, 1)
        assert (is_new, is_still_new, found) == (True, False, made)
        assert (found.limit, found.confirm, found.owner) == (3, Confirm.TASK_DONE, None)
        assert owner.store.find_item_queue("q") == owner.store.item_queue(found.number) == found

    def test_queues_are_listed_by_name_without_transient_ones(self, owner: Owner) -> None:
        counter = Counter(owner)
        for name in ("b", "a", "c"):
            counter.queue(name, owner=7 if name == "c" else None)
        assert [row.name for row in owner.store.item_queues()] == ["a", "b"]

    def test_a_queue_that_does_not_exist_is_none_and_takes_part_in_nothing(
        self, owner: Owner
    ) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        assert owner.store.item_queue(99) is None
        assert owner.store.find_item_queue("nowhere") is None
        put = Put(queue, [b"1"])
        for refused in (
            counter.exchange(puts=[put], take=99),
            counter.exchange(puts=[put], finishes=[Finish(99)]),
            counter.exchange(puts=[put, Put(99, [b"1"])]),
        ):
            assert refused.code is RejectCode.NOT_FOUND
        assert counter.counts(queue) == (0, 0, 0, 0, 0)
        owner.do("close_item_queue", 99)
        owner.do("drop_item_queue", 99)

    # order -------------------------------------------------------------------------------

    def test_items_are_taken_in_the_order_they_were_put(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1", b"2")
        counter.put(queue, b"3")
        assert payloads_of(counter.take(queue, 2)) == [b"1", b"2"]
        assert payloads_of(counter.take(queue)) == [b"3"]
        assert counter.exchange(take=queue) == Exchanged(ExchangeEnd.EMPTY)

    def test_an_item_is_in_one_taker_s_hands(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1", b"2")
        first = counter.take(queue, ANY)
        assert counter.take(queue, ANY, OTHER) == []
        assert {queue_of(item.number) for item in first} == {queue}
        assert counter.counts(queue) == (0, 2, 2, 2, 0)

    def test_what_came_back_comes_first_and_counts_its_attempts(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1", b"2", b"3", b"4")
        items = counter.take(queue, 3)
        counter.exchange(returns=[items[2].number, items[0].number])
        owner.reopen()
        again = counter.take(queue, ANY, OTHER)
        assert [(item.payload, item.attempt) for item in again] == [
            (b"1", 2),
            (b"3", 2),
            (b"4", 1),
        ]

    def test_queues_do_not_mix(self, owner: Owner) -> None:
        counter = Counter(owner)
        first, second = counter.queue("first"), counter.queue("second")
        counter.exchange(puts=[Put(first, [b"1"]), Put(second, [b"2"]), Put(first, [b"3"])])
        assert payloads_of(counter.take(second, ANY)) == [b"2"]
        assert payloads_of(counter.take(first, ANY)) == [b"1", b"3"]

    # one transaction ---------------------------------------------------------------------

    def test_take_compute_put_is_one_exchange(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue, results = counter.queue(), counter.queue("results")
        counter.put(queue, b"1", b"2")
        (item,) = counter.take(queue)
        done = counter.exchange(confirms=[item.number], puts=[Put(results, [b"one"])], take=queue)
        assert payloads_of(done.items) == [b"2"]
        assert counter.counts(queue) == (0, 1, 2, 2, 1)
        assert counter.counts(results) == (1, 0, 1, 1, 0)

    def test_confirming_what_another_may_have_does_nothing_of_the_exchange(
        self, owner: Owner
    ) -> None:
        counter = Counter(owner)
        queue, results = counter.queue(), counter.queue("results")
        counter.put(queue, b"1", b"2")
        items = counter.take(queue, 2, OTHER)
        owner.do("lose_taker", OTHER)
        counter.take(queue)
        late = counter.exchange(
            OTHER, confirms=numbers_of(items), puts=[Put(results, [b"one"])], take=queue
        )
        assert late == Exchanged(ExchangeEnd.LOST, [], numbers_of(items))
        assert counter.counts(results) == (0, 0, 0, 0, 0)
        assert counter.counts(queue) == (1, 1, 2, 2, 0)

    def test_an_item_is_confirmed_once(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1")
        (item,) = counter.take(queue)
        twice = counter.exchange(confirms=[item.number] * 2, returns=[item.number])
        assert twice.end is ExchangeEnd.OK
        assert counter.exchange(confirms=[item.number]).end is ExchangeEnd.LOST
        assert counter.counts(queue) == (0, 0, 1, 1, 1)

    def test_returning_what_is_not_held_is_no_matter(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1")
        (item,) = counter.take(queue)
        foreign = counter.exchange(OTHER, returns=[item.number, 99])
        assert foreign.end is ExchangeEnd.OK
        assert counter.counts(queue) == (0, 1, 1, 1, 0)
        counter.exchange(returns=[item.number, item.number])
        assert counter.counts(queue) == (1, 0, 1, 1, 0)

    def test_an_empty_exchange_is_well(self, owner: Owner) -> None:
        assert Counter(owner).exchange() == Exchanged(ExchangeEnd.OK)

    def test_a_taker_takes_what_the_same_exchange_put_and_gave_back(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1")
        (item,) = counter.take(queue)
        done = counter.exchange(
            returns=[item.number], puts=[Put(queue, [b"2"])], take=queue, limit=ANY
        )
        assert [(item.payload, item.attempt) for item in done.items] == [(b"1", 2), (b"2", 1)]

    # limits ------------------------------------------------------------------------------

    def test_a_full_queue_takes_nothing_and_does_nothing(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue, bounded = counter.queue(), counter.queue("bounded", 2)
        counter.put(queue, b"1")
        counter.put(bounded, b"a", b"b")
        (item,) = counter.take(queue)
        full = counter.exchange(confirms=[item.number], puts=[Put(bounded, [b"c"])])
        assert full == Exchanged(ExchangeEnd.FULL)
        assert counter.counts(queue) == (0, 1, 1, 1, 0)
        # What is held does not wait: there is room again.
        counter.take(bounded)
        assert counter.put(bounded, b"c").end is ExchangeEnd.OK

    def test_a_full_queue_takes_what_is_to_overfill_it(self, owner: Owner) -> None:
        counter = Counter(owner)
        bounded = counter.queue("bounded", 1)
        counter.put(bounded, b"a")
        more = Exchange(puts=[Put(bounded, [b"b"])])
        owner.do("exchange", ONE, 100, more, owner.now, overfills=True)
        assert counter.put(bounded, b"c").end is ExchangeEnd.FULL
        owner.reopen()
        assert payloads_of(counter.take(bounded, limit=9)) == [b"a", b"b"]

    def test_two_puts_of_one_exchange_share_the_room(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue("bounded", 2)
        counter.put(queue, b"1")
        parts = [Put(queue, [b"2"]), Put(queue, [b"3"])]
        assert counter.exchange(puts=parts).end is ExchangeEnd.FULL
        assert counter.exchange(puts=parts[:1]).end is ExchangeEnd.OK

    def test_more_than_the_whole_limit_goes_into_an_empty_queue_only(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue("bounded", 2)
        assert counter.put(queue, b"1", b"2", b"3").end is ExchangeEnd.OK
        assert counter.put(queue, b"4", b"5", b"6").end is ExchangeEnd.FULL
        counter.take(queue, 3)
        assert counter.put(queue, b"4", b"5", b"6").end is ExchangeEnd.OK

    def test_a_taker_s_own_item_does_not_fill_the_queue_it_goes_back_to(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue("bounded", 1)
        counter.put(queue, b"1")
        (item,) = counter.take(queue)
        counter.put(queue, b"2")
        assert counter.exchange(returns=[item.number]).end is ExchangeEnd.OK
        assert counter.counts(queue)[0] == 2

    def test_a_take_of_large_items_gives_what_one_answer_carries(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, *[letter * (TAKE_BYTES // 2) for letter in (b"a", b"b", b"c")])
        items = counter.take(queue, ANY)
        assert first_bytes_of(items) == [b"a", b"b"]
        assert counter.counts(queue)[:2] == (1, 2)
        # Those that came back wait before the rest, and are bounded likewise.
        counter.exchange(returns=numbers_of(items))
        assert first_bytes_of(counter.take(queue, ANY)) == [b"a", b"b"]
        assert first_bytes_of(counter.take(queue, ANY)) == [b"c"]

    def test_what_did_not_fit_after_it_came_back_still_comes_first(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        sizes = [(b"a", TAKE_BYTES // 2), (b"b", TAKE_BYTES), (b"c", 1)]
        counter.put(queue, *[letter * size for letter, size in sizes])
        items = [item for _ in sizes for item in counter.take(queue)]
        counter.exchange(returns=numbers_of(items))
        counter.put(queue, b"d")
        taken = [first_bytes_of(counter.take(queue, ANY)) for _ in range(3)]
        assert taken == [[b"a"], [b"b"], [b"c", b"d"]]

    def test_an_item_larger_than_an_answer_should_be_is_given_alone(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, *[letter * (TAKE_BYTES + 1) for letter in (b"a", b"b")])
        assert first_bytes_of(counter.take(queue, ANY)) == [b"a"]
        assert first_bytes_of(counter.take(queue, ANY)) == [b"b"]

    # confirming --------------------------------------------------------------------------

    def test_task_done_too_many_times_is_rejected_whole(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1", b"2")
        (item,) = counter.take(queue)
        refused = counter.exchange(confirms=[item.number], finishes=[Finish(queue, 3)])
        assert isinstance(refused, Rejected)
        assert refused.code is RejectCode.TOO_MANY
        assert counter.counts(queue) == (1, 1, 2, 2, 0)
        parts = [Finish(queue), Finish(queue)]
        assert counter.exchange(finishes=parts).end is ExchangeEnd.OK
        assert counter.exchange(finishes=parts[:1]).code is RejectCode.TOO_MANY

    def test_what_is_put_in_an_exchange_may_be_finished_in_it(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        both = counter.exchange(puts=[Put(queue, [b"1"])], finishes=[Finish(queue)])
        assert both.end is ExchangeEnd.OK
        assert counter.counts(queue) == (1, 0, 0, 1, 0)

    def test_items_of_a_queue_that_confirms_at_get_die_with_their_taker(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue(confirm=Confirm.GET)
        counter.put(queue, b"1")
        (item,) = counter.take(queue)
        assert owner.do("lose_taker", ONE) == set()
        assert counter.exchange(confirms=[item.number]).end is ExchangeEnd.LOST
        assert counter.counts(queue) == (0, 0, 1, 1, 1)

    # closing, dropping -------------------------------------------------------------------

    def test_a_closed_queue_gives_out_what_it_has_and_takes_nothing(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1")
        for _ in range(2):
            owner.do("close_item_queue", queue)
        owner.reopen()
        assert counter.put(queue, b"2") == Exchanged(ExchangeEnd.CLOSED)
        (item,) = counter.take(queue)
        assert counter.exchange(take=queue) == Exchanged(ExchangeEnd.CLOSED)
        # What a dead taker held is still given out.
        counter.exchange(returns=[item.number])
        assert numbers_of(counter.take(queue, 1, OTHER)) == [item.number]

    @pytest.mark.parametrize("count", [3, 1200])
    def test_a_dropped_queue_is_gone_at_once_and_its_rows_follow(
        self, owner: Owner, count: int
    ) -> None:
        counter = Counter(owner)
        owner.do("put_blob", BLOB, b"12345", owner.now)
        queue = counter.queue()
        counter.put(queue, *[b"x"] * (count - 1), BLOB)
        (item,) = counter.take(queue)
        owner.do("drop_item_queue", queue)
        assert owner.store.item_queue(queue) is None
        assert owner.store.item_queues() == []
        assert counter.exchange(confirms=[item.number]).end is ExchangeEnd.LOST
        assert owner.do("lose_taker", ONE) == set()
        other = counter.queue()
        assert other != queue
        owner.reopen()
        assert counter.counts(other) == (0, 0, 0, 0, 0)
        while owner.do("prune", owner.now, 200):
            pass
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == [BLOB]

    # blobs -------------------------------------------------------------------------------

    def test_an_item_keeps_its_blob_until_it_is_confirmed(self, owner: Owner) -> None:
        counter = Counter(owner)
        owner.do("put_blob", BLOB, b"12345", owner.now)
        queue = counter.queue()
        counter.put(queue, BLOB, b"small", BLOB)
        items = counter.take(queue, ANY)
        assert payloads_of(items) == [BLOB, b"small", BLOB]
        counter.exchange(confirms=numbers_of(items[:2]))
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == []
        counter.exchange(confirms=numbers_of(items[2:]))
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == [BLOB]

    def test_a_blob_goes_from_one_queue_to_the_next_in_one_exchange(self, owner: Owner) -> None:
        counter = Counter(owner)
        owner.do("put_blob", BLOB, b"12345", owner.now)
        queue, results = counter.queue(), counter.queue("results", confirm=Confirm.GET)
        counter.put(queue, BLOB)
        counter.exchange(confirms=numbers_of(counter.take(queue)), puts=[Put(results, [BLOB])])
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == []
        assert payloads_of(counter.take(results)) == [BLOB]
        assert owner.do("unused_blobs", owner.now + 1.0, ANY) == [BLOB]

    @pytest.mark.parametrize("blob", [Blob(b"n" * 32, 5), Blob(BLOB.digest, 6)])
    def test_a_blob_that_is_not_stored_in_that_size_puts_nothing(
        self, owner: Owner, blob: Blob
    ) -> None:
        counter = Counter(owner)
        owner.do("put_blob", BLOB, b"12345", owner.now)
        queue = counter.queue()
        assert counter.put(queue, b"1", blob).code is RejectCode.BAD_REQUEST
        assert counter.counts(queue) == (0, 0, 0, 0, 0)
