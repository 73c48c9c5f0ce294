"""Claims about queues of items and synchronizers in SQLite."""

import os
from pkgutil import get_data

import apsw
import pytest

from multihost.core.ids import taker_id
from multihost.store.sqlite import open_store
from multihost.store.sqlite.items import FEW_ITEMS
from multihost.wire.act import (
    Confirm,
    Exchange,
    ExchangeEnd,
    Finish,
    Kind,
    Put,
    RejectCode,
    Rejected,
)
from multihost.wire.message import Blob, Role

ONE, OTHER = taker_id(7, 1), taker_id(8, 1)


class Shop:
    """A store, with a transaction around each verb."""

    def __init__(self, path):
        self.path = path
        self.store = open_store(path)
        self.calls = 0

    def __call__(self, verb, *args):
        self.store.begin()
        result = getattr(self.store, verb)(*args)
        self.store.prepare(1.0)
        self.store.commit(is_durable=True)
        return result

    def queue(self, name="q", limit=0, confirm=Confirm.NEXT, owner=None):
        row, _ = self("open_item_queue", name, limit, confirm, owner)
        return row.number

    def exchange(self, taker=ONE, **parts):
        self.calls += 1
        return self("exchange", taker, self.calls, Exchange(**parts), 1.0)

    def put(self, queue, *payloads):
        return self.exchange(puts=[Put(queue, list(payloads))])

    def take(self, queue, taker=ONE, limit=1):
        return self.exchange(taker, take=queue, limit=limit).items

    def reopen(self):
        self.store.close()
        self.store = open_store(self.path)

    def counts(self, queue):
        row = self.store.item_queue(queue)
        return row.waiting, row.held, row.unfinished, row.put, row.confirmed


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "store.sqlite")
    yield shop
    assert shop.store.verify() == []
    shop.store.close()


def payloads(items):
    return [item.payload for item in items]


def test_items_are_taken_in_the_order_they_were_put(shop):
    queue = shop.queue()
    shop.put(queue, b"1", b"2")
    shop.put(queue, b"3")
    assert payloads(shop.take(queue, limit=2)) == [b"1", b"2"]
    assert payloads(shop.take(queue)) == [b"3"]
    assert shop.exchange(take=queue).end is ExchangeEnd.EMPTY


def test_a_lost_taker_s_items_come_first_again_after_a_restart_too(shop):
    queue = shop.queue()
    shop.put(queue, b"1", b"2", b"3")
    shop.take(queue, OTHER, 2)
    assert shop("lose_taker", OTHER) == {queue}
    shop.reopen()
    again = shop.take(queue, limit=3)
    assert [(item.payload, item.attempt) for item in again] == [(b"1", 2), (b"2", 2), (b"3", 1)]


def test_what_is_held_is_still_held_after_a_restart(shop):
    queue = shop.queue()
    shop.put(queue, b"1", b"2")
    (item,) = shop.take(queue)
    call = shop.calls
    shop.reopen()
    assert shop("taken", ONE, call) == [item]
    assert payloads(shop.take(queue, OTHER, 9)) == [b"2"]


def test_confirming_what_another_holds_by_now_does_nothing_of_the_exchange(shop):
    queue, results = shop.queue(), shop.queue("results")
    shop.put(queue, b"1")
    (item,) = shop.take(queue, OTHER)
    shop("lose_takers", 8)
    shop.take(queue)
    late = shop.exchange(OTHER, confirms=[item.number], puts=[Put(results, [b"one"])])
    assert (late.end, late.lost) == (ExchangeEnd.LOST, [item.number])
    assert shop.counts(results)[0] == 0


def test_take_compute_put_is_one_exchange(shop):
    queue, results = shop.queue(), shop.queue("results")
    shop.put(queue, b"1", b"2")
    (item,) = shop.take(queue)
    done = shop.exchange(confirms=[item.number], puts=[Put(results, [b"one"])], take=queue)
    assert payloads(done.items) == [b"2"]
    assert (shop.counts(queue), shop.counts(results)[0]) == ((0, 1, 2, 2, 1), 1)


def test_a_full_queue_takes_nothing_and_does_nothing(shop):
    queue, bounded = shop.queue(), shop.queue("bounded", 2)
    shop.put(queue, b"1")
    shop.put(bounded, b"a", b"b")
    (item,) = shop.take(queue)
    full = shop.exchange(confirms=[item.number], puts=[Put(bounded, [b"c"])])
    assert (full.end, shop.counts(queue)[1]) == (ExchangeEnd.FULL, 1)
    shop.take(bounded)
    assert shop.put(bounded, b"c").end is ExchangeEnd.OK


def test_task_done_too_many_times_is_rejected(shop):
    queue = shop.queue()
    shop.put(queue, b"1")
    assert shop.exchange(finishes=[Finish(queue)]).end is ExchangeEnd.OK
    refused = shop.exchange(finishes=[Finish(queue)])
    assert isinstance(refused, Rejected)
    assert refused.code is RejectCode.TOO_MANY


def test_items_of_a_queue_that_confirms_at_get_are_gone_when_taken(shop):
    queue = shop.queue(confirm=Confirm.GET)
    shop.put(queue, b"1")
    shop.take(queue)
    shop("lose_taker", ONE)
    assert shop.counts(queue) == (0, 0, 1, 1, 1)


def test_a_closed_queue_gives_out_what_it_has_and_takes_nothing(shop):
    queue = shop.queue()
    shop.put(queue, b"1")
    shop("close_item_queue", queue)
    assert shop.put(queue, b"2").end is ExchangeEnd.CLOSED
    assert payloads(shop.take(queue)) == [b"1"]
    assert shop.exchange(take=queue).end is ExchangeEnd.CLOSED


@pytest.mark.parametrize("count", [3, FEW_ITEMS + 5])
def test_a_dropped_queue_is_gone_and_so_are_its_items_and_blobs(shop, count):
    digest = os.urandom(32)
    shop("put_blob", Blob(digest, 5), b"12345", 1.0)
    queue = shop.queue()
    shop.put(queue, *[b"x"] * (count - 1), Blob(digest, 5))
    shop.take(queue)
    shop("drop_item_queue", queue)
    assert shop.store.item_queue(queue) is None
    other = shop.queue()
    assert other != queue
    assert shop.counts(other) == (0, 0, 0, 0, 0)
    while shop("prune", 2.0, 200):
        assert shop.store.verify() == []
    assert shop("unused_blobs", 5.0, 10) == [Blob(digest, 5)]


def test_an_item_keeps_its_blob_until_it_is_confirmed(shop):
    digest = os.urandom(32)
    shop("put_blob", Blob(digest, 5), b"12345", 1.0)
    queue = shop.queue()
    shop.put(queue, Blob(digest, 5))
    (item,) = shop.take(queue)
    assert item.payload == Blob(digest, 5)
    assert shop("unused_blobs", 5.0, 10) == []
    shop.exchange(confirms=[item.number])
    assert shop("unused_blobs", 5.0, 10) == [Blob(digest, 5)]


def test_a_blob_that_is_not_stored_puts_nothing(shop):
    queue = shop.queue()
    refused = shop.put(queue, b"1", Blob(os.urandom(32), 5))
    assert (refused.code, shop.counts(queue)[0]) == (RejectCode.BAD_REQUEST, 0)


def test_a_rolled_back_exchange_never_was(shop):
    queue = shop.queue()
    shop.put(queue, b"1", b"2")
    shop.store.begin()
    shop.store.exchange(ONE, 1, Exchange(take=queue, puts=[Put(queue, [b"3"])]), 1.0)
    shop.store.open_item_queue("other", 0, Confirm.NEXT, None)
    shop.store.rollback()
    assert shop.store.find_item_queue("other") is None
    assert shop.counts(queue) == (2, 0, 2, 2, 0)
    assert payloads(shop.take(queue, limit=5)) == [b"1", b"2"]


def test_transients_go_with_their_session_and_others_stay(shop):
    mine, everyone_s = shop.queue("mine", owner=7), shop.queue("everyone's")
    lock, _ = shop("open_synchronizer", Kind.LOCK, "lock", 7, b"state")
    assert shop("drop_transients", 7) == ([mine], [lock.number])
    assert [row.number for row in shop.store.item_queues()] == [everyone_s]
    assert shop("synchronizers") == []


def test_a_synchronizer_keeps_its_state_and_a_taker_its_answer(shop):
    lock, is_new = shop("open_synchronizer", Kind.LOCK, "lock", None, b"free")
    shop("save_synchronizer", lock.number, b"held")
    shop("note_answer", ONE, 3, b"yes")
    shop("note_answer", ONE, 4, b"no")
    shop.reopen()
    found, is_still_new = shop("open_synchronizer", Kind.LOCK, "lock", None, b"free")
    assert (is_new, is_still_new, found.state) == (True, False, b"held")
    row = shop("taker", ONE)
    assert (row.number, row.answer) == (4, b"no")
    shop("lose_taker", ONE)
    assert shop("taker", ONE) is None


def test_a_store_of_the_first_schema_is_brought_forward(tmp_path):
    path = tmp_path / "old.sqlite"
    db = apsw.Connection(str(path))
    db.execute(get_data("multihost.store.sqlite", "migrations/0001.sql").decode())
    db.pragma("application_id", 0x6D68_7374)
    db.pragma("user_version", 1)
    db.close()
    shop = Shop(path)
    shop.put(shop.queue(), b"1")
    assert shop("sessions", Role.CLIENT) == []
    assert shop.store.verify() == []
    shop.store.close()
