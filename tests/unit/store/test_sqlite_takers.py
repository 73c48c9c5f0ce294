"""What SQLite keeps of takers, beyond what every store is held to."""

from pkgutil import get_data

import apsw
import pytest

from multihost.core.ids import taker_id
from multihost.store.sqlite.store import open_store
from multihost.wire.act import Confirm, Exchange, Put

TAKER = taker_id(1, 1)


def test_a_store_of_the_first_schema_is_brought_forward(tmp_path):
    path = tmp_path / "old.sqlite"
    db = apsw.Connection(str(path))
    db.execute(get_data("multihost.store.sqlite", "migrations/0001.sql").decode())
    db.execute("INSERT INTO sessions (uid, role, info, opened_at) VALUES (x'01', 'client', x'', 1)")
    db.pragma("application_id", 0x6D68_7374)
    db.pragma("user_version", 1)
    db.close()
    store = open_store(path)
    assert store._db.execute("SELECT count(*) FROM sessions").get == 1
    store.begin()
    queue = store.open_item_queue("q", 0, Confirm.NEXT, None)[0].number
    store.exchange(TAKER, 1, Exchange(puts=[Put(queue, [b"a"])]), 0.0)
    taken = store.exchange(TAKER, 2, Exchange(take=queue), 0.0)
    assert [item.payload for item in taken.items] == [b"a"]
    store.prepare(0.0)
    store.commit(is_durable=False)
    assert store.verify() == []
    store.close()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE item_queues SET waiting = waiting + 1, put = put + 1", "by its items"),
        ("UPDATE item_queues SET confirmed = 9", "items put"),
        ("UPDATE item_queues SET unfinished = -1", "unfinished"),
        ("UPDATE item_queues SET confirm = 2", "confirms items when they are taken"),
        ("UPDATE taken_items SET holder = NULL", "by its items"),
        ("UPDATE items SET id = id + 9 WHERE id = (SELECT max(id) FROM items)", "at or behind"),
        ("UPDATE taken_items SET id = id + 2", "waits untaken before"),
        ("DELETE FROM items WHERE id IN (SELECT id FROM taken_items)", "no such item"),
        ("INSERT INTO item_graves SELECT number FROM item_queues", "is being deleted"),
        ("DELETE FROM item_queues", "of a queue that is gone"),
        ("UPDATE items SET size = 1 WHERE id = (SELECT max(id) FROM items)", "referred to"),
    ],
)
def test_the_check_of_a_file_says_what_is_wrong_with_items(tmp_path, sql, words):
    store = open_store(tmp_path / "tampered.sqlite")
    store.begin()
    queue = store.open_item_queue("q", 0, Confirm.NEXT, None)[0].number
    store.exchange(TAKER, 1, Exchange(puts=[Put(queue, [b"a", b"b", b"c"])]), 0.0)
    store.exchange(TAKER, 2, Exchange(take=queue), 0.0)
    store.prepare(0.0)
    store.commit(is_durable=False)
    assert store.verify() == []
    store._db.execute(sql)
    assert any(words in text for text in store.verify()), store.verify()
    store.close()
