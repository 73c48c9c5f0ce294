"""Takers: what they hold, their last answers, synchronizers, and what ends with a session."""

import msgspec

from multihost.core.ids import MAX_TAKER, taker_id
from multihost.store.base import TakerRow
from multihost.testing.conformance.exchanges import ANY, ONE, OTHER, Counter, payloads_of
from multihost.testing.owner import Owner
from multihost.wire.act import AnyResult, Confirm, Exchange, Exchanged, ExchangeEnd, Kind, Put


class TakerTests:
    """``taken``, ``lose_taker``, ``lose_takers``, ``drop_transients``, answers, synchronizers."""

    # what they hold ----------------------------------------------------------------------

    def test_what_was_taken_in_a_call_is_found_again_after_a_restart(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1", b"2", b"3")
        items = counter.take(queue, 2)
        call = counter.calls
        counter.take(queue)
        owner.reopen()
        assert owner.do("taken", ONE, call) == items
        assert owner.do("taken", OTHER, call) == []
        assert owner.do("taken", ONE, 99) == []

    def test_what_is_no_longer_held_is_not_found_by_its_call(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        counter.put(queue, b"1", b"2", b"3")
        items = counter.take(queue, 3)
        call = counter.calls
        counter.exchange(confirms=[items[0].number], returns=[items[1].number])
        assert owner.do("taken", ONE, call) == items[2:]

    def test_a_lost_taker_s_items_wait_again_and_no_other_s(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue, idle = counter.queue(), counter.queue("idle")
        counter.put(queue, b"1", b"2", b"3")
        counter.put(idle, b"4")
        counter.take(queue)
        counter.take(queue, 1, OTHER)
        assert owner.do("lose_taker", ONE) == {queue}
        assert owner.do("lose_taker", ONE) == set()
        owner.reopen()
        again = counter.take(queue, ANY)
        assert [(item.payload, item.attempt) for item in again] == [(b"1", 2), (b"3", 1)]
        assert counter.counts(idle)[:2] == (1, 0)

    def test_a_lost_session_loses_all_its_takers_and_no_neighbour_s(self, owner: Owner) -> None:
        counter = Counter(owner)
        queue = counter.queue()
        mine = [taker_id(7, 0), taker_id(7, MAX_TAKER)]
        others = [taker_id(6, MAX_TAKER), taker_id(8, 0)]
        counter.put(queue, b"1", b"2", b"3", b"4")
        for taker in (*mine, *others):
            counter.take(queue, 1, taker)
            owner.do("note_answer", taker, 1, b"answer")
        assert owner.do("lose_takers", 7) == {queue}
        assert payloads_of(counter.take(queue, ANY)) == [b"1", b"2"]
        assert [owner.store.taker(taker) is None for taker in (*mine, *others)] == [
            *(True, True),
            *(False, False),
        ]

    # answers -----------------------------------------------------------------------------

    def test_a_taker_s_last_answer_is_kept_until_it_is_lost(self, owner: Owner) -> None:
        assert owner.store.taker(ONE) is None
        owner.do("note_answer", ONE, 3, b"yes")
        owner.do("note_answer", ONE, 4, b"no")
        owner.reopen()
        assert owner.store.taker(ONE) == TakerRow(ONE, 4, b"no")
        owner.do("lose_taker", ONE)
        assert owner.store.taker(ONE) is None

    def test_an_exchange_keeps_its_answer_without_items_that_can_be_looked_up(
        self, owner: Owner
    ) -> None:
        counter = Counter(owner)
        queue, lossy = counter.queue(), counter.queue("lossy", confirm=Confirm.GET)
        counter.exchange(puts=[Put(queue, [b"1"]), Put(lossy, [b"2"])])
        assert self._answer(owner) == (1, Exchanged(ExchangeEnd.OK))
        (item,) = counter.take(queue)
        assert self._answer(owner) == (1, Exchanged(ExchangeEnd.OK)), "what is leased is found"
        counter.exchange(confirms=[item.number], take=queue)
        assert self._answer(owner) == (3, Exchanged(ExchangeEnd.EMPTY))
        taken = counter.take(lossy)
        owner.reopen()
        assert self._answer(owner) == (4, Exchanged(ExchangeEnd.OK, taken))

    def _answer(self, owner: Owner) -> tuple[int, AnyResult]:
        row = owner.store.taker(ONE)
        assert row is not None
        return row.number, msgspec.msgpack.decode(row.answer, type=AnyResult)

    def test_the_answers_of_a_session_are_found_without_its_neighbours(self, owner: Owner) -> None:
        for taker in (taker_id(6, MAX_TAKER), taker_id(7, 2), taker_id(7, 1), taker_id(8, 0)):
            owner.do("note_answer", taker, 5, b"answer")
        rows = owner.store.takers(7)
        assert [row.taker for row in rows] == [taker_id(7, 1), taker_id(7, 2)]
        assert owner.store.takers(99) == []

    # synchronizers -----------------------------------------------------------------------

    def test_a_synchronizer_is_found_by_name_with_its_last_state(self, owner: Owner) -> None:
        made, is_new = owner.do("open_synchronizer", Kind.LOCK, "lock", None, b"free")
        owner.do("save_synchronizer", made.number, b"held")
        owner.reopen()
        # Kinds share the names: whoever asked for an event sees that it is a lock.
        found, is_still_new = owner.do("open_synchronizer", Kind.EVENT, "lock", 7, b"clear")
        assert (is_new, is_still_new) == (True, False)
        assert (found.number, found.kind, found.owner) == (made.number, Kind.LOCK, None)
        assert found.state == b"held"
        assert owner.store.synchronizers() == [found]

    def test_a_dropped_synchronizer_is_gone_and_its_number_is_not_used_again(
        self, owner: Owner
    ) -> None:
        first, _ = owner.do("open_synchronizer", Kind.LOCK, "lock", None, b"held")
        for _ in range(2):
            owner.do("drop_synchronizer", first.number)
        owner.do("save_synchronizer", first.number, b"late")
        owner.reopen()
        assert owner.store.synchronizers() == []
        second, is_new = owner.do("open_synchronizer", Kind.LOCK, "lock", None, b"free")
        assert is_new
        assert second.number > first.number

    # sessions ----------------------------------------------------------------------------

    def test_transients_go_with_their_session_and_others_stay(self, owner: Owner) -> None:
        counter = Counter(owner)
        mine, lasting = counter.queue("mine", owner=7), counter.queue("lasting")
        neighbour_s = counter.queue("neighbour's", owner=8)
        lock, _ = owner.do("open_synchronizer", Kind.LOCK, "mine", 7, b"")
        event, _ = owner.do("open_synchronizer", Kind.EVENT, "lasting", None, b"")
        counter.put(mine, b"1")
        owner.reopen()
        assert owner.do("drop_transients", 7) == ([mine], [lock.number])
        assert owner.do("drop_transients", 7) == ([], [])
        assert owner.store.item_queue(mine) is None
        assert owner.store.item_queue(neighbour_s) is not None
        assert [row.number for row in owner.store.item_queues()] == [lasting]
        assert [row.number for row in owner.store.synchronizers()] == [event.number]

    # transactions ------------------------------------------------------------------------

    def test_nothing_that_a_rolled_back_taker_did_has_happened(self, owner: Owner) -> None:
        counter = Counter(owner)
        lock, _ = owner.do("open_synchronizer", Kind.LOCK, "lock", None, b"free")
        queue, dropped = counter.queue(), counter.queue("dropped")
        counter.put(queue, b"1", b"2", b"3")
        counter.put(dropped, b"4")
        (item,) = counter.take(queue)
        before = owner.store.item_queues(), owner.do("taken", ONE, counter.calls)
        owner.do("note_answer", ONE, 1, b"before")
        store = owner.store
        store.begin()
        act = Exchange(confirms=[item.number], puts=[Put(queue, [b"5"])], take=queue)
        store.exchange(ONE, 9, act, owner.now)
        store.drop_item_queue(dropped)
        store.close_item_queue(queue)
        store.open_item_queue("new", 0, Confirm.NEXT, None)
        store.save_synchronizer(lock.number, b"held")
        store.open_synchronizer(Kind.EVENT, "event", None, b"")
        store.note_answer(ONE, 9, b"after")
        store.lose_takers(7)
        store.prepare(owner.now)
        store.rollback()
        assert (store.item_queues(), owner.do("taken", ONE, counter.calls)) == before
        assert store.find_item_queue("new") is None
        assert store.taker(ONE) == TakerRow(ONE, 1, b"before")
        assert store.synchronizers() == [lock]
        assert store.verify() == []
        # And the next of each queue is what it was.
        assert payloads_of(counter.take(queue, ANY)) == [b"2", b"3"]
        assert payloads_of(counter.take(dropped, ANY)) == [b"4"]
