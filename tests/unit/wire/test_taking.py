"""What a taker holds and has staged: blocks within blocks are kept apart."""

import pytest

from multihost.client.thread_taker import ThreadTaker
from multihost.wire.act import Exchange, Exchanged, ExchangeEnd, Item, Put
from multihost.wire.taking import Taking

A, B, C, OUT = 1, 2, 3, 9
OUTER, INNER, FREE = 11, 22, 33


def payloads(exchange):
    return [payload for put in exchange.puts for payload in put.payloads]


def take(taking, queue, number):
    """Take an item, as far as the taker knows of it."""
    exchange = taking.take(queue)
    taking.settle(exchange, Exchanged(ExchangeEnd.OK, [Item(number, b"", 1)]))


@pytest.fixture
def nested():
    """A ``with`` within another; an item was put in each."""
    taking = Taking()
    take(taking, A, OUTER)
    taking.keep({OUTER})
    taking.stage(OUT, [b"outer", b"more"])
    take(taking, B, INNER)
    taking.keep({INNER})
    taking.stage(OUT, [b"inner"])
    return taking


def test_an_inner_block_that_raises_forgets_what_was_put_in_it_alone(nested):
    exchange = nested.give_back([INNER])
    assert (exchange.returns, exchange.puts) == ([INNER], [])
    nested.settle(exchange, Exchanged(ExchangeEnd.OK))
    exchange = nested.confirm([OUTER])
    assert exchange.confirms == [OUTER]
    assert payloads(exchange) == [b"outer", b"more"]
    assert (nested.staged, nested.staged_items, nested.staged_bytes) == ([], 0, 0)


def test_an_inner_block_that_ends_well_sends_what_was_put_in_it_alone(nested):
    exchange = nested.confirm([INNER])
    assert exchange.confirms == [INNER]
    assert exchange.puts == [Put(OUT, [b"inner"])]
    nested.settle(exchange, Exchanged(ExchangeEnd.OK))
    exchange = nested.give_back([OUTER])
    assert (exchange.returns, exchange.puts, nested.staged) == ([OUTER], [], [])


def test_what_was_taken_freely_goes_with_the_block_in_which_that_was():
    taking = Taking()
    take(taking, A, OUTER)
    taking.keep({OUTER})
    take(taking, C, FREE)
    taking.stage(OUT, [b"of the free one"])
    take(taking, B, INNER)
    taking.keep({INNER})
    taking.stage(OUT, [b"inner"])
    exchange = taking.give_back([INNER])
    assert exchange.returns == [INNER]
    taking.settle(exchange, Exchanged(ExchangeEnd.OK))
    exchange = taking.confirm([OUTER])
    assert exchange.confirms == [OUTER, FREE]
    assert payloads(exchange) == [b"of the free one"]


def test_an_outer_block_that_ends_first_takes_all_with_it(nested):
    exchange = nested.give_back([OUTER])
    assert (exchange.returns, nested.staged) == ([OUTER], [])
    nested.settle(exchange, Exchanged(ExchangeEnd.OK))
    nested.stage(OUT, [b"later"])
    exchange = nested.confirm([INNER])
    assert exchange.confirms == [INNER]
    assert payloads(exchange) == [b"later"]


def test_an_item_that_came_back_and_was_taken_again_was_taken_since():
    taker = ThreadTaker(None, 1)
    take(taker.taking, A, OUTER)
    latest = taker.taking.latest
    assert taker.taken_since(latest) == []
    taker.taking.settle(Exchange(returns=[OUTER]), Exchanged(ExchangeEnd.OK))
    take(taker.taking, A, OUTER)
    assert taker.taken_since(latest) == [OUTER]
