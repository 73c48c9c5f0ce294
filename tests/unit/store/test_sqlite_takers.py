"""What SQLite keeps of takers, beyond what every store is held to."""

import pytest

from multihost.core.ids import taker_id
from multihost.store.sqlite.items import TAKE_BYTES
from multihost.store.sqlite.store import open_store
from multihost.wire.act import Confirm, Exchange, Put

TAKER = taker_id(1, 1)


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store.sqlite")
    store.begin()
    yield store
    store.prepare(0.0)
    store.commit(is_durable=False)
    assert store.verify() == []
    store.close()


def take(store, queue, limit, **rest):
    result = store.exchange(TAKER, 1, Exchange(take=queue, limit=limit, **rest), 0.0)
    return [item.payload[:1] for item in result.items], [item.number for item in result.items]


def test_a_take_of_many_large_items_gives_no_more_than_an_answer_holds(store):
    queue = store.open_item_queue("q", 0, Confirm.NEXT, None)[0].number
    payloads = [letter * (TAKE_BYTES // 2) for letter in (b"a", b"b", b"c")]
    store.exchange(TAKER, 1, Exchange(puts=[Put(queue, payloads)]), 0.0)
    letters, items = take(store, queue, 3)
    assert letters == [b"a", b"b"]
    assert store.item_queue(queue).waiting == 1
    # Those that came back wait before the rest, and are bounded likewise.
    store.exchange(TAKER, 1, Exchange(returns=items), 0.0)
    assert take(store, queue, 3)[0] == [b"a", b"b"]
    assert take(store, queue, 3)[0] == [b"c"]


def test_an_item_that_is_larger_than_an_answer_should_be_is_given_alone(store):
    queue = store.open_item_queue("q", 0, Confirm.NEXT, None)[0].number
    payloads = [letter * (TAKE_BYTES + 1) for letter in (b"a", b"b")]
    store.exchange(TAKER, 1, Exchange(puts=[Put(queue, payloads)]), 0.0)
    assert take(store, queue, 2)[0] == [b"a"]
    assert take(store, queue, 2)[0] == [b"b"]


def test_the_last_calls_of_a_session_are_found_without_those_of_its_neighbours(store):
    for session in (1, 2, 3):
        store.note_answer(taker_id(session, 5), session, b"")
    assert [row.number for row in store.takers(2)] == [2]
